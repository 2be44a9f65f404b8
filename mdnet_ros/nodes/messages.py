"""Builds the output messages, and reads them back.

A consumer in Python gets the typed data back::

    features = read_features(keypoints_message)
    correspondences = read_correspondences(correspondences_message)
"""

from __future__ import annotations

import array

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from mdnet_ros.data.headers import stamp_nanoseconds
from mdnet_ros.data.pointcloud import cloud_fields, read_cloud
from mdnet_ros.errors import DataError
from mdnet_ros.features.types import Correspondences, Features, TrackedFrame
from mdnet_ros.nodes.cdr import CdrWriter
from mdnet_ros.tracker.clouds import (
    DescriptorEncoding,
    correspondence_table,
    correspondences_of_table,
    features_of_table,
    keypoint_table,
    stereo_table,
    tracked_of_tables,
)
from mdnet_ros.tracker.stereo import StereoMatches
from mdnet_ros.tracker.vins import VinsLayout, VinsTracks


def cloud_message(table: np.ndarray, header: Header) -> PointCloud2:
    """Build a PointCloud2 from a structured array, with the same fields."""
    data = array.array('B')
    data.frombytes(memoryview(table.tobytes()))
    return PointCloud2(
        header=header,
        height=1,
        width=len(table),
        fields=[
            PointField(name=f.name, offset=f.offset, datatype=f.datatype, count=f.count)
            for f in cloud_fields(table.dtype)
        ],
        is_bigendian=False,
        point_step=table.dtype.itemsize,
        row_step=table.dtype.itemsize * len(table),
        data=data,
        is_dense=True,
    )


def keypoints_message(
    frame: TrackedFrame, header: Header, descriptors: DescriptorEncoding = 'float32'
) -> PointCloud2:
    """Build the ``keypoints`` message: see :func:`mdnet_ros.tracker.clouds.keypoint_table`."""
    return cloud_message(keypoint_table(frame, descriptors), header)


def correspondences_message(frame: TrackedFrame, header: Header) -> PointCloud2:
    """Build the ``correspondences`` message from a tracked frame."""
    return cloud_message(correspondence_table(frame), header)


def tracks_message(
    tracks: VinsTracks,
    header: Header,
    layout: VinsLayout,
    camera_id: int = 0,
    right: VinsTracks | None = None,
) -> bytes:
    """Build the ``tracks`` message in VINS-Mono's or VINS-Fusion's layout (``tracker/vins.py``).

    The result is a serialised ``sensor_msgs/PointCloud``: an object for each point would take
    longer than all other outputs together.

    Args:
        tracks: tracks of the image.
        header: header of the image.
        layout: ``mono`` or ``fusion``.
        camera_id: 0 left, 1 right (``fusion`` only).
        right: observations of the tracks in the right image of a stereo pair. VINS-Fusion expects
            the left observation of an id before the right one, and no right one alone.
    """
    points, channels = tracks.points(), tracks.channels(layout, camera_id)
    if right is not None:
        points = np.concatenate([points, right.points()])
        channels = [
            (name, np.concatenate([values, more]))
            for (name, values), (_, more) in zip(channels, right.channels(layout, 1), strict=True)
        ]
    writer = CdrWriter()
    writer.header(header)
    writer.count(len(points))
    writer.floats(points)
    writer.count(len(channels))
    for name, values in channels:
        writer.string(name)
        writer.count(len(values))
        writer.floats(values)
    return writer.message()


def stereo_message(
    left: TrackedFrame, right: TrackedFrame, matches: StereoMatches, header: Header
) -> PointCloud2:
    """Build the ``stereo`` message: see :func:`mdnet_ros.tracker.clouds.stereo_table`."""
    return cloud_message(stereo_table(left, right, matches), header)


def read_features(message: PointCloud2, image_size: tuple[int, int] = (0, 0)) -> Features:
    """Read the features of a ``keypoints`` message, which does not hold the ``image_size``.

    Raises:
        DataError: if it is not such a message.
    """
    return features_of_table(read_cloud(message), image_size)


def read_correspondences(message: PointCloud2) -> Correspondences:
    """Read the correspondences of a ``correspondences`` message.

    Raises:
        DataError: if it is not such a message.
    """
    return correspondences_of_table(read_cloud(message))


def read_tracked(
    keypoints: PointCloud2, correspondences: PointCloud2, image_size: tuple[int, int] = (0, 0)
) -> TrackedFrame:
    """Read the tracked frame of a ``keypoints`` and a ``correspondences`` message.

    Raises:
        DataError: if they are not such messages, or not of the same image.
    """
    stamps = stamp_nanoseconds(keypoints.header), stamp_nanoseconds(correspondences.header)
    if stamps[0] != stamps[1]:
        raise DataError(
            f'keypoints and correspondences: expected equal stamps, got {stamps[0]} and '
            f'{stamps[1]} ns'
        )
    return tracked_of_tables(
        read_cloud(keypoints), read_cloud(correspondences), stamps[0], image_size
    )


__all__ = [
    'cloud_message',
    'correspondences_message',
    'keypoints_message',
    'read_cloud',
    'read_correspondences',
    'read_features',
    'read_tracked',
    'stamp_nanoseconds',
    'stereo_message',
    'tracks_message',
]

"""Output messages, written and read.

A consumer in Python gets the typed data back::

    features = read_features(keypoints_message)
    links = read_correspondences(correspondences_message)
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
    """A PointCloud2 of a structured array, one field for each of its own."""
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
    """The ``keypoints`` message: see :func:`mdnet_ros.tracker.clouds.keypoint_table`."""
    return cloud_message(keypoint_table(frame, descriptors), header)


def correspondences_message(frame: TrackedFrame, header: Header) -> PointCloud2:
    """Make the ``correspondences`` message from a tracked frame."""
    return cloud_message(correspondence_table(frame), header)


def tracks_message(
    tracks: VinsTracks,
    header: Header,
    layout: VinsLayout,
    camera_id: int = 0,
    right: VinsTracks | None = None,
) -> bytes:
    """Make the ``tracks`` message in VINS-Mono's or VINS-Fusion's layout (``tracker/vins.py``).

    It is a ``sensor_msgs/PointCloud``, serialised: an object for each point would take longer
    than all other outputs together.

    Args:
        tracks: of the image.
        header: of the image.
        layout: ``mono`` or ``fusion``.
        camera_id: 0 left, 1 right (``fusion`` only).
        right: of a stereo pair, what the right camera sees of them. Their reader wants the left
            observation of an id before the right one, and none without it.
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
    """The ``stereo`` message: see :func:`mdnet_ros.tracker.clouds.stereo_table`."""
    return cloud_message(stereo_table(left, right, matches), header)


def read_features(message: PointCloud2, image_size: tuple[int, int] = (0, 0)) -> Features:
    """The features of a ``keypoints`` message; ``image_size`` is not in it.

    Raises:
        DataError: if it is none.
    """
    return features_of_table(read_cloud(message), image_size)


def read_correspondences(message: PointCloud2) -> Correspondences:
    """The links of a ``correspondences`` message.

    Raises:
        DataError: if it is none.
    """
    return correspondences_of_table(read_cloud(message))


def read_tracked(
    keypoints: PointCloud2, correspondences: PointCloud2, image_size: tuple[int, int] = (0, 0)
) -> TrackedFrame:
    """The tracked frame of a ``keypoints`` and a ``correspondences`` message.

    Raises:
        DataError: if they are none, or not of the same image.
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

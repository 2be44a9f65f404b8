"""Output messages, written and read.

A consumer in Python gets the typed data back::

    features = read_features(keypoints_message)
    links = read_correspondences(correspondences_message)
"""

from __future__ import annotations

import array

import numpy as np
from sensor_msgs.msg import CameraInfo, PointCloud2, PointField
from std_msgs.msg import Header

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.errors import DataError
from mdnet_ros.features.types import Correspondences, Features, TrackedFrame
from mdnet_ros.nodes.cdr import CdrWriter
from mdnet_ros.tracker.clouds import (
    DescriptorEncoding,
    cloud_fields,
    cloud_table,
    correspondence_table,
    correspondences_of_table,
    features_of_table,
    keypoint_table,
    stereo_table,
    tracked_of_tables,
)
from mdnet_ros.tracker.stereo import StereoMatches
from mdnet_ros.tracker.vins import VinsLayout, VinsTracks


def stamp_nanoseconds(header: Header) -> int:
    """The stamp of a header in nanoseconds."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


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


def read_cloud(message: PointCloud2) -> np.ndarray:
    """The points of a PointCloud2 as a (N,) structured array, a view of the message.

    Raises:
        DataError: if the message contradicts itself.
    """
    return cloud_table(
        message.fields, message.width * message.height, message.point_step, message.data,
        message.is_bigendian,
    )


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


def camera_model(message: CameraInfo, rectified: bool = False) -> CameraModel:
    """The calibration in a ``camera_info`` message.

    Args:
        message: the calibration.
        rectified: the images are rectified already, so that its P holds for them.

    Raises:
        DataError: if it cannot be that of a camera.
    """
    model = CameraModel(
        width=int(message.width),
        height=int(message.height),
        k=np.array(message.k, np.float64).reshape(3, 3),
        d=np.array(message.d, np.float64),
        distortion_model=message.distortion_model,
        r=np.array(message.r, np.float64).reshape(3, 3),
        p=np.array(message.p, np.float64).reshape(3, 4),
    )
    return model.of_rectified_images() if rectified else model

"""Builds the messages that bags are written with, without ROS, and reads depth maps.

The content of the messages equals what the node publishes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from mdnet_ros.bags.reader import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE
from mdnet_ros.bags.writer import BagWriter
from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.image_decoding import parts_of_format
from mdnet_ros.data.pointcloud import cloud_fields
from mdnet_ros.data.poses import Pose, quaternion_of_rotation
from mdnet_ros.errors import DataError

POINT_CLOUD2 = 'sensor_msgs/msg/PointCloud2'
POINT_CLOUD = 'sensor_msgs/msg/PointCloud'
POSE_STAMPED = 'geometry_msgs/msg/PoseStamped'
#: 16 bit depth maps are in millimetres.
_DEPTH_UNITS_PER_METRE = np.float32(1000)
#: Encoding of a depth map -> NumPy type of a value.
_DEPTH_TYPES = {'16UC1': 'u2', '32FC1': 'f4'}
#: compressed_depth_image_transport puts these bytes before the PNG: an enumerator and two floats.
_DEPTH_HEADER = bytes(12)


class BagTopics:
    """Writes typed messages to the topics of a bag, recorded at the stamps of their headers.

    Where a stamp goes back, the message is recorded right after the one before it, so that the
    bag is read in the order it was written.

    Args:
        bag: an open writer.
    """

    def __init__(self, bag: BagWriter) -> None:
        self._bag = bag
        self._types = bag.types
        self._header_stamp = self._recorded_at = 0

    def image(self, topic: str, stamp_ns: int, frame_id: str, image: np.ndarray) -> None:
        """Write an (H, W) uint8 image as ``mono8`` or an (H, W, 3) uint8 one as ``bgr8``."""
        height, width = image.shape[:2]
        message = self._types[IMAGE](
            self._header(stamp_ns, frame_id), height, width,
            'mono8' if image.ndim == 2 else 'bgr8', 0, image.size // height,
            np.ascontiguousarray(image).reshape(-1),
        )  # fmt: skip
        self._write(topic, IMAGE, stamp_ns, message)

    def depth(self, topic: str, stamp_ns: int, frame_id: str, depth: np.ndarray) -> None:
        """Write an (H, W) depth map in metres as a PNG of millimetres (``compressedDepth``)."""
        units = np.clip(np.rint(depth * _DEPTH_UNITS_PER_METRE), 0, 65535).astype(np.uint16)
        _, png = cv2.imencode('.png', units, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        message = self._types[COMPRESSED_IMAGE](
            self._header(stamp_ns, frame_id), '16UC1; compressedDepth png',
            np.frombuffer(_DEPTH_HEADER + png.tobytes(), np.uint8),
        )
        self._write(topic, COMPRESSED_IMAGE, stamp_ns, message)

    def camera_info(
        self, topic: str, stamp_ns: int, frame_id: str, camera: CameraModel
    ) -> None:
        """Write the calibration of an unrectified camera as ``sensor_msgs/CameraInfo``."""
        projection = np.concatenate([camera.k, np.zeros((3, 1))], axis=1)
        region = self._types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
        message = self._types[CAMERA_INFO](
            self._header(stamp_ns, frame_id), camera.height, camera.width,
            camera.distortion_model, camera.d, camera.k.reshape(-1), np.eye(3).reshape(-1),
            projection.reshape(-1), 0, 0, region,
        )  # fmt: skip
        self._write(topic, CAMERA_INFO, stamp_ns, message)

    def pose(self, topic: str, stamp_ns: int, frame_id: str, pose: Pose) -> None:
        """Write a pose, camera to the frame ``frame_id``, as ``geometry_msgs/PoseStamped``."""
        point = self._types['geometry_msgs/msg/Point'](*(float(v) for v in pose.translation))
        turn = self._types['geometry_msgs/msg/Quaternion'](*quaternion_of_rotation(pose.rotation))
        message = self._types[POSE_STAMPED](
            self._header(stamp_ns, frame_id), self._types['geometry_msgs/msg/Pose'](point, turn)
        )
        self._write(topic, POSE_STAMPED, stamp_ns, message)

    def cloud(self, topic: str, stamp_ns: int, frame_id: str, table: np.ndarray) -> None:
        """Write a structured array as ``sensor_msgs/PointCloud2`` with the same fields."""
        fields = [
            self._types['sensor_msgs/msg/PointField'](f.name, f.offset, f.datatype, f.count)
            for f in cloud_fields(table.dtype)
        ]
        step = table.dtype.itemsize
        message = self._types[POINT_CLOUD2](
            self._header(stamp_ns, frame_id), 1, len(table), fields, False, step,
            step * len(table), np.frombuffer(table.tobytes(), np.uint8), True,
        )  # fmt: skip
        self._write(topic, POINT_CLOUD2, stamp_ns, message)

    def points(
        self,
        topic: str,
        stamp_ns: int,
        frame_id: str,
        points: np.ndarray,
        channels: Sequence[tuple[str, np.ndarray]],
    ) -> None:
        """Write (N, 3) points and named channels of N values as ``sensor_msgs/PointCloud``."""
        point, channel = (
            self._types[f'{package}/msg/{name}']
            for package, name in (('geometry_msgs', 'Point32'), ('sensor_msgs', 'ChannelFloat32'))
        )
        message = self._types[POINT_CLOUD](
            self._header(stamp_ns, frame_id),
            [point(*(float(v) for v in p)) for p in points],
            [channel(name, values) for name, values in channels],
        )
        self._write(topic, POINT_CLOUD, stamp_ns, message)

    def _write(self, topic: str, type: str, stamp_ns: int, message: Any) -> None:
        if stamp_ns > self._recorded_at:
            self._recorded_at = stamp_ns
        elif stamp_ns != self._header_stamp:
            self._recorded_at += 1
        self._header_stamp = stamp_ns
        self._bag.write(topic, type, self._recorded_at, message)

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        seconds, nanoseconds = divmod(int(stamp_ns), 1_000_000_000)
        time = self._types['builtin_interfaces/msg/Time'](seconds, nanoseconds)
        return self._types['std_msgs/msg/Header'](time, frame_id)


def depth_of_message(message: Any) -> np.ndarray | None:
    """Decode a depth map: an Image, or a CompressedImage of one of ROS's two transports.

    16 bit values are millimetres, float32 values are metres (REP 118). Read are ``16UC1`` and
    ``32FC1``, raw and compressed by compressed_depth_image_transport to PNG, and ``16UC1`` that
    compressed_image_transport compresses to PNG.

    Args:
        message: an Image or a CompressedImage.

    Returns:
        (H, W) float32, metres; 0 or NaN where the depth is unknown. None if the message is no
        depth map but an image of another kind.

    Raises:
        DataError: if it is a depth map that is damaged or in a compression that is not read.
    """
    if hasattr(message, 'format'):
        return _compressed_depth(message.format, np.asarray(message.data, np.uint8))
    if message.encoding not in _DEPTH_TYPES:
        return None
    kind = np.dtype(('>' if message.is_bigendian else '<') + _DEPTH_TYPES[message.encoding])
    data = np.asarray(message.data, np.uint8)
    used = max(1, message.width) * kind.itemsize
    if not message.height or message.step < used or len(data) != message.height * message.step:
        raise DataError(
            f'depth image {message.width}x{message.height} {message.encoding}: expected a step '
            f'of at least {used} bytes and step x height bytes of data, got step {message.step} '
            f'and {len(data)} bytes'
        )
    rows = data.reshape(message.height, message.step)[:, :used]
    values = rows.copy().view(kind).astype(np.float32)
    return values / _DEPTH_UNITS_PER_METRE if kind.itemsize == 2 else values


def _compressed_depth(described: str, data: np.ndarray) -> np.ndarray | None:
    """Decode a compressed depth map; arguments are the message's ``format`` and data."""
    encoding, compression = parts_of_format(described)
    by_depth_transport = 'compresseddepth' in described.lower()
    if not by_depth_transport and encoding not in _DEPTH_TYPES:
        return None
    if 'rvl' in compression or 'jp' in compression:
        raise DataError(f"depth image '{described}': expected a compression to png")
    content = data[len(_DEPTH_HEADER) :] if by_depth_transport else data
    try:
        units = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    except cv2.error:  # such as a size beyond its limit
        units = None
    if units is None or units.dtype != np.uint16 or units.ndim != 2:
        raise DataError(f"depth image '{described}': expected a PNG of 16 bit and one channel")
    if encoding != '32FC1':
        return units.astype(np.float32) / _DEPTH_UNITS_PER_METRE
    if not by_depth_transport:
        raise DataError(
            f"depth image '{described}': expected 32FC1 by the compressedDepth transport"
        )
    # compressed_depth_image_transport stores a / depth + b, with a and b behind an enumerator.
    a, b = data[4 : len(_DEPTH_HEADER)].view('<f4')
    inverse = units.astype(np.float32) - b
    known = (units != 0) & (inverse > 0)
    return np.divide(a, inverse, out=np.full(units.shape, np.nan, np.float32), where=known)

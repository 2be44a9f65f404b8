"""Messages for bags, written without ROS: the same content as the node publishes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from mdnet_ros.bags.reader import CAMERA_INFO, COMPRESSED_IMAGE, IMAGE
from mdnet_ros.bags.writer import BagWriter
from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.pointcloud import cloud_fields
from mdnet_ros.data.poses import Pose, quaternion_of_rotation

POINT_CLOUD2 = 'sensor_msgs/msg/PointCloud2'
POINT_CLOUD = 'sensor_msgs/msg/PointCloud'
POSE_STAMPED = 'geometry_msgs/msg/PoseStamped'
#: Depth maps are stored in millimetres.
_DEPTH_UNITS_PER_METRE = 1000.0
#: compressed_depth_image_transport puts these bytes before the PNG: an enumerator and two floats.
_DEPTH_HEADER = bytes(12)


class BagTopics:
    """Writes typed messages to the topics of a bag; message and bag stamp are the same.

    Args:
        bag: an open writer.
    """

    def __init__(self, bag: BagWriter) -> None:
        self._bag = bag
        self._types = bag.types

    def image(self, topic: str, stamp_ns: int, frame_id: str, image: np.ndarray) -> None:
        """An (H, W) uint8 image as ``mono8``, an (H, W, 3) one as ``bgr8``."""
        height, width = image.shape[:2]
        message = self._types[IMAGE](
            self._header(stamp_ns, frame_id), height, width,
            'mono8' if image.ndim == 2 else 'bgr8', 0, image.size // height,
            np.ascontiguousarray(image).reshape(-1),
        )  # fmt: skip
        self._bag.write(topic, IMAGE, stamp_ns, message)

    def depth(self, topic: str, stamp_ns: int, frame_id: str, depth: np.ndarray) -> None:
        """An (H, W) depth map in metres, as millimetres in a PNG (``compressedDepth``)."""
        units = np.clip(np.rint(depth * _DEPTH_UNITS_PER_METRE), 0, 65535).astype(np.uint16)
        _, png = cv2.imencode('.png', units, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        message = self._types[COMPRESSED_IMAGE](
            self._header(stamp_ns, frame_id), '16UC1; compressedDepth png',
            np.frombuffer(_DEPTH_HEADER + png.tobytes(), np.uint8),
        )
        self._bag.write(topic, COMPRESSED_IMAGE, stamp_ns, message)

    def camera_info(
        self, topic: str, stamp_ns: int, frame_id: str, camera: CameraModel
    ) -> None:
        """The calibration of an unrectified camera."""
        projection = np.concatenate([camera.k, np.zeros((3, 1))], axis=1)
        region = self._types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
        message = self._types[CAMERA_INFO](
            self._header(stamp_ns, frame_id), camera.height, camera.width,
            camera.distortion_model, camera.d, camera.k.reshape(-1), np.eye(3).reshape(-1),
            projection.reshape(-1), 0, 0, region,
        )  # fmt: skip
        self._bag.write(topic, CAMERA_INFO, stamp_ns, message)

    def pose(self, topic: str, stamp_ns: int, frame_id: str, pose: Pose) -> None:
        """A camera's pose in the map ``frame_id``."""
        point = self._types['geometry_msgs/msg/Point'](*(float(v) for v in pose.translation))
        turn = self._types['geometry_msgs/msg/Quaternion'](*quaternion_of_rotation(pose.rotation))
        message = self._types[POSE_STAMPED](
            self._header(stamp_ns, frame_id), self._types['geometry_msgs/msg/Pose'](point, turn)
        )
        self._bag.write(topic, POSE_STAMPED, stamp_ns, message)

    def cloud(self, topic: str, stamp_ns: int, frame_id: str, table: np.ndarray) -> None:
        """A structured array, as PointCloud2."""
        fields = [
            self._types['sensor_msgs/msg/PointField'](f.name, f.offset, f.datatype, f.count)
            for f in cloud_fields(table.dtype)
        ]
        step = table.dtype.itemsize
        message = self._types[POINT_CLOUD2](
            self._header(stamp_ns, frame_id), 1, len(table), fields, False, step,
            step * len(table), np.frombuffer(table.tobytes(), np.uint8), True,
        )  # fmt: skip
        self._bag.write(topic, POINT_CLOUD2, stamp_ns, message)

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
        self._bag.write(topic, POINT_CLOUD, stamp_ns, message)

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        seconds, nanoseconds = divmod(int(stamp_ns), 1_000_000_000)
        time = self._types['builtin_interfaces/msg/Time'](seconds, nanoseconds)
        return self._types['std_msgs/msg/Header'](time, frame_id)


def depth_of_message(message: Any) -> np.ndarray | None:
    """Read a depth map from an Image or a ``compressedDepth`` PNG.

    Depths are millimetres if 16 bit, metres if float32 (REP 118).

    Returns:
        (H, W) float32 metres; None if the message holds no depth map or a broken one.
    """
    if hasattr(message, 'format'):
        content = np.asarray(message.data, np.uint8)[len(_DEPTH_HEADER) :]
        try:
            units = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
        except cv2.error:
            return None
        if units is None or units.dtype != np.uint16 or units.ndim != 2:
            return None
        return units.astype(np.float32) / np.float32(_DEPTH_UNITS_PER_METRE)
    kinds = {'16UC1': 'u2', '32FC1': 'f4'}
    if message.encoding not in kinds:
        return None
    kind = np.dtype(('>' if message.is_bigendian else '<') + kinds[message.encoding])
    data = np.asarray(message.data, np.uint8)
    least = max(1, message.width) * kind.itemsize
    if not message.height or message.step < least or data.size != message.height * message.step:
        return None
    rows = data.reshape(message.height, message.step)
    values = rows[:, : message.width * kind.itemsize].copy().view(kind).astype(np.float32)
    return values / np.float32(_DEPTH_UNITS_PER_METRE) if kind.itemsize == 2 else values

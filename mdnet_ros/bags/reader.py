"""Read rosbag2 recordings (sqlite3 and mcap) and ROS 1 bags without ROS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mdnet_ros.data.decoding import (
    ENCODINGS,
    decode_bgr,
    decode_compressed,
    decode_compressed_bgr,
    decode_gray,
)
from mdnet_ros.data.headers import stamp_nanoseconds
from mdnet_ros.data.poses import PoseTrack, pose_of_quaternion
from mdnet_ros.errors import DataError, MissingDependencyError

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
IMAGE_TYPES = (IMAGE, COMPRESSED_IMAGE)
ODOMETRY = 'nav_msgs/msg/Odometry'
#: Types of poses as motion capture and simulators publish them.
_MEASURED_POSES = ('geometry_msgs/msg/PoseStamped', 'geometry_msgs/msg/TransformStamped')
POSE_TYPES = (*_MEASURED_POSES, 'geometry_msgs/msg/PoseWithCovarianceStamped', ODOMETRY)
#: Words in the names of topics that hold where a robot should go or is told to be.
_NO_POSES = ('goal', 'initialpose', 'initial_pose', 'setpoint', 'target', 'waypoint')
_COMPRESSED_SUFFIX = '/compressed'


@dataclass(frozen=True)
class RawMessage:
    """A message as it lies in the bag.

    Attributes:
        topic: its topic.
        type: such as ``sensor_msgs/msg/Image``.
        stamp_ns: when it was recorded, nanoseconds.
        data: its CDR bytes (of a ROS 1 bag: its ROS 1 bytes).
    """

    topic: str
    type: str
    stamp_ns: int
    data: bytes


@dataclass(frozen=True)
class ImageFrame:
    """One image of a bag; its pixels are decoded when they are first asked for.

    Attributes:
        stamp_ns: of the header, nanoseconds.
        frame_id: of the header.
        message: the deserialised Image or CompressedImage.
    """

    stamp_ns: int
    frame_id: str
    message: Any = field(repr=False)

    @cached_property
    def image(self) -> np.ndarray:
        """(H, W) uint8 gray.

        Raises:
            ImageError: if the message cannot be decoded.
        """
        m = self.message
        if hasattr(m, 'format'):
            return decode_compressed(m.format, m.data)
        return decode_gray(m.encoding, m.height, m.width, m.step, m.is_bigendian, m.data)

    @cached_property
    def bgr(self) -> np.ndarray:
        """(H, W, 3) uint8 BGR; errors as :attr:`image`."""
        m = self.message
        if hasattr(m, 'format'):
            return decode_compressed_bgr(m.format, m.data)
        return decode_bgr(m.encoding, m.height, m.width, m.step, m.is_bigendian, m.data)


class BagReader:
    """A bag, opened as a context manager.

    Args:
        path: a rosbag2 folder, a single ``.mcap`` or ``.db3`` file, or a ROS 1 ``.bag``.

    Raises:
        DataError: on entering, if there is no bag or it cannot be read.
        MissingDependencyError: if ``rosbags`` is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._reader: Any = None

    def __enter__(self) -> BagReader:
        try:
            from rosbags.highlevel import AnyReader
            from rosbags.typesys import Stores, get_typestore
        except ImportError:
            raise MissingDependencyError('rosbags', 'bags', 'reading bags') from None
        if not self.path.exists():
            raise DataError(f"bag '{self.path}': no such file or folder")
        try:
            # Old sqlite3 bags hold no message definitions: take those of the distribution.
            reader = AnyReader([self.path], default_typestore=get_typestore(Stores.ROS2_HUMBLE))
            reader.open()
        except Exception as error:  # the library's errors are many and not one family
            raise self._unreadable(error) from None
        self._reader = reader
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    @property
    def topics(self) -> dict[str, str]:
        """Topic to message type, by name."""
        return {c.topic: c.msgtype for c in sorted(self._reader.connections, key=_topic)}

    @property
    def counts(self) -> dict[str, int]:
        """Topic to number of messages, by name."""
        counts: dict[str, int] = {}
        for connection in sorted(self._reader.connections, key=_topic):
            counts[connection.topic] = counts.get(connection.topic, 0) + connection.msgcount
        return counts

    @property
    def duration_s(self) -> float:
        """Seconds from the first message to the last."""
        return max(0, self._reader.duration) * 1e-9

    def image_topics(self) -> list[str]:
        """The topics whose first message is an image that can be decoded; not depth maps."""
        return [topic for topic, kind in self.topics.items() if self._holds_images(topic, kind)]

    def image_topic(self, requested: str | None = None) -> str:
        """The topic to read images from.

        Args:
            requested: what the user named; None: the only one that can be decoded (an
                uncompressed topic goes before its own compressed copy).

        Raises:
            DataError: if it is not there, holds no images, or the choice is not clear.
        """
        if requested is not None:
            return self._checked(requested, IMAGE_TYPES, 'images')
        every = self.image_topics()
        candidates = [
            t for t in every if t.removesuffix(_COMPRESSED_SUFFIX) not in set(every) - {t}
        ]
        if len(candidates) != 1:
            found = ', '.join(candidates) if candidates else f'none among {self._listing()}'
            raise DataError(
                f"bag '{self.path}': expected one image topic, found {found}"
                + ('; name one' if candidates else '')
            )
        return candidates[0]

    def camera_info_topic(self, image_topic: str, requested: str | None = None) -> str | None:
        """The camera_info topic of an image topic, by ROS convention, or the bag's only one.

        Raises:
            DataError: if the requested topic is not there.
        """
        if requested is not None:
            return self._checked(requested, (CAMERA_INFO,), 'camera_info')
        infos = [t for t, kind in self.topics.items() if kind == CAMERA_INFO]
        sibling = image_topic.removesuffix(_COMPRESSED_SUFFIX).rpartition('/')[0] + '/camera_info'
        if sibling in infos:
            return sibling
        return infos[0] if len(infos) == 1 else None

    def pose_topic(self, requested: str | None = None) -> str | None:
        """Return the topic of the ground truth, or None where the choice is not clear.

        That is the only one called ground truth, else the only one of poses that are usually
        measured from outside. Odometry and poses with a covariance are estimates, and goals are
        no poses at all: they have to be requested.

        Raises:
            DataError: if the requested topic is not there or holds no poses.
        """
        if requested is not None:
            return self._checked(requested, POSE_TYPES, 'poses')
        kinds = {t: kind for t, kind in self.topics.items() if kind in POSE_TYPES}
        found = [t for t in kinds if is_called_ground_truth(t) and kinds[t] != ODOMETRY]
        if not found:
            found = [
                t for t, kind in kinds.items()
                if kind in _MEASURED_POSES and not any(word in t.lower() for word in _NO_POSES)
            ]
        return found[0] if len(found) == 1 else None

    def pose_topics(self) -> list[str]:
        """Return all topics that hold poses of any type."""
        return [topic for topic, kind in self.topics.items() if kind in POSE_TYPES]

    def images(self, topic: str | None = None) -> Iterator[ImageFrame]:
        """The images of a topic in the order they were recorded.

        Args:
            topic: as for :meth:`image_topic`.

        Raises:
            DataError: as :meth:`image_topic`, or if the bag is damaged.
        """
        for message in self.messages(self.image_topic(topic)):
            yield ImageFrame(stamp_nanoseconds(message.header), message.header.frame_id, message)

    def poses(self, topic: str) -> PoseTrack:
        """Return the poses of a topic, sorted by stamp; of several with one stamp the first.

        Poses that are not finite, or whose quaternion is zero, are left out and counted.

        Raises:
            DataError: if the topic is not there or holds no poses.
        """
        self._checked(topic, POSE_TYPES, 'poses')
        stamps, rotations, translations = [], [], []
        frame_id, body_frame, skipped = 'map', '', 0
        for message in self.messages(topic):
            p, q = _position_and_orientation(message)
            pose = pose_of_quaternion((p.x, p.y, p.z), (q.x, q.y, q.z, q.w))
            if pose is None:
                skipped += 1
                continue
            stamps.append(stamp_nanoseconds(message.header))
            rotations.append(pose.rotation)
            translations.append(pose.translation)
            frame_id = message.header.frame_id
            body_frame = getattr(message, 'child_frame_id', '').lstrip('/')
        unique, rows = np.unique(np.array(stamps, np.int64), return_index=True)
        return PoseTrack(
            unique,
            np.array(rotations, np.float64).reshape(-1, 3, 3)[rows],
            np.array(translations, np.float64).reshape(-1, 3)[rows],
            frame_id,
            body_frame,
            skipped,
        )

    def messages(self, topic: str) -> Iterator[Any]:
        """The deserialised messages of a topic.

        Raises:
            DataError: if the topic is not there or the bag is damaged.
        """
        return (message for _, message in self.typed([topic]))

    def typed(self, topics: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """Topic and deserialised message, in the order they were recorded.

        Raises:
            DataError: if a topic is not there or the bag is damaged.
        """
        for raw in self.raw(topics):
            try:
                message = self._reader.deserialize(raw.data, raw.type)
            except Exception as error:
                raise self._unreadable(error) from None
            yield raw.topic, message

    def raw(self, topics: Sequence[str] | None = None) -> Iterator[RawMessage]:
        """Undecoded messages in the order they were recorded.

        Args:
            topics: only these; None: all.

        Raises:
            DataError: if a topic is not there or the bag is damaged.
        """
        connections = list(self._reader.connections)
        if topics is not None:
            for topic in topics:
                self._checked(topic)
            connections = [c for c in connections if c.topic in topics]
        if not connections:
            return
        messages = self._reader.messages(connections=connections)
        while True:
            try:
                connection, stamp, data = next(messages)
            except StopIteration:
                return
            except Exception as error:
                raise self._unreadable(error) from None
            yield RawMessage(connection.topic, connection.msgtype, int(stamp), bytes(data))

    def _checked(self, topic: str, types: Sequence[str] = (), content: str = '') -> str:
        kind = self.topics.get(topic)
        if kind is None:
            raise DataError(f"bag '{self.path}': no topic '{topic}', it has {self._listing()}")
        if types and kind not in types:
            raise DataError(f"bag '{self.path}': topic '{topic}' holds {kind}, not {content}")
        return topic

    def _holds_images(self, topic: str, kind: str) -> bool:
        """Whether the topic's first message is an image (depth maps are not)."""
        if kind not in IMAGE_TYPES:
            return False
        for message in self.messages(topic):
            if kind == COMPRESSED_IMAGE:
                return 'compressedDepth' not in message.format
            return message.encoding in ENCODINGS
        return False

    def _listing(self) -> str:
        return ', '.join(self.topics) or 'none'

    def _unreadable(self, error: Exception) -> DataError:
        reason = ' '.join(str(error).split())[:200] or type(error).__name__
        return DataError(f"bag '{self.path}': cannot be read: {reason}")


def is_called_ground_truth(topic: str) -> bool:
    """Tell whether a topic's name says that it holds the ground truth."""
    return 'groundtruth' in topic.lower().replace('_', '').replace('-', '')


def _topic(connection: Any) -> str:
    return connection.topic


def _position_and_orientation(message: Any) -> tuple[Any, Any]:
    if hasattr(message, 'transform'):
        return message.transform.translation, message.transform.rotation
    pose = message.pose
    pose = getattr(pose, 'pose', pose)  # with covariance
    return pose.position, pose.orientation

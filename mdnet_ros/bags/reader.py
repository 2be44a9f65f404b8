"""Read rosbag2 recordings (sqlite3 and mcap) and ROS 1 bags without ROS."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from mdnet_ros.bags.qos import TopicQos
from mdnet_ros.bags.storage import Storage, cannot_be_read
from mdnet_ros.bags.unfinished import finish_at
from mdnet_ros.data.headers import stamp_nanoseconds
from mdnet_ros.data.image_decoding import (
    DEPTH_ENCODINGS,
    ENCODINGS,
    RawValueRange,
    check_compressed,
    decode_bgr,
    decode_compressed,
    decode_compressed_bgr,
    decode_gray,
    parts_of_format,
)
from mdnet_ros.data.poses import Trajectory, pose_of_quaternion
from mdnet_ros.errors import DataError

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'
IMAGE_TYPES = (IMAGE, COMPRESSED_IMAGE)
_log = logging.getLogger(__name__)

#: Messages of a topic that are read to find out what it holds: the first may be broken.
_LOOKED_AT = 10
ODOMETRY = 'nav_msgs/msg/Odometry'
#: Types of poses as motion capture and simulators publish them.
_MEASURED_POSES = ('geometry_msgs/msg/PoseStamped', 'geometry_msgs/msg/TransformStamped')
POSE_TYPES = (*_MEASURED_POSES, 'geometry_msgs/msg/PoseWithCovarianceStamped', ODOMETRY)
#: Words in topic names that mark goals or commands, not measured poses.
_GOAL_WORDS = ('goal', 'initialpose', 'initial_pose', 'setpoint', 'target', 'waypoint')
_COMPRESSED_SUFFIX = '/compressed'


@dataclass(frozen=True)
class RawMessage:
    """An undecoded message.

    Attributes:
        topic: its topic.
        type: such as ``sensor_msgs/msg/Image``.
        stamp_ns: when it was recorded, nanoseconds.
        data: its CDR bytes; those of a ROS 1 bag are converted.
    """

    topic: str
    type: str
    stamp_ns: int
    data: bytes


@dataclass(frozen=True)
class ImageFrame:
    """One image of a bag; its pixels are decoded when they are first asked for.

    Attributes:
        stamp_ns: the header's, nanoseconds.
        frame_id: the header's.
        message: the deserialised Image or CompressedImage.
        raw_range: range of the raw values of ``16UC1``.
    """

    stamp_ns: int
    frame_id: str
    message: Any = field(repr=False)
    raw_range: RawValueRange = RawValueRange()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, by the message; nothing is decoded.

        Raises:
            ImageError: if a compressed image is damaged.
        """
        m = self.message
        return check_compressed(m.format, m.data) if hasattr(m, 'format') else (m.width, m.height)

    @cached_property
    def image(self) -> np.ndarray:
        """(H, W) uint8 gray.

        Raises:
            ImageError: if the message cannot be decoded.
        """
        m = self.message
        if hasattr(m, 'format'):
            return decode_compressed(m.format, m.data, self.raw_range)
        return decode_gray(
            m.encoding, m.height, m.width, m.step, m.is_bigendian, m.data, self.raw_range
        )

    @cached_property
    def bgr(self) -> np.ndarray:
        """(H, W, 3) uint8 BGR; errors as :attr:`image`."""
        m = self.message
        if hasattr(m, 'format'):
            return decode_compressed_bgr(m.format, m.data, self.raw_range)
        return decode_bgr(
            m.encoding, m.height, m.width, m.step, m.is_bigendian, m.data, self.raw_range
        )


class BagReader:
    """Reads a bag, as a context manager.

    An unfinished recording (``NAME.unfinished``) is completed first; truncated files can be read as
    well: an mcap without its end, a folder without ``metadata.yaml``, a database with a journal
    beside it.

    Args:
        path: a rosbag2 folder, a single ``.mcap`` or ``.db3`` file, or a ROS 1 ``.bag``.

    Raises:
        DataError: on entering, if there is no bag or it cannot be read.
        MissingDependencyError: if ``rosbags`` is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._storage: Storage

    def __enter__(self) -> BagReader:
        self.path = finish_at(self.path)
        self._storage = Storage(self.path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._storage.close()

    @property
    def is_ros1(self) -> bool:
        """Return whether this is a ROS 1 bag; its messages are converted to CDR."""
        return self._storage.is_ros1

    @property
    def topics(self) -> dict[str, str]:
        """Return a dictionary from topic to message type, sorted by topic."""
        return {name: topic.type for name, topic in self._storage.topics.items()}

    @property
    def counts(self) -> dict[str, int]:
        """Return a dictionary from topic to number of messages, sorted by topic."""
        return {name: topic.count for name, topic in self._storage.topics.items()}

    @property
    def span_ns(self) -> tuple[int, int] | None:
        """Return the recording times of the first and the last message, ns; None if it is empty."""
        return self._storage.span_ns

    @property
    def duration_s(self) -> float:
        """Return the seconds from the first message to the last."""
        span = self._storage.span_ns
        return 0.0 if span is None else (span[1] - span[0]) * 1e-9

    def qos(self, topic: str) -> TopicQos | None:
        """Return the quality of service a topic was published with; None if it was not recorded.

        Raises:
            DataError: if the topic is not there.
        """
        return self._storage.topics[self._checked(topic)].qos

    def fields(self, type: str) -> dict[str, str] | None:
        """Return field name -> type of a message type in ROS 2's spelling, or None."""
        return self._storage.fields(type)

    def image_topics(self) -> list[str]:
        """Return the topics that carry camera images; depth is excluded.

        They are judged by the encoding of the first readable messages; nothing is decoded.
        """
        return [topic for topic, kind in self.topics.items() if self._holds_images(topic, kind)]

    def image_topic(self, requested: str | None = None) -> str:
        """Return the topic to read images from.

        Args:
            requested: the topic that the user named; None: the only one of :meth:`image_topics`
                (an uncompressed topic goes before its own compressed copy).

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
                + ('; name one' if candidates else self._advice())
            )
        return candidates[0]

    def camera_info_topic(self, image_topic: str, requested: str | None = None) -> str | None:
        """Return the camera_info topic that belongs to an image topic.

        Args:
            image_topic: topic of the images.
            requested: name of the camera_info topic, if the user gave one.

        Returns:
            The requested topic, else ``camera_info`` in the namespace of the images (the ROS
            convention), else the only topic of this type in the bag, unless it is another
            camera's by its namespace or ``frame_id``; None where the choice is not clear.

        Raises:
            DataError: if the requested topic is not in the bag or has another type.
        """
        if requested is not None:
            return self._checked(requested, (CAMERA_INFO,), 'camera_info')
        infos = [t for t, kind in self.topics.items() if kind == CAMERA_INFO]
        sibling = image_topic.removesuffix(_COMPRESSED_SUFFIX).rpartition('/')[0] + '/camera_info'
        if sibling in infos:
            return sibling
        if len(infos) != 1 or self._of_another_camera(infos[0], image_topic):
            return None
        return infos[0]

    def _of_another_camera(self, info_topic: str, image_topic: str) -> bool:
        """Tell whether a ``camera_info`` belongs to other images, depth included."""
        namespace = info_topic.rpartition('/')[0]
        for topic, kind in self.topics.items():
            beside = topic.removesuffix(_COMPRESSED_SUFFIX).rpartition('/')[0]
            if kind in IMAGE_TYPES and topic != image_topic and beside == namespace:
                return True
        if image_topic not in self.topics:
            return False
        frames = {self._frame_id(topic) for topic in (info_topic, image_topic)} - {''}
        return len(frames) == 2

    def _frame_id(self, topic: str) -> str:
        """Return the ``frame_id`` of a topic's first readable message, or an empty string."""
        with suppress(DataError):
            for message in self.messages(topic):
                return str(message.header.frame_id).lstrip('/')
        return ''

    def pose_topic(self, requested: str | None = None) -> str | None:
        """Return the topic of the ground truth, or None where the choice is not clear.

        The choice is the only topic called ground truth, else the only topic of a type that
        motion capture publishes. Odometry and poses with a covariance are estimates, and goals
        are not poses of the robot: these topics have to be requested.

        Args:
            requested: name of the topic, if the user gave one.

        Raises:
            DataError: if the requested topic is not in the bag or holds no poses.
        """
        if requested is not None:
            return self._checked(requested, POSE_TYPES, 'poses')
        kinds = {t: kind for t, kind in self.topics.items() if kind in POSE_TYPES}
        found = [t for t in kinds if is_called_ground_truth(t) and kinds[t] != ODOMETRY]
        if not found:
            found = [
                t for t, kind in kinds.items()
                if kind in _MEASURED_POSES and not any(word in t.lower() for word in _GOAL_WORDS)
            ]
        return found[0] if len(found) == 1 else None

    def pose_topics(self) -> list[str]:
        """Return all topics that hold poses of any type."""
        return [topic for topic, kind in self.topics.items() if kind in POSE_TYPES]

    def images(
        self, topic: str | None = None, raw_range: RawValueRange = RawValueRange()  # noqa: B008
    ) -> Iterator[ImageFrame]:
        """Read the images of a topic in the order they were recorded.

        Args:
            topic: as for :meth:`image_topic`.
            raw_range: range of the raw values of ``16UC1``.

        Raises:
            DataError: as :meth:`image_topic`, or if the bag is damaged.
        """
        for message in self.messages(self.image_topic(topic)):
            header = message.header
            yield ImageFrame(stamp_nanoseconds(header), header.frame_id, message, raw_range)

    def poses(self, topic: str) -> Trajectory:
        """Return the poses of a topic, sorted by stamp; of several with one stamp the first.

        Poses that are not finite, or whose quaternion is zero, are left out and counted, and so
        are those with the stamp of an earlier one and another value.

        Raises:
            DataError: if the topic is not there, holds no poses, or those of several bodies.
        """
        self._checked(topic, POSE_TYPES, 'poses')
        stamps, poses = [], []
        frame_id, body_frame = 'map', None
        for message in self.messages(topic):
            p, q = _position_and_orientation(message)
            pose = pose_of_quaternion((p.x, p.y, p.z), (q.x, q.y, q.z, q.w))
            stamps.append(stamp_nanoseconds(message.header))
            poses.append(pose)
            if pose is None:
                continue
            frame_id = message.header.frame_id
            body = getattr(message, 'child_frame_id', '').lstrip('/')
            if body_frame is not None and body != body_frame:
                raise DataError(
                    f"bag '{self.path}': topic '{topic}': expected the poses of one body, got "
                    f"those of '{body_frame}' and '{body}'"
                )
            body_frame = body
        return Trajectory.of_poses(stamps, poses, frame_id, body_frame or '')

    def messages(self, topic: str) -> Iterator[Any]:
        """Read the deserialised messages of a topic; errors as :meth:`typed`."""
        return (message for _, message in self.typed([topic]))

    def typed(self, topics: Sequence[str]) -> Iterator[tuple[str, Any]]:
        """Yield topic and deserialised message in the order of recording.

        Messages that do not fit their type are left out; a warning gives their number.

        Raises:
            DataError: if a topic is not there, nothing on it can be deserialised, or the bag is
                damaged before the first message.
        """
        good, bad, problem = 0, 0, ''
        for raw in self.raw(topics):
            try:
                message = self._storage.deserialize(raw.data, raw.type)
            except Exception as error:  # the library's errors are many and not one family
                bad, problem = bad + 1, problem or cannot_be_read(self.path, error)
                continue
            good += 1
            yield raw.topic, message
        if bad and not good:
            raise DataError(problem)
        if bad:
            _log.warning("%s (%d of %d messages left out)", problem, bad, good + bad)

    def raw(self, topics: Sequence[str] | None = None) -> Iterator[RawMessage]:
        """Yield undecoded messages in the order of recording.

        A damaged bag is read up to the damage, with a warning.

        Args:
            topics: names of the topics to read; None: all.

        Raises:
            DataError: if a topic is not there, or the bag is damaged before the first message.
        """
        for topic in topics or ():
            self._checked(topic)
        count = 0
        messages = self._storage.messages(topics)
        while True:
            try:
                topic, stamp, data = next(messages)
            except StopIteration:
                return
            except Exception as error:
                problem = cannot_be_read(self.path, error)
                if not count:
                    raise DataError(problem) from None
                _log.warning('%s; damaged after %d messages, the rest is left out', problem, count)
                return
            count += 1
            yield RawMessage(topic, self._storage.topics[topic].type, stamp, data)

    def _checked(self, topic: str, types: Sequence[str] = (), content: str = '') -> str:
        kind = self.topics.get(topic)
        if kind is None:
            raise DataError(f"bag '{self.path}': no topic '{topic}', it has {self._listing()}")
        if types and kind not in types:
            raise DataError(f"bag '{self.path}': topic '{topic}' holds {kind}, not {content}")
        return topic

    def _holds_images(self, topic: str, kind: str) -> bool:
        """Return whether the messages of a topic are images and no depth maps."""
        if kind not in IMAGE_TYPES:
            return False
        encoding = self._encoding(topic)
        if encoding in DEPTH_ENCODINGS:
            return False
        return encoding in ENCODINGS or (kind == COMPRESSED_IMAGE and encoding is not None)

    def _encoding(self, topic: str) -> str | None:
        """Return the encoding of a topic's first readable image, before compression.

        Returns:
            Compressed: the format's encoding, else the format. ``compressedDepth``: a depth
            encoding. Raw: the first known encoding among the first 10 messages, else that of the
            last of them. None if no message can be read.
        """
        encoding = None
        with suppress(DataError):
            for message in islice(self.messages(topic), _LOOKED_AT):
                if hasattr(message, 'format'):
                    if 'compresseddepth' in message.format.lower():
                        return DEPTH_ENCODINGS[0]
                    return parts_of_format(message.format)[0]
                encoding = message.encoding
                if encoding in ENCODINGS or encoding in DEPTH_ENCODINGS:
                    break
        return encoding

    def _advice(self) -> str:
        """Return advice for a bag in which no topic counts as a camera's, or an empty string."""
        for topic, kind in self.topics.items():
            encoding = self._encoding(topic) if kind in IMAGE_TYPES else None
            if encoding == '16UC1' and not topic.endswith('/compressedDepth'):
                return (
                    f"; '{topic}' holds 16UC1, which is depth or a thermal camera: name the topic "
                    'if it is a camera'
                )
            if encoding is not None:
                return f"; '{topic}' holds '{encoding}', expected one of {', '.join(ENCODINGS)}"
        return ''

    def _listing(self) -> str:
        return ', '.join(self.topics) or 'none'


def is_called_ground_truth(topic: str) -> bool:
    """Return whether a topic's name says that it holds the ground truth."""
    return 'groundtruth' in topic.lower().replace('_', '').replace('-', '')


def _position_and_orientation(message: Any) -> tuple[Any, Any]:
    if hasattr(message, 'transform'):
        return message.transform.translation, message.transform.rotation
    pose = message.pose
    pose = getattr(pose, 'pose', pose)  # with covariance
    return pose.position, pose.orientation

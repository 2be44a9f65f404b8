"""The ground truth that a bag holds: true poses of the camera, and depth maps."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet_ros.bags.messages import depth_of_message
from mdnet_ros.bags.reader import IMAGE_TYPES, BagReader, is_called_ground_truth
from mdnet_ros.bags.static_transforms import static_transform
from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.headers import stamp_nanoseconds
from mdnet_ros.data.poses import Pose, Trajectory
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.tracks.position import PositionTruth
from mdnet_ros.evaluation.tracks.statistics import EpipolarTruth, Truth

_log = logging.getLogger(__name__)
#: Depth maps of a topic that are looked at to find out what it holds: the first may be broken.
_LOOKED_AT = 10


class GroundTruthError(DataError):
    """Ground truth that was asked for and cannot be used."""


@dataclass(frozen=True)
class CameraPoses:
    """The true poses of a camera, if a bag has them.

    Attributes:
        poses: None: there are none that can be used.
        notes: what a user should know about them, one line each.
    """

    poses: Trajectory | None
    notes: tuple[str, ...] = ()


def camera_poses(
    bag: BagReader,
    image_topic: str,
    pose_topic: str | None = None,
    extrinsics: Pose | None = None,
) -> CameraPoses:
    """Read the true poses of a camera from a bag.

    Poses of another body, such as ``base_link``, become those of the camera by ``extrinsics``,
    else by the static transforms in the bag.

    Args:
        bag: open.
        image_topic: of the camera.
        pose_topic: of the true poses; None: as :meth:`BagReader.pose_topic` chooses.
        extrinsics: transform from the camera's frame to that of the body.

    Raises:
        GroundTruthError: if the named topic cannot be used.
    """
    try:
        topic = bag.pose_topic(pose_topic)
    except DataError as error:
        raise GroundTruthError(str(error)) from None
    if topic is None:
        others = ', '.join(bag.pose_topics())
        note = f'{others}: not taken for ground truth unless named by --pose-topic'
        return CameraPoses(None, (note,) if others else ())
    try:
        poses, notes = _of_camera(bag, topic, image_topic, extrinsics)
    except DataError as error:
        if pose_topic is not None:
            raise GroundTruthError(str(error)) from None
        return CameraPoses(None, (str(error),))
    if poses.left_out:
        notes += (f"'{topic}': {poses.left_out}",)
    return CameraPoses(poses, notes)


def _of_camera(
    bag: BagReader, topic: str, image_topic: str, extrinsics: Pose | None
) -> tuple[Trajectory, tuple[str, ...]]:
    """Read the poses of a topic as the camera's."""
    poses = bag.poses(topic)
    if not len(poses):
        raise DataError(f"ground truth '{topic}': expected finite poses, found none")
    if extrinsics is not None:
        return poses.seen_from(extrinsics), ()
    first = next(bag.messages(image_topic), None)
    camera = '' if first is None else first.header.frame_id.lstrip('/')
    if not poses.body_frame:
        if is_called_ground_truth(topic):
            return poses, ()
        return poses, (
            f"'{topic}': the poses name no body and are taken for the camera's; give "
            'its extrinsics by --extrinsics if they are not',
        )
    if poses.body_frame == camera:
        return poses, ()
    to_body = static_transform(bag, camera, poses.body_frame)
    if to_body is None:
        raise DataError(
            f"ground truth '{topic}': the poses are those of '{poses.body_frame}', the images of "
            f"'{camera}': expected static transforms between them in the bag, or --extrinsics"
        )
    return poses.seen_from(to_body), ()


def truth_of_bag(
    bag: BagReader, image_topic: str, camera: CameraModel | None, poses: Trajectory | None
) -> Truth | None:
    """Choose what correspondences are compared with: positions where depth is known, else lines.

    Args:
        bag: the open bag; depth maps are read from it.
        image_topic: topic of the camera's images.
        camera: its calibration; without it nothing can be compared.
        poses: its true poses; without them nothing can be compared.

    Returns:
        The truth, or None without calibration or poses.

    Raises:
        DataError: if the bag is damaged.
    """
    if camera is None or poses is None:
        return None
    depth_topics = [
        name
        for name, kind in bag.topics.items()
        if kind in IMAGE_TYPES and 'depth' in name and name != image_topic
    ]
    for name in depth_topics:
        first = next(_depth_maps(name, bag.messages(name)), None)
        if first is not None and first[1].shape == (camera.height, camera.width):
            return PositionTruth(camera, poses, _depth_maps(name, bag.messages(name)))
    return EpipolarTruth(camera, poses)


def _depth_maps(topic: str, messages: Iterable[Any]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield stamp (ns) and (H, W) depth of the messages of a topic.

    Messages that cannot be read are left out; the first problem is logged. Ends where none of the
    first few messages is a depth map.
    """
    found, problem = False, ''
    for number, message in enumerate(messages):
        try:
            depth = depth_of_message(message)
        except DataError as error:
            depth = None
            if not problem:
                problem = str(error)
                _log.warning("topic '%s': not compared with: %s", topic, problem)
        if depth is not None:
            found = True
            yield stamp_nanoseconds(message.header), depth
        elif not found and number + 1 >= _LOOKED_AT:
            return

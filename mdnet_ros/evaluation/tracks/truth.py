"""The ground truth that a bag holds: true poses of the camera, and depth maps."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from mdnet_ros.bags.messages import depth_of_message
from mdnet_ros.bags.reader import IMAGE_TYPES, BagReader, is_called_ground_truth
from mdnet_ros.bags.static_transforms import static_transform
from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.headers import stamp_nanoseconds
from mdnet_ros.data.poses import Pose, Trajectory
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.tracks.position import PositionTruth
from mdnet_ros.evaluation.tracks.statistics import EpipolarTruth, Truth

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
    if poses.skipped:
        notes += (f"'{topic}': {poses.skipped} poses are not finite and are left out",)
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
        bag: open; depth maps are read from it.
        image_topic: of the camera.
        camera: its calibration; without it nothing can be compared.
        poses: its true poses; without them nothing can be compared.

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
        maps = (depth_of_message(message) for message in islice(bag.messages(name), _LOOKED_AT))
        depth = next((found for found in maps if found is not None), None)
        if depth is not None and depth.shape == (camera.height, camera.width):
            pairs = ((stamp_nanoseconds(m.header), depth_of_message(m)) for m in bag.messages(name))
            return PositionTruth(camera, poses, ((s, d) for s, d in pairs if d is not None))
    return EpipolarTruth(camera, poses)

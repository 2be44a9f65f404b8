"""The ground truth that a bag holds."""

from __future__ import annotations

from mdnet_ros.bags.messages import depth_of_message
from mdnet_ros.bags.reader import IMAGE_TYPES, BagReader
from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.headers import stamp_nanoseconds
from mdnet_ros.evaluation.tracks.position import PositionTruth
from mdnet_ros.evaluation.tracks.statistics import EpipolarTruth, Truth


def truth_of_bag(
    bag: BagReader, image_topic: str, camera: CameraModel | None, pose_topic: str | None = None
) -> Truth | None:
    """What the bag itself knows of the truth: positions with depth, else epipolar lines.

    Args:
        bag: open.
        image_topic: of the camera.
        camera: its calibration; without it nothing is known.
        pose_topic: of the true poses; None: the bag's only one.

    Raises:
        DataError: if the named topic holds no poses.
    """
    topic = bag.pose_topic(pose_topic)
    if camera is None or topic is None:
        return None
    poses = bag.poses(topic)
    if not len(poses):
        return None
    depth_topics = [
        name
        for name, kind in bag.topics.items()
        if kind in IMAGE_TYPES and 'depth' in name and name != image_topic
    ]
    for name in depth_topics:
        first = next(bag.messages(name), None)
        depth = None if first is None else depth_of_message(first)
        if depth is not None and depth.shape == (camera.height, camera.width):
            pairs = ((stamp_nanoseconds(m.header), depth_of_message(m)) for m in bag.messages(name))
            return PositionTruth(camera, poses, ((s, d) for s, d in pairs if d is not None))
    return EpipolarTruth(camera, poses)

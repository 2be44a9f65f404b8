"""Static transforms in a bag: how a camera is mounted on a robot."""

from __future__ import annotations

from collections import defaultdict, deque

import numpy as np

from mdnet_ros.bags.reader import BagReader
from mdnet_ros.data.poses import Pose, pose_of_quaternion

TF_MESSAGE = 'tf2_msgs/msg/TFMessage'
#: ROS 1's other name for the same message.
_TF_TYPES = (TF_MESSAGE, 'tf/msg/tfMessage')
_STATIC = '/tf_static'
#: Transforms on ``/tf`` that differ by less than this over the whole bag are static ones, which
#: ROS 1's ``static_transform_publisher`` repeats there. Metres, and entries of the rotation.
_STILL = 1e-6


def static_transform(bag: BagReader, source: str, target: str) -> Pose | None:
    """Find the transform between two frames that are fixed to each other.

    Args:
        bag: open; transforms are read from ``/tf_static``, then from what never moves on ``/tf``.
        source: frame whose points are transformed.
        target: frame that they are transformed to.

    Returns:
        The motion with X_target = rotation · X_source + translation, or None if no chain of
        static transforms joins the frames.

    Raises:
        DataError: if the bag is damaged.
    """
    source, target = source.lstrip('/'), target.lstrip('/')
    if source == target:
        return Pose(np.eye(3), np.zeros(3))
    edges: dict[tuple[str, str], Pose | None] = {}
    topics = [topic for topic, kind in bag.topics.items() if kind in _TF_TYPES]
    for latched in (True, False):
        for topic in topics:
            if topic.endswith(_STATIC) == latched:
                _add_edges(bag, topic, edges)
        found = _along(edges, source, target)
        if found is not None:
            return found
    return None


def _add_edges(bag: BagReader, topic: str, edges: dict[tuple[str, str], Pose | None]) -> None:
    """Add the transforms of a topic; None for those that move."""
    latched = topic.endswith(_STATIC)
    for message in bag.messages(topic):
        for stamped in message.transforms:
            edge = (stamped.header.frame_id.lstrip('/'), stamped.child_frame_id.lstrip('/'))
            t, q = stamped.transform.translation, stamped.transform.rotation
            pose = pose_of_quaternion((t.x, t.y, t.z), (q.x, q.y, q.z, q.w))
            before = edges.get(edge, pose)
            if pose is None or latched or edge not in edges:
                edges[edge] = pose
            elif before is None or _moved(before, pose):
                edges[edge] = None


def _moved(a: Pose, b: Pose) -> bool:
    return bool(
        np.abs(a.translation - b.translation).max() > _STILL
        or np.abs(a.rotation - b.rotation).max() > _STILL
    )


def _along(edges: dict[tuple[str, str], Pose | None], source: str, target: str) -> Pose | None:
    """Multiply the transforms on the shortest way from one frame to another."""
    neighbours: dict[str, list[tuple[str, Pose]]] = defaultdict(list)
    for (parent, child), parent_from_child in edges.items():
        if parent_from_child is not None:
            neighbours[child].append((parent, parent_from_child))
            neighbours[parent].append((child, parent_from_child.inverse()))
    reached = {source: Pose(np.eye(3), np.zeros(3))}
    queue = deque([source])
    while queue:
        frame = queue.popleft()
        for other, other_from_frame in neighbours[frame]:
            if other not in reached:
                reached[other] = other_from_frame @ reached[frame]
                queue.append(other)
    return reached.get(target)

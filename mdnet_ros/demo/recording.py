"""Writes the demo scene to a bag."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mdnet_ros.bags.messages import BagTopics
from mdnet_ros.bags.writer import BagWriter, Storage
from mdnet_ros.demo.scene import Scene
from mdnet_ros.progress import Progress

IMAGE_TOPIC = '/camera/image_raw'
CAMERA_INFO_TOPIC = '/camera/camera_info'
DEPTH_TOPIC = '/camera/depth/image_raw/compressedDepth'
POSE_TOPIC = '/ground_truth/pose'
FRAME_ID = 'camera'
MAP_FRAME_ID = 'map'


def write_scene(
    scene: Scene,
    path: str | Path,
    storage: Storage = 'sqlite3',
    depth: bool = True,
    overwrite: bool = True,
    progress: bool = False,
) -> None:
    """Render a scene into a bag: image (mono8), camera_info, true pose and depth of each frame.

    Args:
        scene: the scene.
        path: where the bag goes.
        storage: format of the bag.
        depth: write the depth images, too, most of the bag's size.
        overwrite: replace a bag of a scene that is there; otherwise that is an error.
        progress: show a progress bar.

    Raises:
        DataError: if the bag cannot be written.
    """
    outputs = (CAMERA_INFO_TOPIC, IMAGE_TOPIC, DEPTH_TOPIC, POSE_TOPIC)
    with BagWriter(path, storage, overwrite=overwrite, outputs=outputs) as bag:
        topics = BagTopics(bag)
        frames: Iterable = Progress(
            scene, 'rendering', scene.settings.frame_count, unit='frame', disable=not progress
        )
        for frame in frames:
            stamp = frame.stamp_ns
            topics.camera_info(CAMERA_INFO_TOPIC, stamp, FRAME_ID, scene.camera)
            topics.image(IMAGE_TOPIC, stamp, FRAME_ID, frame.image)
            if depth:
                topics.depth(DEPTH_TOPIC, stamp, FRAME_ID, frame.depth)
            topics.pose(POSE_TOPIC, stamp, MAP_FRAME_ID, frame.pose)

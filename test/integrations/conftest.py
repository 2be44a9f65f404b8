"""A camera that flies past points, tracked, as bags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from mdnet_ros.bags.messages import BagTopics
from mdnet_ros.bags.writer import BagWriter
from mdnet_ros.data.camera import CameraModel
from mdnet_ros.features.tracking import FrameTracker
from mdnet_ros.features.types import Features, TrackedFrame
from mdnet_ros.tracker.clouds import correspondence_table, keypoint_table

FRAMES, POINTS, DIM = 14, 160, 64
START, STEP = 1_700_000_000_000_000_000, 50_000_000
WIDTH, HEIGHT = 320, 240


@dataclass(frozen=True)
class Flight:
    """What was seen, and the bags it was written into."""

    camera: CameraModel
    frames: list[TrackedFrame]
    centres: np.ndarray  # (FRAMES, 3), where the camera was
    tracks: Path
    images: Path

    def stamp(self, index: int) -> int:
        return START + index * STEP


def camera_pose(index: int) -> tuple[np.ndarray, np.ndarray]:
    """(3,) rotation vector and (3,) translation from the map to the camera."""
    centre = np.array([0.25 * index, 0.1 * np.sin(index), 0.05 * index])
    turn = np.array([0.01 * index, -0.03 * index, 0.0])
    return turn, -cv2.Rodrigues(turn)[0] @ centre


def picture(index: int) -> np.ndarray:
    """(HEIGHT, WIDTH, 3), recognisable after JPEG."""
    image = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    image[:, : 10 * (index + 1)] = (200, 120, 60)
    return image


@pytest.fixture(scope='session')
def flight(tmp_path_factory: pytest.TempPathFactory) -> Flight:
    k = np.array([[260.0, 0, 158.3], [0, 262.0, 121.1], [0, 0, 1]])
    camera = CameraModel(
        WIDTH, HEIGHT, k, np.array([-0.25, 0.06, 1e-3, -5e-4, 0.0]), 'plumb_bob'
    )
    rng = np.random.default_rng(3)
    points = rng.uniform([-2, -2, 3], [6, 2, 8], (POINTS, 3))
    descriptors = rng.normal(size=(POINTS, DIM))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    tracker = FrameTracker(verification='none', min_similarity=0.9)
    folder = tmp_path_factory.mktemp('flight')
    frames, centres = [], []
    with (
        BagWriter(folder / 'tracks') as tracks, BagWriter(folder / 'images') as images
    ):
        to_tracks, to_images = BagTopics(tracks), BagTopics(images)
        for index in range(FRAMES):
            turn, translation = camera_pose(index)
            rotation = cv2.Rodrigues(turn)[0]
            centres.append(-rotation.T @ translation)
            pixels = cv2.projectPoints(points, turn, translation, k, camera.d)[0][:, 0]
            depth = (points @ rotation.T + translation)[:, 2]
            inside = (pixels > 5).all(1) & (pixels < [WIDTH - 6, HEIGHT - 6]).all(1) & (depth > 1)
            # Half of them in each set, in an order that changes.
            seen = rng.permutation(np.nonzero(inside)[0])
            seen = seen[np.argsort(seen % 2, kind='stable')]
            wrong = rng.random(len(seen)) < 0.04
            noise = rng.normal(scale=np.where(wrong, 20.0, 0.1)[:, None], size=(len(seen), 2))
            features = Features(
                (pixels[seen] + noise).clip(0, [WIDTH - 1, HEIGHT - 1]).astype(np.float32),
                rng.uniform(0.1, 1, len(seen)).astype(np.float32), (seen % 2).astype(np.int32),
                descriptors[seen].astype(np.float32), (WIDTH, HEIGHT), 2,
            )
            stamp = START + index * STEP
            frame = tracker.update(features, stamp)
            frame.correspondences.inlier[:] = ~wrong[frame.correspondences.indices]
            frames.append(frame)
            to_images.camera_info('/cam/camera_info', stamp, 'cam', camera)
            if index != 5:  # one image was lost
                to_images.image('/cam/image', stamp, 'cam', picture(index))
            to_tracks.cloud('/cam/keypoints', stamp, 'cam', keypoint_table(frame))
            to_tracks.cloud('/cam/correspondences', stamp, 'cam', correspondence_table(frame))
    return Flight(
        camera, frames, np.array(centres), folder / 'tracks', folder / 'images'
    )

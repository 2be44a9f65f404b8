"""Relative poses of tracked frames against true ones."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.poses import Pose, Trajectory
from mdnet_ros.evaluation.replay.relative_poses import RelativePoses
from mdnet_ros.features.types import Correspondences, Features, TrackedFrame

K = np.array([[400.0, 0, 320], [0, 400, 240], [0, 0, 1]])
#: The lens ends at a radius of 0.55, so that the corners of the image have no ray.
ENDED = CameraModel(640, 480, K, np.array([0, 0, 0, 0, -1 / (7 * 0.55**6)]))
POSES = [
    Pose(cv2.Rodrigues(i * np.array([0, 0.02, 0.01]))[0], i * np.array([0.2, 0.03, 0.1]))
    for i in range(4)
]


def frames(corners):
    """Tracked frames of random points; ``corners`` of them lie where the lens has no ray."""
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-1, 2, (200, 2)), rng.uniform(4, 8, 200)])
    lost = rng.uniform([0, 0], [30, 30], (corners, 2))
    none = np.zeros(0, np.int64)
    for index, pose in enumerate(POSES):
        pixels = ENDED.project((points - pose.translation) @ pose.rotation)
        seen = np.isfinite(pixels).all(axis=1)
        keypoints = np.concatenate([pixels[seen], lost + index]).astype(np.float32)
        ids = np.concatenate([np.nonzero(seen)[0], 1000 + np.arange(corners)])
        count = len(ids)
        yield TrackedFrame(
            Features(keypoints, np.ones(count, np.float32), np.zeros(count, np.int32),
                     np.zeros((count, 0), np.float32), (640, 480)),
            ids, np.zeros(count, np.int32),
            Correspondences(none, none, np.zeros((0, 2), np.float32), none,
                            np.zeros(0, np.float32), np.zeros(0, bool)),
            index * 10**8,
        )  # fmt: skip


def truth(first=0):
    return Trajectory(
        np.arange(first, first + len(POSES)) * 10**8,
        np.stack([pose.rotation for pose in POSES]), np.stack([pose.translation for pose in POSES]),
    )


@pytest.mark.parametrize('corners', [0, 50])
def test_keypoints_without_a_ray_do_no_harm(corners):
    relative = RelativePoses(ENDED, truth(), 1.0)
    for frame in frames(corners):
        assert np.isnan(ENDED.normalise(frame.features.keypoints)[:, 0]).sum() == corners
        relative.add(frame)
    near = relative.results()[0]
    assert (near.pairs, near.failed, near.accuracy) == (3, 0, 1.0)
    assert near.rotation < 0.05
    assert near.translation < 0.5


def test_without_true_poses_there_is_no_accuracy():
    relative = RelativePoses(ENDED, truth(first=100), 1.0)
    for frame in frames(0):
        relative.add(frame)
    assert {(r.pairs, r.failed, r.accuracy) for r in relative.results()} == {(0, 0, None)}

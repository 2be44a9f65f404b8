"""Correspondences against true positions."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.poses import Pose, Trajectory
from mdnet_ros.evaluation.tracks.position import PositionTruth, depth_at, reproject
from mdnet_ros.features.types import Correspondences, Features, TrackedFrame

K = np.array([[300.0, 0, 160], [0, 310, 120], [0, 0, 1]])
CAMERAS = [
    CameraModel(320, 240, K, np.zeros(0)),
    CameraModel(320, 240, K, np.array([-0.2, 0.05, 0.001, -0.002, 0.0])),
    CameraModel(320, 240, K, np.array([0.05, -0.01, 0.002, 0.0]), 'equidistant'),
]


def wall(camera):
    """Depth of the plane z = 4 + 0.5 x - 0.3 y in each pixel."""
    x, y = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    rays = camera.normalise(np.stack([x.ravel(), y.ravel()], axis=1))
    depth = 4.0 / (1 - 0.5 * rays[:, 0] + 0.3 * rays[:, 1])
    return depth.reshape(camera.height, camera.width).astype(np.float32)


def test_depth_between_pixels_is_exact_on_planes():
    camera = CAMERAS[0]
    points = np.random.default_rng(0).uniform(0, [319, 239], (200, 2))
    rays = camera.normalise(points)
    exact = 4.0 / (1 - 0.5 * rays[:, 0] + 0.3 * rays[:, 1])
    np.testing.assert_allclose(depth_at(wall(camera), points), exact, rtol=1e-6)


def test_depth_at_an_edge_is_that_of_the_nearest_pixel():
    depth = np.full((4, 6), 2.0, np.float32)
    depth[:, 3:] = 5.0
    points = np.array([[2.4, 1.0], [2.6, 1.0], [-0.4, -0.4], [5.4, 3.4], [5.6, 1.0], [1.0, -2.0]])
    got = depth_at(depth, points)
    np.testing.assert_array_equal(got, [2.0, 5.0, 2.0, 5.0, np.nan, np.nan])


def test_unknown_depth_stays_unknown():
    depth = np.array([[0.0, 0.0, np.nan], [0.0, 0.0, np.nan]], np.float32)
    assert np.isnan(depth_at(depth, np.array([[0.5, 0.5], [2.0, 1.0]]))).all()


@pytest.mark.parametrize('camera', CAMERAS)
def test_points_are_carried_over(camera):
    motion = Pose(cv2.Rodrigues(np.array([0.02, -0.05, 0.3]))[0], np.array([0.2, -0.1, 0.3]))
    world = np.random.default_rng(1).uniform([-1, -0.8, 3], [1, 0.8, 5], (60, 3))

    def project(points):
        if camera.distortion_model == 'equidistant':
            rays = np.zeros(3), np.zeros(3)
            return cv2.fisheye.projectPoints(points[:, None], *rays, K, camera.d)[0][:, 0]
        return cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, camera.d)[0][:, 0]

    moved = reproject(camera, motion, project(world), world[:, 2])
    expected = project(world @ motion.rotation.T + motion.translation)
    np.testing.assert_allclose(moved, expected, atol=2e-3)


def test_points_behind_the_camera_are_unknown():
    back = Pose(np.eye(3), np.array([0.0, 0, -3]))
    got = reproject(CAMERAS[0], back, np.array([[160.0, 120], [160, 120]]), np.array([2.0, 4.0]))
    assert np.isnan(got[0]).all()
    np.testing.assert_allclose(got[1], [160, 120])
    assert reproject(CAMERAS[0], back, np.zeros((0, 2)), np.zeros(0)).shape == (0, 2)


@pytest.mark.parametrize('skipped', [0, 40])
def test_errors_of_a_tracked_sequence(skipped):
    """The error put into a correspondence comes out, however many frames were dropped."""
    camera = CAMERAS[0]
    count = 3 + skipped
    places = np.zeros((count, 3))
    places[:, 0] = np.arange(count) * 0.1 / (1 + skipped)
    poses = Trajectory(np.arange(count), np.stack([np.eye(3)] * count), places)
    flat = np.full((240, 320), 2.0, np.float32)
    truth = PositionTruth(camera, poses, ((i, flat) for i in range(count)))
    before = np.array([[200.0, 100.0], [150.0, 60.0]])

    def frame(stamp, stamp_prev, points):
        m = 0 if stamp_prev is None else 2
        links = Correspondences(
            np.arange(m), np.arange(m), before[:m].astype(np.float32),
            np.full(m, -1 if stamp_prev is None else stamp_prev, np.int64),
            np.ones(m, np.float32), np.ones(m, bool),
        )
        features = Features(
            points.astype(np.float32), np.ones(2, np.float32), np.zeros(2, np.int32),
            np.ones((2, 4), np.float32), (320, 240),
        )
        return TrackedFrame(features, np.arange(2), np.zeros(2, np.int32), links, stamp)

    last = 1 + skipped
    assert len(truth.errors(frame(0, None, before))) == 0
    shift = np.array([-300 * 0.1 * last / (1 + skipped) / 2.0, 0.0])
    errors = truth.errors(frame(last, 0, before + shift + np.array([[0, 0], [3.0, 4.0]])))
    np.testing.assert_allclose(errors, [0.0, 5.0], atol=1e-3)
    assert np.isnan(truth.errors(frame(last + 1, 10**6, before))).all()  # an unknown frame

"""Pose errors, mAA and robust estimation against hand-made cases and OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mdnet_ros.data.poses import Pose
from mdnet_ros.evaluation import pose
from mdnet_ros.evaluation.essential import sampson_distances
from mdnet_ros.evaluation.pose import (
    WORST_ERROR,
    direction_error_deg,
    estimate_relative_pose,
    mean_average_accuracy,
    pose_errors,
    rotation_error_deg,
)

K_A = np.array([[500.0, 0, 320], [0, 505, 240], [0, 0, 1]])
K_B = np.array([[650.0, 0, 300], [0, 640, 260], [0, 0, 1]])


def turn(axis, degrees):
    axis = np.asarray(axis, np.float64)
    return cv2.Rodrigues(axis / np.linalg.norm(axis) * np.radians(degrees))[0]


MOTION = Pose(turn([0.2, 1.0, -0.1], 12.0), np.array([-0.8, 0.1, 0.3]))


def two_views(count=300, noise=0.0, outliers=0.0, seed=0):
    """Pixels of random points in both cameras, and which are not outliers."""
    rng = np.random.default_rng(seed)
    points = np.column_stack([rng.uniform(-2, 2, (count, 2)), rng.uniform(3, 8, count)])
    a = points @ K_A.T
    b = (points @ MOTION.rotation.T + MOTION.translation) @ K_B.T
    a, b = a[:, :2] / a[:, 2:], b[:, :2] / b[:, 2:]
    wrong = rng.random(count) < outliers
    b[wrong] = rng.uniform(0, 480, (int(wrong.sum()), 2))
    return a + rng.normal(0, noise, a.shape), b + rng.normal(0, noise, b.shape), ~wrong


@pytest.mark.parametrize('degrees', [0.0, 1e-4, 3.0, 90.0, 179.9, 180.0])
def test_rotation_error_is_the_angle_between(degrees):
    truth = turn([1, 2, 3], 40.0)
    found = rotation_error_deg(truth, truth @ turn([-1, 0.5, 2], degrees))
    assert found == pytest.approx(degrees, abs=1e-6)


@pytest.mark.parametrize('seed', range(5))
def test_rotation_error_against_rodrigues(seed):
    rng = np.random.default_rng(seed)
    a, b = (turn(rng.normal(size=3), rng.uniform(0, 180)) for _ in range(2))
    expected = np.degrees(np.linalg.norm(cv2.Rodrigues(a.T @ b)[0]))
    assert rotation_error_deg(a, b) == pytest.approx(expected, abs=1e-6)


def test_direction_errors_by_hand():
    x, y = np.array([2.0, 0, 0]), np.array([0.0, 0.5, 0])
    assert direction_error_deg(x, y) == pytest.approx(90.0)
    assert direction_error_deg(x, x + [0, 2, 0]) == pytest.approx(45.0)
    assert direction_error_deg(x, -x) == 0.0
    assert direction_error_deg(x, -x, signed=True) == pytest.approx(180.0)
    assert direction_error_deg(x, [-1, 1, 0]) == pytest.approx(45.0)
    assert direction_error_deg(x, [-1, 1, 0], signed=True) == pytest.approx(135.0)
    # No direction to miss, and no direction found.
    assert direction_error_deg(np.zeros(3), y) == 0.0
    assert direction_error_deg(x, np.zeros(3)) == 90.0


def test_a_missing_pose_is_the_worst():
    assert pose_errors(MOTION, None) == (WORST_ERROR, WORST_ERROR)
    assert pose_errors(MOTION, MOTION) == pytest.approx((0.0, 0.0), abs=1e-6)


def test_mean_average_accuracy_by_hand():
    # Below 1…10 degrees: 0.5 is below all ten, 3.2 below seven, 10.5 and 180 below none.
    assert mean_average_accuracy(np.array([0.5, 3.2, 10.5, 180.0])) == pytest.approx(1.7 / 4)
    assert mean_average_accuracy(np.array([0.0])) == 1.0
    assert mean_average_accuracy(np.array([1.0])) == pytest.approx(0.9)  # not below 1
    assert mean_average_accuracy(np.array([np.inf, np.inf])) == 0.0
    assert mean_average_accuracy(np.zeros(0)) == 0.0


def test_mean_average_accuracy_is_the_benchmarks_histogram():
    errors = np.random.default_rng(0).uniform(0, 15, 500)
    counts, _ = np.histogram(errors, np.arange(11))
    expected = np.cumsum(counts / len(errors)).mean()
    assert mean_average_accuracy(errors) == pytest.approx(expected)


@pytest.mark.parametrize('solver', ['poselib', 'OpenCV USAC'])
def test_relative_pose_is_found_among_outliers(solver, monkeypatch):
    if solver == 'OpenCV USAC':
        monkeypatch.setattr(pose, 'poselib', None)
    else:
        pytest.importorskip('poselib')
    assert pose.solver_name() == solver
    a, b, right = two_views(noise=0.3, outliers=0.3)
    found = estimate_relative_pose(a, b, K_A, K_B, 1.5)
    assert max(pose_errors(MOTION, found.b_from_a, signed=True)) < 1.0
    assert np.linalg.norm(found.b_from_a.translation) == pytest.approx(1.0)
    assert found.inliers[right].mean() > 0.85
    assert found.inliers[~right].mean() < 0.1


def test_the_seed_decides():
    a, b, _ = two_views(noise=0.5, outliers=0.5)
    first, again = (estimate_relative_pose(a, b, K_A, K_B, 1.0, seed=7) for _ in range(2))
    np.testing.assert_array_equal(first.b_from_a.rotation, again.b_from_a.rotation)
    np.testing.assert_array_equal(first.inliers, again.inliers)


@pytest.mark.parametrize('count', [0, 1, 5])
def test_too_few_matches_give_no_pose(count):
    a, b, _ = two_views(count=10)
    assert estimate_relative_pose(a[:count], b[:count], K_A, K_B, 1.0) is None


@pytest.mark.parametrize('solver', ['poselib', 'OpenCV USAC'])
def test_degenerate_matches_do_not_crash(solver, monkeypatch):
    if solver == 'OpenCV USAC':
        monkeypatch.setattr(pose, 'poselib', None)
    same = np.full((30, 2), 100.0)
    found = estimate_relative_pose(same, same, K_A, K_A, 1.0)
    errors = pose_errors(MOTION, found.b_from_a if found else None)
    assert np.isfinite(errors).all()


@pytest.mark.parametrize(
    ('count', 'noise', 'outliers'), [(300, 0.3, 0.3), (200, 0.8, 0.5), (60, 0.5, 0.6)]
)
def test_opencv_gives_what_poselib_gives(count, noise, outliers, monkeypatch):
    pytest.importorskip('poselib')
    accuracies, shares = {}, {}
    for solver in ('poselib', 'OpenCV USAC'):
        errors, agree = [], []
        for seed in range(12):
            a, b, right = two_views(count, noise, outliers, seed)
            found = estimate_relative_pose(a, b, K_A, K_B, 1.5, seed)
            errors.append(max(pose_errors(MOTION, found.b_from_a, signed=True)))
            agree.append(found.inliers[right].mean())
        accuracies[solver] = mean_average_accuracy(np.array(errors))
        shares[solver] = np.mean(agree)
        monkeypatch.setattr(pose, 'poselib', None)
    assert accuracies['OpenCV USAC'] == pytest.approx(accuracies['poselib'], abs=0.05)
    assert shares['OpenCV USAC'] == pytest.approx(shares['poselib'], abs=0.02)


def test_sampson_distances_are_those_of_opencv():
    a, b, _ = two_views(count=20, noise=3.0)
    rays = [cv2.undistortPoints(p[:, None], k, None)[:, 0] for p, k in ((a, K_A), (b, K_B))]
    x, y, z = MOTION.translation
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ MOTION.rotation
    homogeneous = [np.column_stack([p, np.ones(len(p))]) for p in rays]
    expected = [cv2.sampsonDistance(p, q, essential) for p, q in zip(*homogeneous, strict=True)]
    got = sampson_distances(MOTION, *homogeneous)
    np.testing.assert_allclose(got**2, expected, rtol=1e-9)

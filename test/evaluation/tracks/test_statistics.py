"""The metrics of a tracked sequence against hand-made ones."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.poses import Trajectory
from mdnet_ros.evaluation.tracks.statistics import (
    EpipolarTruth,
    SequenceStatistics,
    epipolar_distance,
)
from mdnet_ros.features.types import Correspondences, Features, TrackedFrame

K = np.array([[300.0, 0, 160], [0, 310, 120], [0, 0, 1]])
CAMERA = CameraModel(320, 240, K, np.zeros(0))
BENT = CameraModel(320, 240, K, np.array([-0.2, 0.05, 0.001, -0.002, 0.0]))


def tracked(ages, stamp_ns=0, points=None, points_prev=None, stamp_prev=0, inlier=None):
    """A frame; the keypoints older than 0 come first and have correspondences."""
    ages = np.array(ages, np.int32)
    n, m = len(ages), int((ages > 0).sum())
    points = np.zeros((n, 2), np.float32) if points is None else points.astype(np.float32)
    links = Correspondences(
        np.arange(m), np.arange(m),
        np.zeros((m, 2), np.float32) if points_prev is None else points_prev.astype(np.float32),
        np.full(m, stamp_prev, np.int64), np.ones(m, np.float32),
        np.ones(m, bool) if inlier is None else np.array(inlier, bool),
    )  # fmt: skip
    features = Features(
        points, np.ones(n, np.float32), np.zeros(n, np.int32), np.ones((n, 4), np.float32),
        (320, 240),
    )
    return TrackedFrame(features, np.arange(n), ages, links, stamp_ns)


def test_counts_and_track_lengths():
    statistics = SequenceStatistics()
    # One track of four frames, one of two, three keypoints never seen again.
    statistics.add(tracked([0, 0]))
    statistics.add(tracked([1, 0], inlier=[True]))
    statistics.add(tracked([2, 1, 0], inlier=[True, False]))
    statistics.add(tracked([3], inlier=[True]))
    summary = statistics.summary()
    assert summary.frames == 4
    assert summary.keypoints_per_frame == 2.0
    assert summary.matches_per_frame == pytest.approx(4 / 3)
    assert summary.inlier_ratio == 0.75
    assert (summary.track_length.mean, summary.track_length.median) == (3.0, 2.0)
    assert summary.track_length.p90 == 4.0
    assert summary.precision is None


def test_precision_of_all_matches_and_of_inliers():
    class ByHand:
        kind = 'position'

        def errors(self, frame):
            return np.array([0.5, 1.5, np.nan, 9.0])[: len(frame.correspondences)]

    statistics = SequenceStatistics(ByHand())
    statistics.add(tracked([0, 0]))
    precision = statistics.summary().precision
    assert precision.within == precision.inliers_within == {1: None, 2: None, 3: None}
    statistics.add(tracked([1, 1, 1, 1], inlier=[True, True, True, False]))
    precision = statistics.summary().precision
    assert precision.matches == 3
    assert precision.within == {1: pytest.approx(1 / 3), 2: pytest.approx(2 / 3), 3: 2 / 3}
    assert precision.inliers_within == {1: 0.5, 2: 1.0, 3: 1.0}


@pytest.mark.parametrize('seed', range(3))
def test_track_lengths_against_counting_ids(seed):
    rng = np.random.default_rng(seed)
    alive: dict[int, int] = {}
    lengths: dict[int, int] = {}
    statistics = SequenceStatistics()
    for _ in range(40):
        alive = {i: a + 1 for i, a in alive.items() if rng.random() < 0.8}
        alive |= {len(lengths) + j: 0 for j in range(rng.integers(0, 6))}
        for i, age in alive.items():
            lengths[i] = age + 1
        statistics.add(tracked(sorted(alive.values(), reverse=True)))
    real = np.array([length for length in lengths.values() if length > 1])
    got = statistics.summary().track_length
    assert got.mean == pytest.approx(real.mean())
    for value, share in ((got.median, 0.5), (got.p90, 0.9)):
        assert value == np.quantile(real, share, method='inverted_cdf')


def test_nothing_seen_is_zero_and_nothing_compared_is_no_score():
    for frames in ([], [tracked([])], [tracked([]), tracked([])]):
        statistics = SequenceStatistics(EpipolarTruth(CAMERA, straight(2)))
        for frame in frames:
            statistics.add(frame)
        summary = statistics.summary()
        assert summary.matches_per_frame == summary.inlier_ratio == summary.track_length.mean == 0
        assert summary.precision.within == {1: None, 2: None, 3: None}
        json.dumps(summary.to_json(), allow_nan=False)


def straight(count, step=(0.3, 0.0, 0.1)):
    """A camera that moves along a line and turns, a pose a second."""
    times = np.arange(count)
    rotations = np.stack([cv2.Rodrigues(np.array([0.02, 0.05, 0.1]) * t)[0] for t in times])
    return Trajectory(times * 10**8, rotations, times[:, None] * np.array(step))


def project(camera, pose, world):
    inverse = pose.inverse()
    return cv2.projectPoints(
        world, cv2.Rodrigues(inverse.rotation)[0], inverse.translation, camera.k,
        camera.d if camera.d.size else None,
    )[0].reshape(-1, 2)  # fmt: skip


@pytest.mark.parametrize('camera', [CAMERA, BENT])
def test_true_correspondences_lie_on_their_epipolar_lines(camera):
    world = np.random.default_rng(0).uniform([-1, -1, 3], [1, 1, 6], (50, 3))
    poses = straight(3)
    seen = [project(camera, poses[i], world) for i in range(3)]
    truth = EpipolarTruth(camera, poses)
    frame = tracked([1] * 50, 2 * 10**8, seen[2], seen[0], stamp_prev=0)
    assert truth.errors(frame).max() < 1e-3
    frame = tracked([1] * 50, 2 * 10**8, seen[2], seen[1], stamp_prev=0)  # wrong frame
    assert np.median(truth.errors(frame)) > 1


def test_distance_to_the_epipolar_line_is_in_pixels():
    """Motion along x alone: lines are rows, the distance is the difference in y."""
    a = np.array([[10.0, 20.0], [200.0, 100.0]])
    b = np.array([[90.0, 22.5], [-50.0, 100.0]])
    got = epipolar_distance(CAMERA, np.eye(3), np.array([-0.2, 0, 0]), a, b)
    np.testing.assert_allclose(got, [2.5, 0.0], atol=1e-9)


def test_precision_counts_only_what_can_be_checked():
    poses = straight(2, step=(0.2, 0.0, 0.0))
    poses = Trajectory(poses.stamps_ns, np.stack([np.eye(3)] * 2), poses.translations)
    a = np.full((5, 2), 50.0)
    b = a + np.array([[0, 0.5], [0, -0.5], [0, 1.5], [0, 2.5], [0, 9]])
    statistics = SequenceStatistics(EpipolarTruth(CAMERA, poses))
    statistics.add(tracked([0] * 5, 0))
    statistics.add(tracked([1] * 5, 10**8, b, a, stamp_prev=0))
    statistics.add(tracked([2] * 5, 9 * 10**8, b, a, stamp_prev=0))  # no pose for this one
    precision = statistics.summary().precision
    assert precision.within == {1: 0.4, 2: 0.6, 3: 0.8}
    assert precision.matches == 5
    assert precision.kind == 'epipolar'


def test_a_camera_that_stands_still_has_no_epipolar_lines():
    still = Trajectory(np.array([0, 1]), np.stack([np.eye(3)] * 2), np.zeros((2, 3)))
    errors = EpipolarTruth(CAMERA, still).errors(tracked([1], 1, stamp_prev=0))
    assert np.isnan(errors).all()

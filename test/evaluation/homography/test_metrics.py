"""Metrics against cases done by hand and against independent implementations."""

from __future__ import annotations

import cv2
import kornia.geometry.linalg as kornia_linalg
import numpy as np
import pytest
import torch

from mdnet_ros import Features, Matches, match_mutual_nearest
from mdnet_ros.evaluation.homography.metrics import (
    HOMOGRAPHY_THRESHOLDS,
    THRESHOLDS,
    accuracy,
    area_under_curve,
    corner_error,
    estimate_homography,
    evaluate_pair,
    inside,
    match_errors,
    nearest_distances,
    project,
    summarise,
)

TILTED = np.array([[1.1, 0.05, 4.0], [-0.04, 0.95, 7.0], [2e-4, -1e-4, 1.0]])


def features(points: list[tuple[float, float]], size: tuple[int, int] = (100, 80)) -> Features:
    """Features with one-hot descriptors, so that row i matches row i."""
    count = len(points)
    return Features(
        np.array(points, np.float32).reshape(-1, 2),
        np.linspace(1, 0.5, count, dtype=np.float32),
        np.zeros(count, np.int32),
        np.eye(max(count, 1), 64, dtype=np.float32)[:count],
        size,
    )


def matched(a: Features, b: Features, pairs: list[tuple[int, int]]) -> Matches:
    return Matches(np.array(pairs, np.int64).reshape(-1, 2), np.ones(len(pairs), np.float32))


def test_project_agrees_with_opencv_and_kornia() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (50, 2))
    mapped = project(TILTED, points)
    np.testing.assert_allclose(mapped, cv2.perspectiveTransform(points[None], TILTED)[0])
    by_kornia = kornia_linalg.transform_points(
        torch.tensor(TILTED)[None], torch.tensor(points)[None]
    )[0]
    np.testing.assert_allclose(mapped, by_kornia.numpy())


def test_points_behind_the_camera_are_nowhere() -> None:
    homography = np.array([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1.0]])  # horizon at x = 100
    mapped = project(homography, np.array([[50.0, 0.0], [100.0, 0.0], [150.0, 0.0]]))
    np.testing.assert_allclose(mapped[0], [100, 0])
    assert np.isinf(mapped[1:]).all()
    assert inside(mapped, (1000, 1000)).tolist() == [True, False, False]


def test_inside_counts_whole_pixels() -> None:
    points = np.array([[-0.5, 0], [-0.51, 0], [9.49, 0], [9.5, 0], [0, 4.49], [0, 4.5]])
    assert inside(points, (10, 5)).tolist() == [True, False, True, False, True, False]


def test_a_pair_by_hand() -> None:
    # b is a shifted by 20 px to the right: columns 0 … 79 of a are seen in b as 20 … 99.
    shift = np.array([[1, 0, 20.0], [0, 1, 0], [0, 0, 1]])
    a = features([(10, 10), (20, 20), (30, 30), (40, 40), (90, 10)])  # the last is out of b
    b = features([(30, 10), (42, 20), (50, 34), (5, 40), (60, 60)])  # the fourth is out of a
    result = evaluate_pair(a, b, matched(a, b, [(0, 0), (1, 1), (2, 2), (3, 3)]), shift)
    assert result.keypoints == (5, 5)
    assert result.shared == (4, 4)
    assert result.matches == 4
    # errors 0, 2, 4 and 55 px
    assert result.correct == (1, 2, 2, 3, 3, 3, 3, 3, 3, 3)
    assert result.mma(1) == 1 / 4
    assert result.mma(3) == 2 / 4
    assert result.mma(4) == 3 / 4
    assert result.matching_score(4) == 3 / 4
    # of a: 0 px, 2 px, 4 px and 20·√2 from (60, 60) for (40, 40) shown at (60, 40): 20 px;
    # of b: the same three, and (60, 60) is 20 px from it.
    assert result.repeated == (2, 4, 4, 6, 6, 6, 6, 6, 6, 6)
    assert result.repeatability(2) == 4 / 8


def test_matching_score_counts_only_the_shared_area() -> None:
    shift = np.array([[1, 0, 20.0], [0, 1, 0], [0, 0, 1]])
    a = features([(10, 10), (79.6, 10)])  # the second is seen at 99.6: outside by a tenth
    b = features([(30, 10), (99, 10)])
    result = evaluate_pair(a, b, matched(a, b, [(0, 0), (1, 1)]), shift)
    assert result.correct[0] == 2
    assert result.shared == (1, 2)
    assert result.matching_score(1) == pytest.approx(1 / 1.5)


@pytest.mark.parametrize(
    ('a', 'b'),
    [
        (features([]), features([])),
        (features([(5, 5)]), features([])),
        (features([]), features([(5, 5)])),
    ],
)
def test_nothing_counts_as_zero(a: Features, b: Features) -> None:
    result = evaluate_pair(a, b, match_mutual_nearest(a, b), np.eye(3))
    assert result.matches == 0
    summary = summarise([result])
    for values in (summary.mma, summary.ms, summary.repeatability):
        assert values == dict.fromkeys(THRESHOLDS, 0.0)
    for values in (summary.homography_accuracy, summary.homography_auc):
        assert values == dict.fromkeys(HOMOGRAPHY_THRESHOLDS, 0.0)


def test_images_without_overlap_count_as_zero() -> None:
    away = np.array([[1, 0, 500.0], [0, 1, 0], [0, 0, 1]])
    a = features([(10, 10), (20, 25), (30, 31), (44, 40), (51, 66)])
    result = evaluate_pair(a, a, match_mutual_nearest(a, a), away)
    assert result.matches == 5
    assert result.shared == (0, 0)
    summary = summarise([result])
    assert summary.mma[10] == summary.ms[10] == summary.repeatability[10] == 0.0
    assert summary.homography_auc[5] == 0.0


def test_no_pairs_at_all() -> None:
    summary = summarise([])
    assert summary.pairs == 0
    assert summary.mma[3] == summary.homography_auc[5] == summary.matches == 0.0


def test_matches_on_one_line_give_no_homography() -> None:
    line = np.stack([np.arange(10.0), np.arange(10.0)], axis=1)
    same = np.tile([[3.0, 4.0]], (8, 1))
    for points in (line, same, line[:3]):
        assert estimate_homography(points, points) is None
    assert corner_error(None, TILTED, (100, 80)) == float('inf')


def test_homography_is_found_and_always_the_same() -> None:
    rng = np.random.default_rng(1)
    points = rng.uniform(0, 200, (200, 2))
    mapped = project(TILTED, points)
    mapped[:80] = rng.uniform(0, 200, (80, 2))  # 40 % outliers
    first, second = (estimate_homography(points, mapped) for _ in range(2))
    assert first is not None
    np.testing.assert_array_equal(first, second)
    assert corner_error(first, TILTED, (200, 200)) < 0.1


def test_corner_error_by_hand() -> None:
    shift = np.array([[1, 0, 3.0], [0, 1, 4.0], [0, 0, 1]])
    assert corner_error(shift, np.eye(3), (100, 80)) == pytest.approx(5.0)
    double = np.diag([2.0, 2.0, 1.0])  # corners move by 0, 99, hypot(99, 79) and 79
    expected = (0 + 99 + np.hypot(99, 79) + 79) / 4
    assert corner_error(double, np.eye(3), (100, 80)) == pytest.approx(expected)


def test_area_under_curve_by_hand() -> None:
    assert area_under_curve([], 5) == 0.0
    assert area_under_curve([float('inf')], 5) == 0.0
    assert area_under_curve([0.0], 5) == pytest.approx(1.0)
    # One pair at 1 px: the line from (0, 0) to (1, 1), then flat to 5: (0.5 + 4) / 5.
    assert area_under_curve([1.0], 5) == pytest.approx(0.9)
    # Of two pairs one fails: recall rises to one half at 2 px and stays: (0.5 + 1.5) / 5.
    assert area_under_curve([2.0, float('inf')], 5) == pytest.approx(0.4)


def test_area_under_curve_against_numerical_integration() -> None:
    errors = np.random.default_rng(2).exponential(3.0, 40)
    for threshold in (1.0, 3.0, 5.0):
        kept = np.sort(errors)[np.sort(errors) < threshold]
        x = np.concatenate([[0.0], kept, [threshold]])
        y = np.concatenate([[0.0], np.arange(1, len(kept) + 1) / 40, [len(kept) / 40]])
        grid = np.linspace(0, threshold, 200_001)
        fine = np.interp(grid, x, y).mean()
        assert area_under_curve(errors, threshold) == pytest.approx(fine, abs=1e-4)


def test_accuracy() -> None:
    assert accuracy([], 3) == 0.0
    assert accuracy([1.0, 3.0, 3.1, float('inf')], 3) == 0.5


def test_nearest_distances_against_brute_force() -> None:
    rng = np.random.default_rng(3)
    points, others = rng.uniform(0, 50, (1100, 2)), rng.uniform(0, 50, (300, 2))
    brute = [min(np.hypot(*(p - o)) for o in others) for p in points[::50]]
    np.testing.assert_allclose(nearest_distances(points, others)[::50], brute)
    assert np.isinf(nearest_distances(points[:2], np.zeros((0, 2)))).all()


def test_a_random_pair_against_loops() -> None:
    rng = np.random.default_rng(4)
    size = (100, 80)
    a, b = (
        Features(
            rng.uniform(0, 80, (60, 2)).astype(np.float32),
            np.ones(60, np.float32),
            np.zeros(60, np.int32),
            np.linalg.qr(rng.normal(size=(64, 64)))[0][:60].astype(np.float32),
            size,
        )
        for _ in range(2)
    )
    matches = match_mutual_nearest(a, b)
    result = evaluate_pair(a, b, matches, TILTED)
    back = np.linalg.inv(TILTED)

    def at(h: np.ndarray, p: np.ndarray) -> np.ndarray:
        q = h @ np.array([p[0], p[1], 1.0])
        return q[:2] / q[2]

    def seen(p: np.ndarray) -> bool:
        return bool(-0.5 <= p[0] < 99.5 and -0.5 <= p[1] < 79.5)

    shared_a = [i for i in range(60) if seen(at(TILTED, a.keypoints[i]))]
    shared_b = [j for j in range(60) if seen(at(back, b.keypoints[j]))]
    assert result.shared == (len(shared_a), len(shared_b))
    for t in (1, 5, 10):
        errors = [
            np.hypot(*(at(TILTED, a.keypoints[i]) - b.keypoints[j])) for i, j in matches.indices
        ]
        assert result.correct[t - 1] == sum(e <= t for e in errors)
        repeated = sum(
            any(np.hypot(*(at(TILTED, a.keypoints[i]) - b.keypoints[j])) <= t for j in shared_b)
            for i in shared_a
        ) + sum(
            any(np.hypot(*(at(back, b.keypoints[j]) - a.keypoints[i])) <= t for i in shared_a)
            for j in shared_b
        )
        assert result.repeated[t - 1] == repeated


def test_matching_agrees_with_opencv() -> None:
    rng = np.random.default_rng(5)
    descriptors = rng.normal(size=(2, 200, 32)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=2, keepdims=True)
    a, b = (
        Features(np.zeros((200, 2), np.float32), np.ones(200, np.float32), np.zeros(200, np.int32),
                 d, (10, 10))
        for d in descriptors
    )
    ours = {tuple(row) for row in match_mutual_nearest(a, b).indices}
    matcher = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True)
    theirs = {(m.queryIdx, m.trainIdx) for m in matcher.match(*descriptors)}
    assert ours == theirs


def test_summary_weighs_pairs_alike() -> None:
    a = features([(10, 10), (20, 30), (40, 40), (60, 15)])
    good = evaluate_pair(a, a, match_mutual_nearest(a, a), np.eye(3))
    wrong = evaluate_pair(a, a, matched(a, a, [(0, 1)]), np.eye(3))
    summary = summarise([good, wrong])
    assert good.mma(1) == 1.0
    assert wrong.mma(10) == 0.0
    assert summary.mma[1] == 0.5
    assert summary.matches == 2.5


def test_errors_of_matches() -> None:
    errors = match_errors(np.array([[1.0, 1.0]]), np.array([[4.0, 5.0]]), np.eye(3))
    np.testing.assert_allclose(errors, [5.0])
    assert match_errors(np.zeros((0, 2)), np.zeros((0, 2)), np.eye(3)).shape == (0,)

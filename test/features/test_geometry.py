"""Robust geometry on points made by hand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mdnet_ros.features.geometry import VERIFICATIONS, inlier_mask

HOMOGRAPHY = np.array([[1.05, 0.08, 12.0], [-0.06, 0.98, -7.0], [8e-5, -5e-5, 1.0]])


def planar_pairs(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    a = rng.uniform([0, 0], [640, 480], (count, 2))
    b = cv2.perspectiveTransform(a[None], HOMOGRAPHY)[0]
    return a.astype(np.float32), b.astype(np.float32)


def scene_pairs(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Two views of points at different depths: not on one plane."""
    camera = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
    points = rng.uniform([-2, -1.5, 3], [2, 1.5, 9], (count, 3))
    views = []
    for rotation, translation in [((0, 0, 0), (0, 0, 0)), ((0.02, -0.05, 0.03), (0.4, 0.1, -0.2))]:
        view, _ = cv2.projectPoints(
            points, np.float64(rotation), np.float64(translation), camera, None
        )
        views.append(view[:, 0].astype(np.float32))
    return views[0], views[1]


@pytest.mark.parametrize('verification', ['homography', 'fundamental'])
@pytest.mark.parametrize('share', [0.0, 0.3])
def test_outliers_are_found(verification: str, share: float) -> None:
    rng = np.random.default_rng(0)
    pairs = planar_pairs if verification == 'homography' else scene_pairs
    a, b = pairs(rng, 200)
    wrong = np.arange(200) < share * 200
    # Off by 40 px or more along both axes: away from any epipolar line of this motion.
    size = (int(wrong.sum()), 2)
    b[wrong] += rng.choice([-1, 1], size) * rng.uniform(40, 120, size)
    mask = inlier_mask(a, b, verification, 1.0)  # type: ignore[arg-type]
    assert mask.dtype == bool
    assert mask.shape == (200,)
    assert mask[~wrong].mean() > 0.98
    if wrong.any():  # an outlier may land on its epipolar line by chance
        assert mask[wrong].mean() < (0.01 if verification == 'homography' else 0.2)


def test_noise_below_the_limit_passes_above_does_not() -> None:
    rng = np.random.default_rng(1)
    a, b = planar_pairs(rng, 300)
    b[:100, 0] += 5
    for limit, expected in [(2.0, False), (8.0, True)]:
        assert inlier_mask(a, b, 'homography', limit)[:100].all() == expected


@pytest.mark.parametrize('verification', VERIFICATIONS)
@pytest.mark.parametrize('count', [0, 1, 3, 7, 8, 9])
def test_few_points(verification: str, count: int) -> None:
    a, b = scene_pairs(np.random.default_rng(2), count) if count else (np.zeros((0, 2)),) * 2
    mask = inlier_mask(a, b, verification, 1.0)  # type: ignore[arg-type]
    assert mask.shape == (count,)
    minimum = {'none': 99, 'homography': 4, 'fundamental': 8}[verification]
    if count < minimum:
        assert mask.all()


@pytest.mark.parametrize('verification', ['homography', 'fundamental'])
def test_degenerate_points_do_not_crash(verification: str) -> None:
    same = np.full((20, 2), 5.0, np.float32)
    line = np.stack([np.arange(20.0), np.arange(20.0)], axis=1).astype(np.float32)
    for points in (same, line):
        mask = inlier_mask(points, points, verification, 1.0)  # type: ignore[arg-type]
        assert mask.shape == (20,)
        assert mask.dtype == bool


@pytest.mark.parametrize(
    ('seed', 'on_plane', 'step'),
    [(548, 0.0, 0.2), (878, 0.0, 0.2), (215, 0.5, 0.1), (749, 0.5, 0.1), (705, 0.3, 0.02)],
)
def test_good_matches_on_which_usac_fails(seed: int, on_plane: float, step: float) -> None:
    """A tracker that takes no model for no inliers would lose all its tracks at once."""
    rng = np.random.default_rng(seed)
    rays = np.column_stack([rng.uniform(-0.6, 0.6, (250, 2)), np.ones(250)])
    depth = np.where(rng.random(250) < on_plane, 6.0, rng.uniform(2, 6, 250))
    points = rays * depth[:, None]
    rotation, _ = cv2.Rodrigues(rng.normal(0, 0.05, 3))
    moved = points @ rotation.T + rng.normal(0, step, 3)
    a, b = (256 * p[:, :2] / p[:, 2:] + (160, 120) for p in (points, moved))
    b += rng.normal(0, 0.2, (250, 2))
    wrong = rng.random(250) < 0.02
    b[wrong] += rng.normal(0, 20, (wrong.sum(), 2))
    similarity = rng.uniform(0.6, 1, 250).astype(np.float32)
    mask = inlier_mask(a.astype(np.float32), b.astype(np.float32), 'fundamental', 2.0, similarity)
    assert mask[~wrong].mean() > 0.9


@pytest.mark.parametrize('verification', ['homography', 'fundamental'])
def test_where_usac_fails_plain_ransac_decides(
    verification: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = 'findHomography' if verification == 'homography' else 'findFundamentalMat'
    fit = getattr(cv2, name)

    def fail(a: np.ndarray, b: np.ndarray, how: object, *rest: object) -> object:
        if isinstance(how, cv2.UsacParams):
            raise cv2.error('assertion in usac/estimator.cpp')
        return fit(a, b, how, *rest)

    monkeypatch.setattr(cv2, name, fail)
    rng = np.random.default_rng(6)
    a, b = (planar_pairs if verification == 'homography' else scene_pairs)(rng, 200)
    b[:40] += 60
    mask = inlier_mask(a, b, verification, 1.0)  # type: ignore[arg-type]
    assert mask[40:].mean() > 0.95
    same = np.full((20, 2), 5.0, np.float32)
    if verification == 'fundamental':  # no model, and OpenCV's mask holds whatever was there
        assert not inlier_mask(same, same, 'fundamental', 1.0).any()


def test_same_result_twice() -> None:
    a, b = scene_pairs(np.random.default_rng(3), 150)
    b[:60] += np.random.default_rng(4).uniform(-50, 50, (60, 2)).astype(np.float32)
    first = inlier_mask(a, b, 'fundamental', 1.0)
    np.testing.assert_array_equal(first, inlier_mask(a, b, 'fundamental', 1.0))


@pytest.mark.parametrize('verification', ['homography', 'fundamental'])
def test_similarity_leads_to_the_few_right_ones(verification: str) -> None:
    rng = np.random.default_rng(5)
    pairs = planar_pairs if verification == 'homography' else scene_pairs
    a, b = pairs(rng, 400)
    wrong = rng.permutation(400) >= 80
    b[wrong] = rng.uniform([0, 0], [640, 480], (320, 2))
    similarity = np.where(wrong, 0.5, 0.8) + rng.normal(0, 0.1, 400)
    mask = inlier_mask(a, b, verification, 1.0, similarity)  # type: ignore[arg-type]
    assert mask[~wrong].mean() > 0.95
    assert mask[wrong].mean() < 0.1
    # In the order of the matches, whatever theirs.
    order = rng.permutation(400)
    again = inlier_mask(a[order], b[order], verification, 1.0, similarity[order])  # type: ignore[arg-type]
    assert (again == mask[order]).mean() > 0.99

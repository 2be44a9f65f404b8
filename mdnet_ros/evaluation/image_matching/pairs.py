"""Two-view metrics of the Image Matching Benchmark (Jin et al., IJCV 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdnet_ros.data.geometry import inside, nearest_distances
from mdnet_ros.data.poses import Pose
from mdnet_ros.evaluation.image_matching.scene import View
from mdnet_ros.evaluation.pose import estimate_relative_pose, pose_errors
from mdnet_ros.features.matching import match_mutual_nearest
from mdnet_ros.features.types import Features

#: Pixels within which a keypoint is repeated or a match correct.
DEPTH_THRESHOLD = 3.0


@dataclass(frozen=True)
class ViewFeatures:
    """Features of one image, with its camera and depth.

    Attributes:
        view: image with its camera.
        features: features extracted from it.
        depth: (H, W) along z, 0 where unknown; None without a depth map.
    """

    view: View
    features: Features
    depth: np.ndarray | None = None


@dataclass(frozen=True)
class StereoResult:
    """Metrics of one image pair; robust poses are estimated once for each of S seeds.

    Attributes:
        names: names of the two images.
        matches: proposed matches.
        inliers: inliers of the robust pose, mean over the seeds.
        rotation_errors: S rotation errors, degrees.
        translation_errors: S angles between the directions of translation, sign ignored, degrees.
        repeatability: share of keypoints with one of the other image within 3 px of where the
            depth map sends them, mean of both directions; None without depth maps.
        matching_score: share of the inliers that the depth map confirms within 3 px, mean over
            the seeds; None without depth maps.
    """

    names: tuple[str, str]
    matches: int
    inliers: float
    rotation_errors: tuple[float, ...]
    translation_errors: tuple[float, ...]
    repeatability: float | None = None
    matching_score: float | None = None

    @property
    def errors(self) -> tuple[float, ...]:
        """The larger of the two errors for each seed, degrees."""
        both = zip(self.rotation_errors, self.translation_errors, strict=True)
        return tuple(max(errors) for errors in both)

    @property
    def error(self) -> float:
        """The mean of :attr:`errors`, degrees."""
        return float(np.mean(self.errors))


def match_with_ratio(a: Features, b: Features, ratio: float) -> np.ndarray:
    """Match by mutual nearest neighbours inside each set, with a ratio test in both directions.

    The ratio (Lowe, IJCV 2004) is that of the Euclidean distances between unit descriptors to
    the nearest and to the second nearest neighbour of the same set. Matches between the same two
    positions count once, as in the benchmark: SIFT describes some keypoints in two orientations.

    Args:
        a: features of one image.
        b: features of the other.
        ratio: matches with a larger ratio in one of the directions are dropped; 1: none is.

    Returns:
        (M, 2) int64 rows in ``a`` and ``b``.
    """
    matches = match_mutual_nearest(a, b)
    if ratio >= 1.0 or not len(matches):
        return _without_duplicates(matches.indices, a, b)
    rows_a, rows_b = matches.indices.T
    second = np.full((len(matches), 2), -1.0)
    for number in np.unique(a.sets[rows_a]):
        in_a, in_b = np.nonzero(a.sets == number)[0], np.nonzero(b.sets == number)[0]
        similarity = a.descriptors[in_a] @ b.descriptors[in_b].T
        here = np.nonzero(a.sets[rows_a] == number)[0]
        if len(in_b) > 1:
            best_two = np.partition(similarity, -2, axis=1)[:, -2]
            second[here, 0] = best_two[np.searchsorted(in_a, rows_a[here])]
        if len(in_a) > 1:
            best_two = np.partition(similarity, -2, axis=0)[-2]
            second[here, 1] = best_two[np.searchsorted(in_b, rows_b[here])]
    distance = np.sqrt(np.maximum(1.0 - matches.similarity, 0.0))
    limit = ratio * np.sqrt(np.maximum(1.0 - second, 0.0))
    kept = matches.indices[(distance[:, None] <= limit).all(axis=1)]
    return _without_duplicates(kept, a, b)


def _without_duplicates(indices: np.ndarray, a: Features, b: Features) -> np.ndarray:
    """Keep the first of (M, 2) matches that join the same two positions."""
    positions = np.hstack([a.keypoints[indices[:, 0]], b.keypoints[indices[:, 1]]])
    _, first = np.unique(positions, axis=0, return_index=True)
    return indices[np.sort(first)]


def relative_pose(a: View, b: View) -> Pose:
    """Return the true pose b_from_a."""
    return b.world_to_camera @ a.world_to_camera.inverse()


def transfer(
    points: np.ndarray, source: View, target: View, depth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Project pixels of one image into another, by the depth at the nearest pixel.

    Args:
        points: (N, 2) pixels of ``source``.
        source: image with its camera.
        target: other image with its camera.
        depth: (H, W) of ``source``, 0 where unknown.

    Returns:
        (N, 2) float64 pixels of ``target`` and (N,) bool, whether the depth is known. Points
        behind the target are projected all the same, as the benchmark does.
    """
    points = np.asarray(points, np.float64).reshape(-1, 2)
    height, width = depth.shape
    known = inside(points, (width, height))
    column, row = np.rint(points[known]).astype(int).T
    z = np.zeros(len(points))
    z[known] = depth[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    rays = np.column_stack([points, np.ones(len(points))]) @ np.linalg.inv(source.intrinsics).T
    motion = relative_pose(source, target)
    pixels = (z[:, None] * rays @ motion.rotation.T + motion.translation) @ target.intrinsics.T
    known = (z > 0) & (pixels[:, 2] != 0)
    moved = np.full((len(points), 2), np.inf)
    moved[known] = pixels[known, :2] / pixels[known, 2:]
    return moved, known


def repeatability(a: ViewFeatures, b: ViewFeatures) -> float | None:
    """Compute the repeatability of a pair by the benchmark's own definition.

    A keypoint counts if its depth is known and it does not land right of or below the other
    image. The benchmark does not ask whether it lands left of or above it; such keypoints count
    as not repeated.
    """
    if a.depth is None or b.depth is None:
        return None
    shares = []
    for source, target in ((a, b), (b, a)):
        assert source.depth is not None
        moved, known = transfer(
            source.features.keypoints, source.view, target.view, source.depth
        )
        seen = moved[known & (moved < target.features.image_size).all(axis=1)]
        distances = nearest_distances(seen, target.features.keypoints)
        shares.append(float(np.mean(distances < DEPTH_THRESHOLD)) if len(seen) else 0.0)
    return float(np.mean(shares))


def matching_score(a: ViewFeatures, b: ViewFeatures, matches: np.ndarray) -> float | None:
    """Compute the share of (M, 2) matches within 3 px of where the depth map of ``b`` sends them.

    Matches whose depth is known in both images count, as in the benchmark.
    """
    if a.depth is None or b.depth is None:
        return None
    points_a = a.features.keypoints[matches[:, 0]]
    points_b = b.features.keypoints[matches[:, 1]]
    moved, known = transfer(points_b, b.view, a.view, b.depth)
    _, known_a = transfer(points_a, a.view, b.view, a.depth)
    judged = known & known_a
    if not judged.any():
        return 0.0
    errors = np.linalg.norm(moved[judged] - points_a[judged], axis=1)
    return float(np.mean(errors < DEPTH_THRESHOLD))


def measure_pair(
    a: ViewFeatures,
    b: ViewFeatures,
    matches: np.ndarray,
    threshold: float,
    seeds: Sequence[int] = (0,),
) -> StereoResult:
    """Estimate the relative pose of a pair from its matches and judge it.

    Args:
        a: features of one image.
        b: features of the other.
        matches: (M, 2) rows in the features of ``a`` and ``b``.
        threshold: inlier threshold of the robust fit, pixels.
        seeds: seeds of the robust fit, which is repeated for each.
    """
    points_a = a.features.keypoints[matches[:, 0]]
    points_b = b.features.keypoints[matches[:, 1]]
    truth = relative_pose(a.view, b.view)
    inliers, rotations, translations, scores = [], [], [], []
    for seed in seeds:
        fit = estimate_relative_pose(
            points_a, points_b, a.view.intrinsics, b.view.intrinsics, threshold, seed
        )
        chosen = fit.inliers if fit is not None else np.zeros(len(matches), bool)
        rotation, translation = pose_errors(truth, fit.b_from_a if fit is not None else None)
        inliers.append(int(chosen.sum()))
        rotations.append(rotation)
        translations.append(translation)
        scores.append(matching_score(a, b, matches[chosen]))
    known = [score for score in scores if score is not None]
    return StereoResult(
        names=(a.view.name, b.view.name),
        matches=len(matches),
        inliers=float(np.mean(inliers)),
        rotation_errors=tuple(rotations),
        translation_errors=tuple(translations),
        repeatability=repeatability(a, b),
        matching_score=float(np.mean(known)) if known else None,
    )

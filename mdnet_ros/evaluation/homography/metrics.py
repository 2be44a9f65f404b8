"""The metrics of homography benchmarks.

A pair is an image ``a``, an image ``b`` and the homography that maps pixels of ``a`` to ``b``,
scaled so that visible points have a positive third coordinate (H[2, 2] > 0, as in HPatches).
Empty and degenerate input counts as zero: no keypoints, no matches, no overlap, no model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from mdnet_ros.data.geometry import inside, nearest_distances, project
from mdnet_ros.features.types import Features, Matches

#: Pixels within which a match is correct or a keypoint repeated.
THRESHOLDS = tuple(range(1, 11))
#: Pixels of corner error at which estimated homographies are judged.
HOMOGRAPHY_THRESHOLDS = (1, 3, 5)
#: Inlier threshold of the robust homography, pixels.
_RANSAC_THRESHOLD = 3.0


def match_errors(
    points_a: np.ndarray, points_b: np.ndarray, homography: np.ndarray
) -> np.ndarray:
    """Distances of the matched keypoints of ``b`` from the warped keypoints of ``a``.

    Args:
        points_a: (M, 2) matched pixels of ``a``.
        points_b: (M, 2) matched pixels of ``b``, row by row.
        homography: (3, 3), maps pixels of ``a`` to ``b``.

    Returns:
        (M,) float64, pixels of ``b``.
    """
    difference = project(homography, points_a) - np.asarray(points_b, np.float64).reshape(-1, 2)
    return np.linalg.norm(difference, axis=1)


def estimate_homography(points_a: np.ndarray, points_b: np.ndarray) -> np.ndarray | None:
    """Fit a homography to matches by OpenCV's MAGSAC++ (Barath et al., CVPR 2020).

    OpenCV seeds it with a constant, so the same matches give the same homography.

    Args:
        points_a: (M, 2) pixels of ``a``.
        points_b: (M, 2) pixels of ``b``.

    Returns:
        (3, 3) float64, or None with fewer than four matches or without a model.
    """
    if len(points_a) < 4:
        return None
    try:
        homography, _ = cv2.findHomography(
            np.asarray(points_a, np.float64), np.asarray(points_b, np.float64),
            cv2.USAC_MAGSAC, _RANSAC_THRESHOLD, maxIters=5000, confidence=0.9999,
        )
    except cv2.error:
        return None
    if homography is None or not np.isfinite(homography).all():
        return None
    return homography


def corner_error(
    estimated: np.ndarray | None, homography: np.ndarray, size: tuple[int, int]
) -> float:
    """Mean distance between an image's four corner pixels warped by two homographies.

    This is the error of SuperPoint's homography estimation (DeTone et al., CVPRW 2018).

    Args:
        estimated: (3, 3), or None where none was found.
        homography: (3, 3), the true one.
        size: (width, height) of image ``a``.

    Returns:
        Pixels of ``b``; infinite without an estimate.
    """
    if estimated is None:
        return float('inf')
    width, height = size
    corners = np.array(
        [[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64
    )
    distance = project(estimated, corners) - project(homography, corners)
    error = float(np.linalg.norm(distance, axis=1).mean())
    return error if np.isfinite(error) else float('inf')


def accuracy(errors: Sequence[float], threshold: float) -> float:
    """Share of errors up to a threshold, in [0, 1]; 0 if there are no errors."""
    return float(np.mean(np.asarray(errors) <= threshold)) if len(errors) else 0.0


def area_under_curve(errors: Sequence[float], threshold: float) -> float:
    """Area under the recall over error curve up to a threshold, divided by the threshold.

    The curve is that of SuperGlue (Sarlin et al., CVPR 2020): recall i/n at the i-th smallest of
    n errors, joined by straight lines from (0, 0), constant from the last error below the
    threshold on.

    Args:
        errors: one per pair; infinite where estimation failed.
        threshold: end of the curve, in the errors' unit.

    Returns:
        In [0, 1]; 0 if there are no errors.
    """
    ordered = np.sort(np.asarray(errors, np.float64))
    if not len(ordered):
        return 0.0
    recall = np.arange(1, len(ordered) + 1) / len(ordered)
    ordered, recall = np.append(0.0, ordered), np.append(0.0, recall)
    last = int(np.searchsorted(ordered, threshold))
    x = np.append(ordered[:last], threshold)
    y = np.append(recall[:last], recall[last - 1])
    return float(((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum() / threshold)


@dataclass(frozen=True)
class PairCounts:
    """Counts of one image pair, from which every ratio is computed.

    Attributes:
        keypoints: number of keypoints in ``a`` and in ``b``.
        shared: number of keypoints in ``a`` and in ``b`` that lie in the area both images see.
        matches: number of proposed matches.
        correct: number of matches whose error is at most 1, 2, … 10 px.
        correct_shared: the same, only matches whose two keypoints both lie in the shared area.
        repeated: number of shared keypoints, of ``a`` and ``b`` together, with a shared keypoint
            of the other image within 1, 2, … 10 px.
        corner_error: corner error of the homography estimated from the matches, pixels; None
            where none was found.
    """

    keypoints: tuple[int, int]
    shared: tuple[int, int]
    matches: int
    correct: tuple[int, ...]
    correct_shared: tuple[int, ...]
    repeated: tuple[int, ...]
    corner_error: float | None

    def mma(self, threshold: int) -> float:
        """Correct / proposed matches, in [0, 1] (Mikolajczyk and Schmid, PAMI 2005)."""
        return self.correct[threshold - 1] / self.matches if self.matches else 0.0

    def matching_score(self, threshold: int) -> float:
        """Correct matches / mean number of keypoints in the shared area of the two images."""
        total = sum(self.shared)
        return 2 * self.correct_shared[threshold - 1] / total if total else 0.0

    def repeatability(self, threshold: int) -> float:
        """Share of the keypoints in the shared area that are repeated in the other image."""
        total = sum(self.shared)
        return self.repeated[threshold - 1] / total if total else 0.0


def _count(distances: np.ndarray) -> tuple[int, ...]:
    return tuple(int((distances <= t).sum()) for t in THRESHOLDS)


def evaluate_pair(
    a: Features, b: Features, matches: Matches, homography: np.ndarray
) -> PairCounts:
    """Count keypoints and matches of one pair, and estimate its homography.

    Args:
        a: features of the first image.
        b: features of the second image.
        matches: proposed matches between them.
        homography: (3, 3), maps pixels of ``a`` to ``b``.
    """
    in_b = project(homography, a.keypoints)
    in_a = project(np.linalg.inv(homography), b.keypoints)
    shared_a, shared_b = inside(in_b, b.image_size), inside(in_a, a.image_size)
    rows_a, rows_b = matches.indices[:, 0], matches.indices[:, 1]
    points_a, points_b = a.keypoints[rows_a], b.keypoints[rows_b]
    errors = match_errors(points_a, points_b, homography)
    both = shared_a[rows_a] & shared_b[rows_b]
    repeated = np.concatenate(
        [
            nearest_distances(in_b[shared_a], b.keypoints[shared_b].astype(np.float64)),
            nearest_distances(in_a[shared_b], a.keypoints[shared_a].astype(np.float64)),
        ]
    )
    error = corner_error(estimate_homography(points_a, points_b), homography, a.image_size)
    return PairCounts(
        keypoints=(len(a), len(b)),
        shared=(int(shared_a.sum()), int(shared_b.sum())),
        matches=len(matches),
        correct=_count(errors),
        correct_shared=_count(errors[both]),
        repeated=_count(repeated),
        corner_error=error if np.isfinite(error) else None,
    )


@dataclass(frozen=True)
class PairSummary:
    """Averages over image pairs; keys are thresholds in pixels, values in [0, 1].

    Attributes:
        pairs: number of pairs.
        mma: mean matching accuracy.
        ms: mean matching score.
        repeatability: mean share of repeated keypoints.
        homography_accuracy: share of pairs whose corner error is at most the threshold.
        homography_auc: area under the curve of the corner errors up to the threshold.
        matches: mean number of proposed matches of a pair.
    """

    pairs: int
    mma: dict[int, float]
    ms: dict[int, float]
    repeatability: dict[int, float]
    homography_accuracy: dict[int, float]
    homography_auc: dict[int, float]
    matches: float


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return float(np.mean(listed)) if listed else 0.0


def summarise(pairs: Sequence[PairCounts]) -> PairSummary:
    """Average over pairs, each with the same weight."""
    errors = [np.inf if pair.corner_error is None else pair.corner_error for pair in pairs]
    return PairSummary(
        pairs=len(pairs),
        mma={t: _mean(p.mma(t) for p in pairs) for t in THRESHOLDS},
        ms={t: _mean(p.matching_score(t) for p in pairs) for t in THRESHOLDS},
        repeatability={t: _mean(p.repeatability(t) for p in pairs) for t in THRESHOLDS},
        homography_accuracy={t: accuracy(errors, t) for t in HOMOGRAPHY_THRESHOLDS},
        homography_auc={t: area_under_curve(errors, t) for t in HOMOGRAPHY_THRESHOLDS},
        matches=_mean(pair.matches for pair in pairs),
    )

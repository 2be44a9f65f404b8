"""Results of image matching as averages.

Scenes have the same weight, as in the benchmark; inside a scene pairs have, and inside multiview
first the subsets of one size and then the sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mdnet_ros.evaluation.image_matching.results import ExtractorResult, SceneResult
from mdnet_ros.evaluation.image_matching.subsets import BagResult
from mdnet_ros.evaluation.pose import mean_average_accuracy

#: Degrees at which the shares of good pairs are given.
DEGREES = tuple(range(1, 11))


@dataclass(frozen=True)
class StereoSummary:
    """Averages over pairs; the names are the benchmark's.

    Attributes:
        pairs: how many.
        features: keypoints of an image (NF).
        matches: proposed matches of a pair.
        inliers: of the robust pose (NI).
        repeatability: at 3 px (Rep); None without depth maps.
        matching_score: at 3 px (MS); None without depth maps.
        accuracy: share of pairs with a pose error below each of :data:`DEGREES`.
        mean_accuracy: mAA(10°).
    """

    pairs: int
    features: float
    matches: float
    inliers: float
    repeatability: float | None
    matching_score: float | None
    accuracy: tuple[float, ...]
    mean_accuracy: float


@dataclass(frozen=True)
class MultiviewSummary:
    """Averages over reconstructed subsets; the names are the benchmark's.

    Attributes:
        bags: how many.
        registered: share of the images.
        matches: verified by COLMAP, of a pair (NM).
        landmarks: NL.
        track_length: TL.
        ate: None where no subset had three registered cameras.
        mean_accuracy: mAA(10°).
    """

    bags: int
    registered: float
    matches: float
    landmarks: float
    track_length: float
    ate: float | None
    mean_accuracy: float


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of what is known, or None."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def mean_or_zero(values: Iterable[float]) -> float:
    """Mean, 0 of nothing."""
    return _mean(values) or 0.0


def stereo_of(scene: SceneResult) -> StereoSummary:
    """Average over the pairs of a scene."""
    pairs = scene.pairs
    errors = np.array([pair.error for pair in pairs])
    return StereoSummary(
        pairs=len(pairs),
        features=scene.keypoints,
        matches=mean_or_zero(pair.matches for pair in pairs),
        inliers=mean_or_zero(pair.inliers for pair in pairs),
        repeatability=_mean(pair.repeatability for pair in pairs),
        matching_score=_mean(pair.matching_score for pair in pairs),
        accuracy=tuple(mean_or_zero(errors < degrees) for degrees in DEGREES),
        mean_accuracy=mean_average_accuracy(errors),
    )


def average_stereo(parts: Sequence[StereoSummary]) -> StereoSummary:
    """Average scenes with the same weight."""
    return StereoSummary(
        pairs=sum(part.pairs for part in parts),
        features=mean_or_zero(part.features for part in parts),
        matches=mean_or_zero(part.matches for part in parts),
        inliers=mean_or_zero(part.inliers for part in parts),
        repeatability=_mean(part.repeatability for part in parts),
        matching_score=_mean(part.matching_score for part in parts),
        accuracy=tuple(
            mean_or_zero(part.accuracy[i] for part in parts) for i in range(len(DEGREES))
        ),
        mean_accuracy=mean_or_zero(part.mean_accuracy for part in parts),
    )


def _multiview_of(bags: Sequence[BagResult]) -> MultiviewSummary:
    return MultiviewSummary(
        bags=len(bags),
        registered=mean_or_zero(bag.registered / bag.size for bag in bags),
        matches=mean_or_zero(bag.matches for bag in bags),
        landmarks=mean_or_zero(bag.landmarks for bag in bags),
        track_length=mean_or_zero(bag.track_length for bag in bags),
        ate=_mean(bag.ate for bag in bags),
        mean_accuracy=mean_or_zero(bag.accuracy for bag in bags),
    )


def multiview_by_size(scene: SceneResult) -> dict[int, MultiviewSummary]:
    """Averages over the subsets of each size."""
    sizes = sorted({bag.size for bag in scene.bags})
    return {size: _multiview_of([b for b in scene.bags if b.size == size]) for size in sizes}


def average_multiview(parts: Sequence[MultiviewSummary]) -> MultiviewSummary | None:
    """Average sizes, or scenes, with the same weight; None if there is nothing."""
    if not parts:
        return None
    return MultiviewSummary(
        bags=sum(part.bags for part in parts),
        registered=mean_or_zero(part.registered for part in parts),
        matches=mean_or_zero(part.matches for part in parts),
        landmarks=mean_or_zero(part.landmarks for part in parts),
        track_length=mean_or_zero(part.track_length for part in parts),
        ate=_mean(part.ate for part in parts),
        mean_accuracy=mean_or_zero(part.mean_accuracy for part in parts),
    )


def multiview_of(scene: SceneResult) -> MultiviewSummary | None:
    """Average over the sizes of a scene; None if nothing was reconstructed."""
    return average_multiview(list(multiview_by_size(scene).values()))


def overall_stereo(extractor: ExtractorResult) -> StereoSummary:
    """Average over the scenes."""
    return average_stereo([stereo_of(scene) for scene in extractor.scenes])


def overall_multiview(extractor: ExtractorResult) -> MultiviewSummary | None:
    """Average over the scenes with subsets."""
    parts = [multiview_of(scene) for scene in extractor.scenes]
    return average_multiview([part for part in parts if part is not None])

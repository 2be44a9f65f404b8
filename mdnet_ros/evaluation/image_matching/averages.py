"""Averages of image-matching results.

Every scene has the same weight, as in the benchmark (Jin et al., IJCV 2021). Within a scene, every
pair has the same weight in the stereo task; in the multiview task the subsets of one size are
averaged first, and then the sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np

from mdnet_ros.evaluation.image_matching.results import MatchedExtractor, SceneResult
from mdnet_ros.evaluation.image_matching.subsets import SubsetResult
from mdnet_ros.evaluation.pose import mean_average_accuracy

#: Pose errors at which shares of pairs are given, degrees.
DEGREES = tuple(range(1, 11))


@dataclass(frozen=True)
class StereoSummary:
    """Averages over pairs of the stereo task; the benchmark's names in parentheses.

    Attributes:
        pairs: number of pairs.
        features: keypoints of an image (NF).
        matches: proposed matches of a pair, those between the same two positions counted once.
        inliers: inliers of the robust pose of a pair (NI).
        repeatability: repeatability at 3 px (Rep); None without depth maps.
        matching_score: matching score at 3 px (MS); None without depth maps.
        accuracy: share of pairs with a pose error below each of :data:`DEGREES`.
        accuracy_by_seed: mAA(10°) for each seed of the robust pose.
        mean_accuracy: mAA(10°), mean over the seeds.
    """

    pairs: int
    features: float
    matches: float
    inliers: float
    repeatability: float | None
    matching_score: float | None
    accuracy: tuple[float, ...]
    accuracy_by_seed: tuple[float, ...]
    mean_accuracy: float

    @property
    def spread(self) -> float:
        """Largest minus smallest mAA(10°) of the seeds."""
        return max(self.accuracy_by_seed, default=0.0) - min(self.accuracy_by_seed, default=0.0)


@dataclass(frozen=True)
class MultiviewSummary:
    """Averages over subsets of the multiview task; the benchmark's names in parentheses.

    A subset whose reconstruction failed counts as wrong in the accuracy and is left out of the
    landmarks, track lengths and trajectory errors, as in the benchmark.

    Attributes:
        subsets: number of subsets.
        registered: share of the images that were registered; failed subsets count as 0.
        matches: matches of a pair given to COLMAP (NM).
        verified: matches of a pair that COLMAP verified.
        landmarks: triangulated points (NL); None where every reconstruction failed.
        track_length: images that a point is seen in (TL); None likewise.
        ate: absolute trajectory error; None where no subset had three registered cameras.
        mean_accuracy: mAA(10°).
    """

    subsets: int
    registered: float
    matches: float
    verified: float
    landmarks: float | None
    track_length: float | None
    ate: float | None
    mean_accuracy: float


SummaryT = TypeVar('SummaryT', StereoSummary, MultiviewSummary)
#: Fields that are numbers of things, which are added instead of averaged.
_COUNTS = ('pairs', 'subsets')


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def mean_or_zero(values: Iterable[float]) -> float:
    """Mean, or 0 if there are no values."""
    return _mean(values) or 0.0


def stereo_of(scene: SceneResult) -> StereoSummary:
    """Average over the pairs of a scene."""
    pairs = scene.pairs
    errors = np.array([pair.errors for pair in pairs]).T  # seeds, pairs
    by_seed = tuple(mean_average_accuracy(of_seed) for of_seed in errors)
    return StereoSummary(
        pairs=len(pairs),
        features=scene.keypoints,
        matches=mean_or_zero(pair.matches for pair in pairs),
        inliers=mean_or_zero(pair.inliers for pair in pairs),
        repeatability=_mean(pair.repeatability for pair in pairs),
        matching_score=_mean(pair.matching_score for pair in pairs),
        accuracy=tuple(mean_or_zero((errors < degrees).ravel()) for degrees in DEGREES),
        accuracy_by_seed=by_seed,
        mean_accuracy=mean_or_zero(by_seed),
    )


def _multiview_of(subsets: Sequence[SubsetResult]) -> MultiviewSummary:
    built = [subset for subset in subsets if subset.registered]
    return MultiviewSummary(
        subsets=len(subsets),
        registered=mean_or_zero(subset.registered / subset.size for subset in subsets),
        matches=mean_or_zero(subset.matches for subset in subsets),
        verified=mean_or_zero(subset.verified for subset in subsets),
        landmarks=_mean(subset.landmarks for subset in built),
        track_length=_mean(subset.track_length for subset in built),
        ate=_mean(subset.ate for subset in subsets),
        mean_accuracy=mean_or_zero(subset.accuracy for subset in subsets),
    )


def multiview_by_size(scene: SceneResult) -> dict[int, MultiviewSummary]:
    """Averages over the subsets of each size."""
    sizes = sorted({subset.size for subset in scene.subsets})
    return {size: _multiview_of([s for s in scene.subsets if s.size == size]) for size in sizes}


def average(parts: Sequence[SummaryT]) -> SummaryT:
    """Average sizes or scenes with the same weight, and add their counts.

    Args:
        parts: at least one. A metric that is None in some parts is averaged over the others.
    """
    metrics: dict[str, Any] = {}
    for name in (field.name for field in fields(parts[0])):
        values = [getattr(part, name) for part in parts]
        if name in _COUNTS:
            metrics[name] = sum(values)
        elif isinstance(values[0], tuple):
            metrics[name] = tuple(_mean(column) for column in zip(*values, strict=True))
        else:
            metrics[name] = _mean(values)
    return replace(parts[0], **metrics)


def multiview_of(scene: SceneResult) -> MultiviewSummary | None:
    """Average over the sizes of a scene; None if nothing was reconstructed."""
    sizes = list(multiview_by_size(scene).values())
    return average(sizes) if sizes else None


def overall_stereo(extractor: MatchedExtractor) -> StereoSummary:
    """Average the stereo task over the scenes, of which there is at least one."""
    return average([stereo_of(scene) for scene in extractor.parts])


def overall_multiview(extractor: MatchedExtractor) -> MultiviewSummary | None:
    """Average the multiview task over the scenes that have subsets; None if none has."""
    parts = [part for part in map(multiview_of, extractor.parts) if part is not None]
    return average(parts) if parts else None


def extractor_metrics(extractor: MatchedExtractor) -> dict[str, Any]:
    """Averages over all scenes, as the JSON shows them."""
    multiview = overall_multiview(extractor)
    return {
        'stereo': asdict(overall_stereo(extractor)) if extractor.parts else None,
        'multiview': asdict(multiview) if multiview else None,
        'ms_per_image': mean_or_zero(scene.milliseconds for scene in extractor.parts),
    }


def scene_metrics(scene: SceneResult) -> dict[str, Any]:
    """Averages of one scene, as the JSON shows them."""
    multiview = multiview_of(scene)
    by_size = multiview_by_size(scene)
    return {
        'stereo': asdict(stereo_of(scene)),
        'multiview': asdict(multiview) if multiview else None,
        'multiview_by_size': {str(size): asdict(part) for size, part in by_size.items()},
    }

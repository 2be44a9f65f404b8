"""Results of the homography benchmark, and their averages over sequences.

The counts of every pair are kept, so that averages over any group of sequences are exact: an area
under a curve is not the mean of its parts' areas.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdnet_ros.evaluation.homography.data import GROUPS
from mdnet_ros.evaluation.homography.metrics import PairCounts, PairSummary, summarise
from mdnet_ros.evaluation.reports.results import EvaluationResult, ExtractorResult

#: Name of the group of all sequences.
OVERALL = 'overall'


@dataclass(frozen=True)
class HomographySettings:
    """Everything that decides the results besides extractors and images.

    Attributes:
        max_keypoints: the most keypoints of one image.
        max_side: images are shrunk to this longer side, pixels; 0: native size.
        all_sequences: measure all sequences, not only those of the 108-sequence protocol.
        across_sets: match keypoints of all sets with each other.
        exact: compare descriptors in float32, as
            :func:`~mdnet_ros.features.matching.mutual_nearest` does.
    """

    max_keypoints: int = 2048
    max_side: int = 0
    all_sequences: bool = False
    across_sets: bool = False
    exact: bool = True


@dataclass(frozen=True)
class SequenceResult:
    """One extractor on one sequence.

    Attributes:
        name: name of the sequence.
        group: ``viewpoint`` or ``illumination``.
        pairs: image 1 against image 2, 3, …
        keypoints: number of keypoints of each image.
        milliseconds: time that extracting each image took, in the run that extracted it.
    """

    name: str
    group: str
    pairs: tuple[PairCounts, ...]
    keypoints: tuple[int, ...]
    milliseconds: tuple[float, ...]


HomographyResult = EvaluationResult[HomographySettings, ExtractorResult[SequenceResult]]


@dataclass(frozen=True)
class SequenceSummary:
    """Averages over several sequences.

    Attributes:
        metrics: averages over all their pairs.
        keypoints: mean number of keypoints of an image.
        milliseconds: mean time to extract an image.
    """

    metrics: PairSummary
    keypoints: float
    milliseconds: float


def average(sequences: Iterable[SequenceResult]) -> SequenceSummary:
    """Average sequences: every pair has the same weight, and so has every image."""
    listed = list(sequences)
    keypoints = [count for s in listed for count in s.keypoints]
    milliseconds = [time for s in listed for time in s.milliseconds]
    return SequenceSummary(
        summarise([pair for s in listed for pair in s.pairs]),
        float(np.mean(keypoints)) if keypoints else 0.0,
        float(np.mean(milliseconds)) if milliseconds else 0.0,
    )


def group_average(
    extractor: ExtractorResult[SequenceResult], group: str = OVERALL
) -> SequenceSummary:
    """Average an extractor's sequences of ``viewpoint``, ``illumination`` or ``overall``."""
    return average(s for s in extractor.parts if group in (OVERALL, s.group))


def extractor_metrics(extractor: ExtractorResult[SequenceResult]) -> dict[str, Any]:
    """Averages of each group, as the JSON shows them."""
    groups = (OVERALL, *GROUPS.values())
    return {group: _metrics(group_average(extractor, group)) for group in groups}


def sequence_metrics(sequence: SequenceResult) -> dict[str, Any]:
    """Averages of one sequence, as the JSON shows them."""
    return _metrics(average([sequence]))


def _metrics(summary: SequenceSummary) -> dict[str, Any]:
    metrics = summary.metrics
    return {
        'mma': _by_threshold(metrics.mma),
        'ms': _by_threshold(metrics.ms),
        'repeatability': _by_threshold(metrics.repeatability),
        'homography_accuracy': _by_threshold(metrics.homography_accuracy),
        'homography_auc': _by_threshold(metrics.homography_auc),
        'keypoints': round(summary.keypoints, 2),
        'matches': round(metrics.matches, 2),
        'ms_per_image': round(summary.milliseconds, 3),
        'pairs': metrics.pairs,
    }


def _by_threshold(values: dict[int, float]) -> dict[str, float]:
    return {str(threshold): round(value, 6) for threshold, value in values.items()}

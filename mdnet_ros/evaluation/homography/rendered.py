"""Measure extractors on pairs rendered from photographs, class by class.

The classes show what a data set of a few sequences mixes: how far scale, tilt, rotation and light
may change before keypoints are lost. The metrics are those of the homography benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdnet_ros.baselines.registry import ExtractorSpec
from mdnet_ros.evaluation.homography.metrics import PairCounts, evaluate_pair
from mdnet_ros.evaluation.reports.tables import Column, Table
from mdnet_ros.features.extractor import Extractor
from mdnet_ros.features.matching import match_mutual_nearest
from mdnet_ros.progress import Progress
from mdnet_ros.training.images import ImagePool
from mdnet_ros.training.pair_classes import SIDE, PairClass, pairs_of
from mdnet_ros.training.views import ViewPair

#: Pixels within which a keypoint is repeated and a match is right, in the tables.
_SHOWN = 3
#: Keypoints of a view by default: the density of 2048 in 640x480.
DENSITY = 2048 / (640 * 480)


@dataclass(frozen=True)
class ClassMetrics:
    """One extractor on the pairs of one class; means over the pairs.

    Attributes:
        extractor: its name.
        kind: name of the class.
        pairs: how many.
        repeatability: share of the keypoints in the shared area that the other view has too,
            within 3 px.
        recall: right matches within 3 px per repeated keypoint.
        mma: mean matching accuracy at 1, 2 and 3 px.
        ms: matching score at 3 px.
    """

    extractor: str
    kind: str
    pairs: int
    repeatability: float
    recall: float
    mma: tuple[float, float, float]
    ms: float


def default_keypoints(side: int = SIDE) -> int:
    """Keypoints of a view in the density of 2048 in 640x480."""
    return round(DENSITY * side * side)


def measure(
    pool: ImagePool, specs: Sequence[ExtractorSpec], count: int, classes: Sequence[PairClass]
) -> list[ClassMetrics]:
    """Measure extractors on the same pairs.

    Args:
        pool: the photographs, on the CPU.
        specs: the extractors.
        count: pairs of each class.
        classes: which.

    Raises:
        DataError: no photograph is large enough for a class.
        WeightsError: an extractor's weights are missing.
    """
    extractors = [(spec.name, spec.create()) for spec in specs]
    metrics = []
    progress = Progress(total=len(classes) * len(specs), unit='class')
    for kind in classes:
        pairs = pairs_of(pool, kind, count)
        for name, extractor in extractors:
            progress.set_postfix_str(f'{kind.name} {name}')
            results = [_pair(extractor, pairs, i) for i in range(count)]
            metrics.append(_metrics(name, kind.name, results))
            progress.update()
    progress.close()
    return metrics


def overall(metrics: Sequence[ClassMetrics]) -> list[ClassMetrics]:
    """Means over the classes, each with the same weight, one row per extractor."""
    rows = []
    for name in dict.fromkeys(f.extractor for f in metrics):
        own = [f for f in metrics if f.extractor == name]
        rows.append(ClassMetrics(
            name, 'mean', sum(f.pairs for f in own), _mean([f.repeatability for f in own]),
            _mean([f.recall for f in own]),
            (_mean([f.mma[0] for f in own]), _mean([f.mma[1] for f in own]),
             _mean([f.mma[2] for f in own])),
            _mean([f.ms for f in own]),
        ))
    return rows


def tables(metrics: Sequence[ClassMetrics]) -> list[Table]:
    """One table per class and one of their means, one row per extractor."""
    columns = (
        Column('extractor'), Column(f'Rep@{_SHOWN}', 3, 'max'), Column('recall', 3, 'max'),
        *(Column(f'MMA@{t}', 3, 'max') for t in (1, 2, 3)), Column(f'MS@{_SHOWN}', 3, 'max'),
    )
    every = [*metrics, *overall(metrics)]
    shown = []
    for kind in dict.fromkeys(f.kind for f in every):
        own = [f for f in every if f.kind == kind]
        rows = tuple((f.extractor, f.repeatability, f.recall, *f.mma, f.ms) for f in own)
        shown.append(Table(columns, rows, f'{kind}, {own[0].pairs} pairs'))
    return shown


def _pair(extractor: Extractor, pairs: ViewPair, number: int) -> PairCounts:
    count = len(pairs.to_second)
    first, second = (
        np.round(pairs.images[i, 0].numpy() * 255.0).astype(np.uint8)
        for i in (number, count + number)
    )
    a, b = extractor(first), extractor(second)
    homography = pairs.to_second[number].double().numpy()
    return evaluate_pair(a, b, match_mutual_nearest(a, b), homography / homography[2, 2])


def _metrics(name: str, kind: str, results: Sequence[PairCounts]) -> ClassMetrics:
    recall = [
        2 * r.correct_shared[_SHOWN - 1] / r.repeated[_SHOWN - 1]
        for r in results if r.repeated[_SHOWN - 1]
    ]
    mma = tuple(_mean([r.mma(t) for r in results]) for t in (1, 2, 3))
    return ClassMetrics(
        name, kind, len(results), _mean([r.repeatability(_SHOWN) for r in results]),
        _mean(recall), (mma[0], mma[1], mma[2]),
        _mean([r.matching_score(_SHOWN) for r in results]),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0

"""Results of image matching as averages and as JSON, and back; shards merged into one.

Scenes have the same weight, as in the benchmark; inside a scene pairs have, and inside multiview
first the subsets of one size and then the sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.image_matching import (
    ExtractorResult,
    ImageMatchingResult,
    ImageMatchingSettings,
    MatchingChoice,
    SceneResult,
)
from mdnet_ros.evaluation.imb_data import SceneSettings
from mdnet_ros.evaluation.multiview import BagResult
from mdnet_ros.evaluation.pose import mean_average_accuracy
from mdnet_ros.evaluation.published_imb import PUBLISHED_IMB
from mdnet_ros.evaluation.stereo import PairResult

PROTOCOL = 'image-matching'
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


def _figure(values: Iterable[float]) -> float:
    return _mean(values) or 0.0


def stereo_of(scene: SceneResult) -> StereoSummary:
    """Average over the pairs of a scene."""
    pairs = scene.pairs
    errors = np.array([pair.error for pair in pairs])
    return StereoSummary(
        pairs=len(pairs),
        features=scene.keypoints,
        matches=_figure(pair.matches for pair in pairs),
        inliers=_figure(pair.inliers for pair in pairs),
        repeatability=_mean(pair.repeatability for pair in pairs),
        matching_score=_mean(pair.matching_score for pair in pairs),
        accuracy=tuple(_figure(errors < degrees) for degrees in DEGREES),
        mean_accuracy=mean_average_accuracy(errors),
    )


def average_stereo(parts: Sequence[StereoSummary]) -> StereoSummary:
    """Average scenes with the same weight."""
    return StereoSummary(
        pairs=sum(part.pairs for part in parts),
        features=_figure(part.features for part in parts),
        matches=_figure(part.matches for part in parts),
        inliers=_figure(part.inliers for part in parts),
        repeatability=_mean(part.repeatability for part in parts),
        matching_score=_mean(part.matching_score for part in parts),
        accuracy=tuple(_figure(part.accuracy[i] for part in parts) for i in range(len(DEGREES))),
        mean_accuracy=_figure(part.mean_accuracy for part in parts),
    )


def _multiview_of(bags: Sequence[BagResult]) -> MultiviewSummary:
    return MultiviewSummary(
        bags=len(bags),
        registered=_figure(bag.registered / bag.size for bag in bags),
        matches=_figure(bag.matches for bag in bags),
        landmarks=_figure(bag.landmarks for bag in bags),
        track_length=_figure(bag.track_length for bag in bags),
        ate=_mean(bag.ate for bag in bags),
        mean_accuracy=_figure(bag.accuracy for bag in bags),
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
        registered=_figure(part.registered for part in parts),
        matches=_figure(part.matches for part in parts),
        landmarks=_figure(part.landmarks for part in parts),
        track_length=_figure(part.track_length for part in parts),
        ate=_mean(part.ate for part in parts),
        mean_accuracy=_figure(part.mean_accuracy for part in parts),
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


def _scene_to_json(scene: SceneResult) -> dict[str, Any]:
    multiview = multiview_of(scene)
    return {
        'pair_source': scene.pair_source,
        'keypoints': scene.keypoints,
        'ms_per_image': scene.milliseconds,
        'stereo': asdict(stereo_of(scene)),
        'multiview': asdict(multiview) if multiview else None,
        'multiview_by_size': {
            str(size): asdict(part) for size, part in multiview_by_size(scene).items()
        },
        'pairs': [asdict(pair) for pair in scene.pairs],
        'bags': [asdict(bag) for bag in scene.bags],
    }


def to_json(result: ImageMatchingResult, published: bool = False) -> dict[str, Any]:
    """A result as a JSON document.

    Args:
        result: to write.
        published: add published figures, under a key of their own.
    """
    extractors = {}
    for extractor in result.extractors:
        multiview = overall_multiview(extractor)
        extractors[extractor.name] = {
            'licence': extractor.licence,
            'choice': asdict(extractor.choice),
            'overall': {
                'stereo': asdict(overall_stereo(extractor)),
                'multiview': asdict(multiview) if multiview else None,
                'ms_per_image': _figure(scene.milliseconds for scene in extractor.scenes),
            },
            'scenes': {scene.name: _scene_to_json(scene) for scene in extractor.scenes},
        }
    document: dict[str, Any] = {
        'protocol': PROTOCOL,
        'settings': asdict(result.settings),
        'pose_solver': result.solver,
        'left_out': list(result.omitted),
        'extractors': extractors,
    }
    if published:
        document['published'] = [asdict(row) for row in PUBLISHED_IMB]
    return document


def _pair_from_json(values: dict[str, Any]) -> PairResult:
    return PairResult(**{**values, 'names': tuple(values['names'])})


def _scene_from_json(name: str, values: dict[str, Any]) -> SceneResult:
    return SceneResult(
        name,
        values['pair_source'],
        float(values['keypoints']),
        float(values['ms_per_image']),
        tuple(_pair_from_json(pair) for pair in values['pairs']),
        tuple(BagResult(**bag) for bag in values['bags']),
    )


def _settings_from_json(values: dict[str, Any]) -> ImageMatchingSettings:
    scene = {**values['scene'], 'bag_sizes': tuple(values['scene']['bag_sizes'])}
    return ImageMatchingSettings(**{**values, 'scene': SceneSettings(**scene)})


def from_json(document: dict[str, Any]) -> ImageMatchingResult:
    """Rebuild a result from its JSON document.

    Raises:
        DataError: it is not one.
    """
    try:
        return ImageMatchingResult(
            _settings_from_json(document['settings']),
            str(document['pose_solver']),
            tuple(
                ExtractorResult(
                    name,
                    values['licence'],
                    MatchingChoice(**values['choice']),
                    tuple(_scene_from_json(n, s) for n, s in values['scenes'].items()),
                )
                for name, values in document['extractors'].items()
            ),
            tuple(document['left_out']),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f'results: not of the image-matching protocol: {error!r}') from None


def merge(results: Sequence[ImageMatchingResult]) -> ImageMatchingResult:
    """Join results of different scenes or extractors.

    Raises:
        DataError: settings differ, or an extractor has a scene twice.
    """
    first = results[0]
    heads: dict[str, ExtractorResult] = {}
    scenes: dict[str, dict[str, SceneResult]] = {}
    for result in results:
        if (result.settings, result.solver) != (first.settings, first.solver):
            raise DataError(f'results: settings differ: {first.settings} and {result.settings}')
        for extractor in result.extractors:
            head = heads.setdefault(extractor.name, extractor)
            if head.choice != extractor.choice:
                raise DataError(f"results: '{extractor.name}' was matched in two ways")
            own = scenes.setdefault(extractor.name, {})
            for scene in extractor.scenes:
                if scene.name in own:
                    raise DataError(f"results: '{extractor.name}' has scene '{scene.name}' twice")
                own[scene.name] = scene
    return ImageMatchingResult(
        first.settings,
        first.solver,
        tuple(
            ExtractorResult(
                name, head.licence, head.choice, tuple(v for _, v in sorted(scenes[name].items()))
            )
            for name, head in heads.items()
        ),
        tuple(dict.fromkeys(line for result in results for line in result.omitted)),
    )

"""Results of image matching as JSON, and back; shards merged into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.image_matching.averages import (
    mean_or_zero,
    multiview_by_size,
    multiview_of,
    overall_multiview,
    overall_stereo,
    stereo_of,
)
from mdnet_ros.evaluation.image_matching.pairs import PairResult
from mdnet_ros.evaluation.image_matching.published import PUBLISHED_IMB
from mdnet_ros.evaluation.image_matching.results import (
    ExtractorResult,
    ImageMatchingResult,
    ImageMatchingSettings,
    MatchingChoice,
    SceneResult,
)
from mdnet_ros.evaluation.image_matching.scene import SceneSettings
from mdnet_ros.evaluation.image_matching.subsets import BagResult

PROTOCOL = 'image-matching'

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
                'ms_per_image': mean_or_zero(scene.milliseconds for scene in extractor.scenes),
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

"""Results of the homography benchmark as JSON, and back; shards merged into one.

The ratios are there to be read; the counts of every pair are there too, so that shards merge
exactly (an area under a curve is not the mean of its parts').
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.homography.metrics import PairResult
from mdnet_ros.evaluation.homography.protocol import (
    ExtractorResult,
    GroupResult,
    HomographyResult,
    HomographySettings,
    LeftOut,
    SequenceResult,
    average,
)
from mdnet_ros.evaluation.homography.published import PUBLISHED

PROTOCOL = 'homography'
_GROUPS = ('overall', 'viewpoint', 'illumination')


def _keyed(values: dict[int, float]) -> dict[str, float]:
    return {str(threshold): round(value, 6) for threshold, value in values.items()}


def group_to_json(group: GroupResult) -> dict[str, Any]:
    """Averages of a group as the JSON has them."""
    metrics = group.metrics
    return {
        'mma': _keyed(metrics.mma),
        'ms': _keyed(metrics.ms),
        'repeatability': _keyed(metrics.repeatability),
        'homography_accuracy': _keyed(metrics.homography_accuracy),
        'homography_auc': _keyed(metrics.homography_auc),
        'keypoints': round(group.keypoints, 2),
        'matches': round(metrics.matches, 2),
        'ms_per_image': round(group.milliseconds, 3),
        'pairs': metrics.pairs,
    }


def _pair_to_json(pair: PairResult) -> dict[str, Any]:
    values = asdict(pair)
    values['corner_error'] = pair.corner_error if math.isfinite(pair.corner_error) else None
    return values


def _pair_from_json(values: dict[str, Any]) -> PairResult:
    error = values['corner_error']
    return PairResult(
        keypoints=(values['keypoints'][0], values['keypoints'][1]),
        shared=(values['shared'][0], values['shared'][1]),
        matches=int(values['matches']),
        correct=tuple(values['correct']),
        correct_shared=tuple(values['correct_shared']),
        repeated=tuple(values['repeated']),
        corner_error=math.inf if error is None else float(error),
    )


def _sequence_to_json(sequence: SequenceResult) -> dict[str, Any]:
    return {
        'group': sequence.group,
        **group_to_json(average([sequence])),
        'images': [
            {'keypoints': count, 'ms': round(time, 3)}
            for count, time in zip(sequence.keypoints, sequence.milliseconds, strict=True)
        ],
        'pair_counts': [_pair_to_json(pair) for pair in sequence.pairs],
    }


def _sequence_from_json(name: str, values: dict[str, Any]) -> SequenceResult:
    return SequenceResult(
        name,
        values['group'],
        tuple(_pair_from_json(pair) for pair in values['pair_counts']),
        tuple(int(image['keypoints']) for image in values['images']),
        tuple(float(image['ms']) for image in values['images']),
    )


def to_json(result: HomographyResult, published: bool = False) -> dict[str, Any]:
    """A result as a JSON document.

    Args:
        result: to write.
        published: add published figures, under a key of their own.
    """
    document: dict[str, Any] = {
        'protocol': PROTOCOL,
        'settings': asdict(result.settings),
        'left_out': [asdict(entry) for entry in result.left_out],
        'extractors': {
            extractor.name: {
                'licence': extractor.licence,
                **{name: group_to_json(extractor.group(name)) for name in _GROUPS},
                'sequences': {s.name: _sequence_to_json(s) for s in extractor.sequences},
            }
            for extractor in result.extractors
        },
    }
    if published:
        document['published'] = [asdict(row) for row in PUBLISHED]
    return document


def from_json(document: dict[str, Any]) -> HomographyResult:
    """Rebuild a result from its JSON document.

    Raises:
        DataError: it is not one.
    """
    try:
        return HomographyResult(
            HomographySettings(**document['settings']),
            tuple(
                ExtractorResult(
                    name,
                    values['licence'],
                    tuple(_sequence_from_json(n, s) for n, s in values['sequences'].items()),
                )
                for name, values in document['extractors'].items()
            ),
            tuple(LeftOut(**entry) for entry in document['left_out']),
        )
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise DataError(f'results: not of the homography protocol: {error!r}') from None


def merge(results: Sequence[HomographyResult]) -> HomographyResult:
    """Join results of different sequences or extractors.

    Raises:
        DataError: the settings differ, or an extractor has a sequence twice.
    """
    settings = results[0].settings
    licences: dict[str, str] = {}
    sequences: dict[str, dict[str, SequenceResult]] = {}
    for result in results:
        if result.settings != settings:
            raise DataError(f'results: settings differ: {settings} and {result.settings}')
        for extractor in result.extractors:
            licences[extractor.name] = extractor.licence
            own = sequences.setdefault(extractor.name, {})
            for sequence in extractor.sequences:
                if sequence.name in own:
                    raise DataError(
                        f"results: '{extractor.name}' has sequence '{sequence.name}' twice"
                    )
                own[sequence.name] = sequence
    return HomographyResult(
        settings,
        tuple(
            ExtractorResult(name, licences[name], tuple(own[key] for key in sorted(own)))
            for name, own in sequences.items()
        ),
        tuple(dict.fromkeys(entry for result in results for entry in result.left_out)),
    )

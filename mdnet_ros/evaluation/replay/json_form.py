"""Results of replayed bags as JSON, and back; shards merged into one.

There is no average over bags: errors of different places and speeds do not average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.replay.results import (
    BagResult,
    DistanceResult,
    FrontendResult,
    OdometryResult,
    ReplayResult,
    ReplaySettings,
)
from mdnet_ros.evaluation.tracks.statistics import Precision, SequenceSummary, TrackLength
from mdnet_ros.evaluation.trajectory import TrajectoryErrors

PROTOCOL = 'replay'
#: Percentiles of the latency that are given.
PERCENTILES = (50, 90, 99)


def latency_percentiles(bag: BagResult) -> dict[int, float]:
    """Milliseconds that so many per cent of the frames stay below."""
    values = np.percentile(bag.milliseconds, PERCENTILES)
    return {p: float(value) for p, value in zip(PERCENTILES, values, strict=True)}


def mean_rate(bag: BagResult) -> float:
    """Frames per second that the front end could serve."""
    mean = float(np.mean(bag.milliseconds))
    return 1e3 / mean if mean > 0 else 0.0


def _trajectory_to_json(errors: TrajectoryErrors) -> dict[str, Any]:
    return {
        **asdict(errors),
        'aligned': np.round(errors.aligned, 4).tolist(),
        'truth': np.round(errors.truth, 4).tolist(),
    }


def _bag_to_json(bag: BagResult) -> dict[str, Any]:
    odometry = None
    if bag.odometry is not None:
        errors = bag.odometry.errors
        odometry = {
            'located': bag.odometry.located,
            'bridged': bag.odometry.bridged,
            'restarts': bag.odometry.restarts,
            'errors': _trajectory_to_json(errors) if errors is not None else None,
        }
    return {
        'frames': bag.summary.frames,
        'input_hz': bag.input_rate,
        'hz': mean_rate(bag),
        'latency_ms': {f'p{p}': value for p, value in latency_percentiles(bag).items()},
        'dropped': bag.dropped,
        **bag.summary.to_json(),
        'coverage': bag.coverage,
        'relative_pose': [asdict(distance) for distance in bag.distances],
        'odometry': odometry,
        'ms': list(bag.milliseconds),
    }


def to_json(result: ReplayResult) -> dict[str, Any]:
    """A result as a JSON document."""
    return {
        'protocol': PROTOCOL,
        'settings': asdict(result.settings),
        'left_out': list(result.omitted),
        'extractors': {
            frontend.name: {
                'licence': frontend.licence,
                'bags': {bag.name: _bag_to_json(bag) for bag in frontend.bags},
            }
            for frontend in result.frontends
        },
    }


def _summary_from_json(values: dict[str, Any]) -> SequenceSummary:
    precision = None
    if 'precision' in values:
        within = {int(px.removesuffix('px')): share for px, share in values['precision'].items()}
        precision = Precision(values['precision_kind'], within, values['precision_matches'])
    return SequenceSummary(
        values['frames'],
        values['keypoints_per_frame'],
        values['matches_per_frame'],
        TrackLength(**values['track_length']),
        values['inlier_ratio'],
        precision,
    )


def _odometry_from_json(values: dict[str, Any] | None) -> OdometryResult | None:
    if values is None:
        return None
    errors = values['errors']
    if errors is not None:
        arrays = {name: np.array(errors[name], np.float64) for name in ('aligned', 'truth')}
        errors = TrajectoryErrors(**{**errors, **arrays})
    return OdometryResult(values['located'], values['bridged'], values['restarts'], errors)


def _bag_from_json(name: str, values: dict[str, Any]) -> BagResult:
    return BagResult(
        name,
        float(values['input_hz']),
        _summary_from_json(values),
        float(values['coverage']),
        tuple(values['ms']),
        int(values['dropped']),
        tuple(DistanceResult(**distance) for distance in values['relative_pose']),
        _odometry_from_json(values['odometry']),
    )


def from_json(document: dict[str, Any]) -> ReplayResult:
    """Rebuild a result from its JSON document.

    Raises:
        DataError: it is not one.
    """
    try:
        return ReplayResult(
            ReplaySettings(**document['settings']),
            tuple(
                FrontendResult(
                    name,
                    values['licence'],
                    tuple(_bag_from_json(n, bag) for n, bag in values['bags'].items()),
                )
                for name, values in document['extractors'].items()
            ),
            tuple(document['left_out']),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f'results: not of the replay protocol: {error!r}') from None


def merge(results: Sequence[ReplayResult]) -> ReplayResult:
    """Join results of different bags or front ends.

    Raises:
        DataError: settings differ, or a front end has a bag twice.
    """
    settings = results[0].settings
    licences: dict[str, str] = {}
    bags: dict[str, dict[str, BagResult]] = {}
    for result in results:
        if result.settings != settings:
            raise DataError(f'results: settings differ: {settings} and {result.settings}')
        for frontend in result.frontends:
            licences[frontend.name] = frontend.licence
            own = bags.setdefault(frontend.name, {})
            for bag in frontend.bags:
                if bag.name in own:
                    raise DataError(f"results: '{frontend.name}' has bag '{bag.name}' twice")
                own[bag.name] = bag
    return ReplayResult(
        settings,
        tuple(
            FrontendResult(name, licences[name], tuple(own[key] for key in sorted(own)))
            for name, own in bags.items()
        ),
        tuple(dict.fromkeys(line for result in results for line in result.omitted)),
    )

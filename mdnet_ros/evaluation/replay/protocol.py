"""The replay protocol: front ends track bags and are judged by tracks, times and poses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from mdnet_ros.bags.reader import BagReader
from mdnet_ros.errors import DataError, ImageError
from mdnet_ros.evaluation.replay.bag import BagSequence, check_truth_files, open_bag
from mdnet_ros.evaluation.replay.frontend import FrontendSpec
from mdnet_ros.evaluation.replay.meter import BagMeter
from mdnet_ros.evaluation.replay.results import BagResult, ReplayResult, ReplaySettings
from mdnet_ros.evaluation.reports.results import EvaluationResult, ExtractorResult
from mdnet_ros.evaluation.tracks.truth import GroundTruthError
from mdnet_ros.progress import Progress

#: Runs a front end over a bag, and appends what it had to leave out to the list.
Runner = Callable[[BagSequence, FrontendSpec, ReplaySettings, list[str]], BagResult]


def evaluate(
    bags: Sequence[Path],
    specs: Sequence[FrontendSpec],
    settings: ReplaySettings,
    ground_truth: Sequence[Path] = (),
    extrinsics: Sequence[Path] = (),
    shard: tuple[int, int] = (1, 1),
    runner: Runner | None = None,
) -> ReplayResult:
    """Replay bags through front ends.

    Broken bags and images are left out and named.

    Args:
        bags: rosbag2 folders or files.
        specs: front ends to measure.
        settings: settings of the protocol.
        ground_truth: a pose file for each bag; empty: the bags' own topics.
        extrinsics: files with camera-to-body extrinsics, one for each bag, where the ground truth
            is of the body; empty: from the bags' static transforms, or EuRoC's folder.
        shard: (i, n): only every n-th bag, from the i-th on; i from 1 to n.
        runner: runs a front end over a bag; None: :func:`replay`, every image in turn.

    Raises:
        GroundTruthError: ground truth that was asked for cannot be used.
        DataError: no bag could be measured, or pose files do not go with the bags.
        WeightsError: weights are missing.
        MissingDependencyError: a library is not installed.
    """
    if ground_truth and len(ground_truth) != len(bags):
        raise DataError(
            f'ground truth: expected one file for each of {len(bags)} bags, got {len(ground_truth)}'
        )
    if extrinsics and len(extrinsics) != len(bags):
        raise DataError(
            f'extrinsics: expected one file for each of {len(bags)} bags, got {len(extrinsics)}'
        )
    names = [bag.resolve().stem for bag in bags]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"bags: two are called '{name}'; rename one")
    measured: dict[str, list[BagResult]] = {spec.name: [] for spec in specs}
    omitted: list[str] = []
    chosen = list(range(len(bags)))[shard[0] - 1 :: shard[1]]
    check_truth_files(ground_truth, extrinsics)
    sequences = []
    # All are opened first, so that unusable ground truth fails before hours of work.
    for index in chosen:
        try:
            sequences.append(open_bag(
                bags[index], names[index], ground_truth[index] if ground_truth else None,
                extrinsics[index] if extrinsics else None, settings, omitted,
            ))
        except GroundTruthError:
            raise
        except DataError as error:
            omitted.append(str(error))
    for sequence in sequences:
        try:
            for spec in specs:
                measured[spec.name].append((runner or replay)(sequence, spec, settings, omitted))
        except DataError as error:
            omitted.append(str(error))
    if chosen and not any(measured.values()):
        raise DataError(f'bags: none could be measured: {"; ".join(omitted[:3])}')
    return EvaluationResult(
        settings,
        tuple(ExtractorResult(s.name, s.licence, tuple(measured[s.name])) for s in specs),
        tuple(dict.fromkeys(omitted)),
    )


def replay(
    sequence: BagSequence, spec: FrontendSpec, settings: ReplaySettings, omitted: list[str]
) -> BagResult:
    """Run one front end over one bag.

    Raises:
        DataError: the bag is damaged.
        WeightsError: weights are missing.
    """
    frontend, meter = spec.create(), BagMeter(sequence, settings)
    milliseconds, stamps = [], []
    count = len(sequence.stamps_ns)
    with BagReader(sequence.path) as reader:
        frames = islice(reader.images(sequence.topic), sequence.first, sequence.first + count)
        for image in Progress(frames, total=count, desc=f'{sequence.name} {spec.name}'):
            try:
                timed = frontend.track(image.image, image.stamp_ns)
            except ImageError as error:
                omitted.append(f'{sequence.name}: image at {image.stamp_ns} ns: {error}')
                continue
            milliseconds.append(round(timed.milliseconds, 3))
            stamps.append(image.stamp_ns)
            meter.add(timed.frame)
    if not stamps:
        raise DataError(f"bag '{sequence.path}': no image could be used by {spec.name}")
    return meter.result(milliseconds, count_drops(stamps, milliseconds))


def count_drops(stamps_ns: Sequence[int], milliseconds: Sequence[float]) -> int:
    """Count the frames dropped by a worker that always takes the newest waiting frame.

    Args:
        stamps_ns: time at which each frame arrives, nanoseconds, ascending.
        milliseconds: time that each frame takes.
    """
    free = -np.inf
    waiting: float | None = None
    dropped = 0
    for stamp, cost in zip(stamps_ns, milliseconds, strict=True):
        now = stamp / 1e6
        if waiting is not None and free <= now:
            free, waiting = free + waiting, None
        if free <= now:
            free = now + cost
        else:
            dropped += waiting is not None
            waiting = cost
    return dropped

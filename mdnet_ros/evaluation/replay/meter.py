"""Measurement of the tracked frames of one bag, replayed or live."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdnet_ros.data.poses import PoseTrack
from mdnet_ros.evaluation.odometry.odometry import Odometry
from mdnet_ros.evaluation.replay.bag import BagSequence
from mdnet_ros.evaluation.replay.relative_poses import RelativePoses
from mdnet_ros.evaluation.replay.results import BagResult, OdometryResult, ReplaySettings
from mdnet_ros.evaluation.tracks.statistics import EpipolarTruth, SequenceStatistics, coverage_of
from mdnet_ros.evaluation.trajectory import compare_trajectories
from mdnet_ros.features.types import TrackedFrame


class BagMeter:
    """Accumulates figures over the tracked frames of one bag, replayed or live.

    Args:
        sequence: part of the bag that is tracked.
        settings: settings of the protocol.
    """

    def __init__(self, sequence: BagSequence, settings: ReplaySettings) -> None:
        self._sequence = sequence
        self._coverage: list[float] = []
        self._relative: RelativePoses | None = None
        self._odometry: Odometry | None = None
        epipolar = None
        camera, truth = sequence.camera, sequence.truth
        if camera is not None and truth is not None:
            epipolar = EpipolarTruth(camera, truth)
            self._relative = RelativePoses(camera, truth, settings.threshold)
        if camera is not None and settings.odometry:
            self._odometry = Odometry(camera)
        self._statistics = SequenceStatistics(epipolar)

    def add(self, frame: TrackedFrame) -> None:
        """Add the next frame."""
        self._statistics.add(frame)
        self._coverage.append(coverage_of(frame))
        for part in (self._relative, self._odometry):
            if part is not None:
                part.add(frame)

    def result(self, milliseconds: Sequence[float], dropped: int) -> BagResult:
        """Return the figures.

        Args:
            milliseconds: time of each frame.
            dropped: number of dropped frames.
        """
        stamps = self._sequence.stamps_ns
        span = int(stamps[-1] - stamps[0]) / 1e9
        odometry = None
        if self._odometry is not None:
            odometry = _judge(self._odometry, self._sequence.truth, len(self._coverage))
        return BagResult(
            name=self._sequence.name,
            input_rate=(len(stamps) - 1) / span if span > 0 else 0.0,
            summary=self._statistics.summary(),
            coverage=float(np.mean(self._coverage[1:])) if len(self._coverage) > 1 else 0.0,
            milliseconds=tuple(milliseconds),
            dropped=dropped,
            distances=self._relative.results() if self._relative is not None else (),
            odometry=odometry,
        )


def _judge(odometry: Odometry, truth: PoseTrack | None, frames: int) -> OdometryResult:
    path = odometry.path()
    return OdometryResult(
        len(path) / frames,
        odometry.bridged,
        odometry.restarts,
        compare_trajectories(path, truth) if truth is not None else None,
    )

"""Measures the tracked frames of a bag: tracks, relative poses and visual odometry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdnet_ros.evaluation.odometry.odometry import Odometry
from mdnet_ros.evaluation.odometry.settings import OdometrySettings
from mdnet_ros.evaluation.replay.bag import BagSequence
from mdnet_ros.evaluation.replay.relative_poses import RelativePoses
from mdnet_ros.evaluation.replay.results import BagResult, OdometryResult, ReplaySettings
from mdnet_ros.evaluation.tracks.statistics import EpipolarTruth, SequenceStatistics, coverage_of
from mdnet_ros.evaluation.trajectory_errors import compare_trajectories
from mdnet_ros.features.types import TrackedFrame
from mdnet_ros.tracker.vins import VinsTracker


class BagMeter:
    """Measures the tracked frames of one bag, whichever front end they come from.

    Args:
        sequence: the bag.
        settings: settings of the protocol.
    """

    def __init__(self, sequence: BagSequence, settings: ReplaySettings) -> None:
        self._sequence = sequence
        self._coverage: list[float] = []
        self._relative: RelativePoses | None = None
        self._odometry: list[Odometry] = []
        self._max_tracks, self._vins = settings.max_tracks, VinsTracker()
        epipolar = None
        camera, truth = sequence.camera, sequence.truth
        if camera is not None and truth is not None:
            epipolar = EpipolarTruth(camera, truth)
            self._relative = RelativePoses(camera, truth, settings.threshold)
        if camera is not None:
            focal = float(camera.k[0, 0])
            self._odometry = [
                Odometry(focal, OdometrySettings(seed=seed)) for seed in range(settings.odometry)
            ]
        self._statistics = SequenceStatistics(epipolar)

    def add(self, frame: TrackedFrame) -> None:
        """Add the next frame."""
        self._statistics.add(frame)
        self._coverage.append(coverage_of(frame))
        if self._relative is not None:
            self._relative.add(frame)
        camera = self._sequence.camera
        if camera is None or not self._odometry:
            return
        wrong: np.ndarray | None = None
        if self._max_tracks:
            tracks = self._vins.update(frame, camera, self._max_tracks)
            if tracks is None:
                return
            track_ids, rays = tracks.ids, tracks.normalised
        else:
            track_ids, rays = frame.track_ids, camera.normalise(frame.features.keypoints)
            matches = frame.correspondences
            wrong = np.zeros(len(track_ids), bool)
            wrong[matches.indices[~matches.inlier]] = True
        for odometry in self._odometry:
            odometry.add(track_ids, rays, frame.stamp_ns, wrong)

    def result(self, milliseconds: Sequence[float], dropped: int) -> BagResult:
        """Return the metrics of the frames so far.

        Args:
            milliseconds: time of each frame.
            dropped: number of frames that were lost.
        """
        stamps = self._sequence.stamps_ns
        span = int(stamps[-1] - stamps[0]) / 1e9
        return BagResult(
            name=self._sequence.name,
            input_rate=(len(stamps) - 1) / span if span > 0 else 0.0,
            summary=self._statistics.summary(),
            coverage=float(np.mean(self._coverage[1:])) if len(self._coverage) > 1 else 0.0,
            milliseconds=tuple(milliseconds),
            dropped=dropped,
            distances=self._relative.results() if self._relative is not None else (),
            odometry=tuple(self._judge(odometry) for odometry in self._odometry),
        )

    def _judge(self, odometry: Odometry) -> OdometryResult:
        """Compare the path of a run of the odometry with the truth."""
        path, truth = odometry.path(), self._sequence.truth
        return OdometryResult(
            odometry.settings.seed,
            len(path) / max(len(self._coverage), 1),
            odometry.bridged,
            odometry.restarts,
            compare_trajectories(path, truth) if truth is not None else None,
        )

"""Metrics of a tracked sequence, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mdnet_ros.evaluation.tracks.statistics import (
    GRID,
    SequenceStatistics,
    SequenceSummary,
    coverage_of,
    tracks_by_cell,
)
from mdnet_ros.features.types import TrackedFrame


@dataclass
class FrameSeries:
    """Metrics with one entry for each frame.

    Attributes:
        stamps_ns: stamps, nanoseconds.
        keypoints: numbers of keypoints.
        matches: numbers of matches with earlier frames.
        inliers: numbers of matches that agree with the geometric model.
        age: median age of the keypoints seen before, frames; 0 without one.
        coverage: share of the cells of a grid that hold a keypoint seen before.
    """

    stamps_ns: list[int] = field(default_factory=list)
    keypoints: list[int] = field(default_factory=list)
    matches: list[int] = field(default_factory=list)
    inliers: list[int] = field(default_factory=list)
    age: list[float] = field(default_factory=list)
    coverage: list[float] = field(default_factory=list)


class SequenceMetrics:
    """Accumulates metrics over the frames of a sequence."""

    def __init__(self) -> None:
        self.series = FrameSeries()
        self._statistics = SequenceStatistics()
        self._cells = np.zeros((GRID[1], GRID[0]), np.int64)

    def add(self, frame: TrackedFrame) -> None:
        """Add the next frame."""
        self._statistics.add(frame)
        self._cells += tracks_by_cell(frame)
        old = frame.ages[frame.ages > 0]
        series = self.series
        series.stamps_ns.append(frame.stamp_ns)
        series.keypoints.append(len(frame.features))
        series.matches.append(len(frame.correspondences))
        series.inliers.append(int(frame.correspondences.inlier.sum()))
        series.age.append(float(np.median(old)) if len(old) else 0.0)
        series.coverage.append(coverage_of(frame))

    @property
    def summary(self) -> SequenceSummary:
        """Metrics of all frames together."""
        return self._statistics.summary()

    def to_json(self) -> dict[str, Any]:
        """Return the data of the page; times are in seconds from the first frame."""
        series = self.series
        first = series.stamps_ns[0] if series.stamps_ns else 0
        return {
            # JavaScript's numbers cannot hold nanoseconds.
            'stamps': [f'{s // 10**9}.{s % 10**9:09d}' for s in series.stamps_ns],
            'seconds': [round((s - first) * 1e-9, 6) for s in series.stamps_ns],
            'keypoints': series.keypoints,
            'matches': series.matches,
            'inliers': series.inliers,
            'age': series.age,
            'coverage': [round(share, 4) for share in series.coverage],
            'lengths': self._lengths(),
            'cells': self._cells.tolist(),
            'summary': self.summary.to_json(),
        }

    def _lengths(self) -> list[dict[str, Any]]:
        """Count the tracks that were seen in 2 – 3, 4 – 7, 8 – 15, … frames."""
        tracks = self._statistics.tracks_by_length()
        bins = []
        low = 2
        while low < len(tracks):
            high = 2 * low - 1
            bins.append({'frames': f'{low}–{high}', 'tracks': int(tracks[low : high + 1].sum())})
            low *= 2
        return bins

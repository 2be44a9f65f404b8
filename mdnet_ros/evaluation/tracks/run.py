"""The report of a run of the tracker over a sequence, live or from a bag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mdnet_ros.data.plain import to_plain
from mdnet_ros.evaluation.reports.tables import Column, Table
from mdnet_ros.evaluation.tracks.statistics import SequenceSummary


@dataclass(frozen=True)
class Latency:
    """Percentiles of a latency, milliseconds; 0 if nothing was measured."""

    p50: float
    p95: float
    p99: float

    @staticmethod
    def of(milliseconds: np.ndarray) -> Latency:
        """Compute the percentiles of (N,) measurements."""
        if not len(milliseconds):
            return Latency(0.0, 0.0, 0.0)
        return Latency(*(float(v) for v in np.percentile(milliseconds, [50, 95, 99])))


@dataclass(frozen=True)
class RunReport:
    """Frames, latency and tracks of a run over one sequence.

    Attributes:
        frames_in: number of images of the sequence.
        frames_processed: number of images that became tracked frames.
        drops: number of images that were dropped, by cause.
        fps: processed frames per second.
        latency: latency of a processed frame.
        latency_of: where the latency begins and ends, in words.
        summary: metrics of the tracks.
        step_ms: median time of extraction and tracking alone; None: not known.
        about: further facts for the JSON: topics, weights, settings.
    """

    frames_in: int
    frames_processed: int
    drops: Mapping[str, int]
    fps: float
    latency: Latency
    latency_of: str
    summary: SequenceSummary
    step_ms: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def frames_dropped(self) -> int:
        """Number of frames that were dropped for any cause."""
        return sum(self.drops.values())

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON document."""
        return {
            'frames_in': self.frames_in,
            'frames_processed': self.frames_processed,
            'frames_dropped': self.frames_dropped,
            'drops': dict(self.drops),
            'fps': self.fps,
            'latency_ms': to_plain(self.latency),
            'latency_of': self.latency_of,
            'step_ms': self.step_ms,
            **self.summary.to_json(),
            'about': dict(self.about),
        }

    def table(self, title: str) -> Table:
        """Return the report as a table, a row for each metric."""
        summary, latency, length = self.summary, self.latency, self.summary.track_length
        causes = ', '.join(f'{cause} {n}' for cause, n in self.drops.items() if n)
        rows = [
            ('frames in', f'{self.frames_in}'),
            ('frames processed', f'{self.frames_processed}'),
            ('frames dropped', f'{self.frames_dropped}' + (causes and f' ({causes})')),
            ('frames per second', f'{self.fps:.1f}'),
            (
                f'latency p50 / p95 / p99, ms\n({self.latency_of})',
                f'{latency.p50:.1f} / {latency.p95:.1f} / {latency.p99:.1f}',
            ),
        ]
        if self.step_ms is not None:
            rows.append(('extraction and tracking alone p50, ms', f'{self.step_ms:.1f}'))
        rows += [
            ('keypoints per frame', f'{summary.keypoints_per_frame:.0f}'),
            ('matches per frame', f'{summary.matches_per_frame:.0f}'),
            (
                'track length mean / median / p90, frames',
                f'{length.mean:.1f} / {length.median:.0f} / {length.p90:.0f}',
            ),
            ('inlier ratio', f'{summary.inlier_ratio:.3f}'),
        ]
        if summary.refined_ratio is not None:
            rows.append(('refined inlier ratio', f'{summary.refined_ratio:.3f}'))
        precision = summary.precision
        if precision is not None:
            kind = {'position': 'true position', 'epipolar': 'true epipolar line'}[precision.kind]
            limits = ' / '.join(f'{px}' for px in precision.within)
            shares = ' / '.join(
                '–' if share is None else f'{share:.3f}' for share in precision.within.values()
            )
            rows.append((f'precision within {limits} px\n(against the {kind})', shares))
        return Table((Column('metric'), Column('value')), tuple(rows), title)

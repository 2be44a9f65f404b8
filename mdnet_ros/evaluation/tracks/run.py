"""The report of a run of the tracker over a sequence, live or from a bag."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from mdnet_ros.evaluation.tracks.statistics import SequenceSummary


@dataclass(frozen=True)
class Latency:
    """Percentiles, milliseconds; 0 if nothing was measured."""

    p50: float
    p95: float
    p99: float

    @staticmethod
    def of(milliseconds: np.ndarray) -> Latency:
        """Of (N,) single measurements."""
        if not len(milliseconds):
            return Latency(0.0, 0.0, 0.0)
        return Latency(*(float(v) for v in np.percentile(milliseconds, [50, 95, 99])))


@dataclass(frozen=True)
class RunReport:
    """What happened to the frames of a sequence, and what the tracks are worth.

    Attributes:
        frames_in: images of the sequence.
        frames_processed: images whose tracks came out.
        drops: why the others did not, to their number.
        fps: processed frames a second.
        latency: from where to where it goes is told by ``latency_of``.
        latency_of: in words.
        step_ms: of the latency, the median of extraction and tracking alone; None: not known.
        summary: of the tracks.
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
        """All frames that were dropped, whatever the cause."""
        return sum(self.drops.values())

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON document."""
        return {
            'frames_in': self.frames_in,
            'frames_processed': self.frames_processed,
            'frames_dropped': self.frames_dropped,
            'drops': dict(self.drops),
            'fps': self.fps,
            'latency_ms': vars(self.latency).copy(),
            'latency_of': self.latency_of,
            'step_ms': self.step_ms,
            **self.summary.to_json(),
            'about': dict(self.about),
        }

    def print(self, title: str, console: Console | None = None) -> None:
        """The report as a table on the terminal."""
        summary, latency = self.summary, self.latency
        table = Table(title=title, box=box.SIMPLE_HEAD, show_header=False, title_justify='left')
        table.add_column('figure')
        table.add_column('value', justify='right')
        causes = ', '.join(f'{cause} {n}' for cause, n in self.drops.items() if n)
        table.add_row('frames in', str(self.frames_in))
        table.add_row('frames processed', str(self.frames_processed))
        table.add_row('frames dropped', f'{self.frames_dropped}' + (causes and f' ({causes})'))
        table.add_row('frames per second', f'{self.fps:.1f}')
        table.add_row(
            f'latency p50 / p95 / p99, ms\n({self.latency_of})',
            f'{latency.p50:.1f} / {latency.p95:.1f} / {latency.p99:.1f}',
        )
        if self.step_ms is not None:
            table.add_row('extraction and tracking alone p50, ms', f'{self.step_ms:.1f}')
        table.add_row('keypoints per frame', f'{summary.keypoints_per_frame:.0f}')
        table.add_row('matches per frame', f'{summary.matches_per_frame:.0f}')
        length = summary.track_length
        table.add_row(
            'track length mean / median / p90, frames',
            f'{length.mean:.1f} / {length.median:.0f} / {length.p90:.0f}',
        )
        table.add_row('inlier ratio', f'{summary.inlier_ratio:.3f}')
        precision = summary.precision
        if precision is not None:
            kind = {'position': 'true position', 'epipolar': 'true epipolar line'}[precision.kind]
            limits = ' / '.join(f'{px}' for px in precision.within)
            table.add_row(
                f'precision within {limits} px\n(against the {kind})',
                ' / '.join(f'{share:.3f}' for share in precision.within.values()),
            )
        (console or Console()).print(table)

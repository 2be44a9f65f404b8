"""Endurance of the tracker: memory, open files and latency over a long run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mdnet_ros.evaluation.reports.plots import PALETTE, new_figure
from mdnet_ros.evaluation.reports.tables import Column, Table
from mdnet_ros.evaluation.tracks.run import Latency

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Length of the first and the last span that are compared, seconds; a share of shorter runs.
SPAN_SECONDS = 300.0
_SHARE = 1 / 6
#: Warm-up that is not compared, since buffers still fill, seconds; a share of shorter runs.
_WARM_UP_SECONDS = 60.0
#: Largest changes from the beginning to the end: shares, and a number of files.
MAX_MEMORY_GROWTH = 0.02
MAX_LATENCY_CHANGE = 0.2
MAX_MORE_HANDLES = 2
_MEGABYTE = 2**20


@dataclass(frozen=True)
class SoakSample:
    """State of the tracker's process at one time.

    Attributes:
        seconds: time since the first image.
        memory: resident memory, bytes.
        handles: number of open files.
        received: number of images received so far.
        processed: number of these whose outputs were published.
        dropped: number of these that were dropped.
    """

    seconds: float
    memory: int
    handles: int
    received: int
    processed: int
    dropped: int


@dataclass(frozen=True)
class Check:
    """Comparison of one metric at the beginning and at the end of a run.

    Attributes:
        name: name of the metric, with its unit.
        first: value at the beginning.
        last: value at the end.
        limit: how far the two may differ, in words.
        held: whether they are within the limit.
    """

    name: str
    first: float
    last: float
    limit: str
    held: bool


@dataclass(frozen=True)
class SoakRun:
    """Record of a long run of the tracker.

    Attributes:
        samples: states of the process, in order of time.
        answered: (N,) seconds since the first image at which correspondences were received.
        latencies_ms: (N,) their latencies: image published → correspondences received.
        published: number of images sent.
        seconds: length of the run.
        about: further facts for the JSON: bag, weights, settings.
    """

    samples: tuple[SoakSample, ...]
    answered: np.ndarray
    latencies_ms: np.ndarray
    published: int
    seconds: float
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spans(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """First and last span that are compared, seconds; the first begins after the warm-up."""
        warm_up = min(_WARM_UP_SECONDS, _SHARE * self.seconds)
        length = min(SPAN_SECONDS, _SHARE * self.seconds)
        return (warm_up, warm_up + length), (self.seconds - length, self.seconds)

    def latency(self, begin: float, end: float) -> Latency:
        """Percentiles of the latency between two times, seconds since the first image."""
        return Latency.of(self.latencies_ms[(self.answered >= begin) & (self.answered <= end)])

    def checks(self) -> list[Check]:
        """Compare the end of the run with its beginning."""
        first, last = self.spans
        memory = [_median(self._within(span), 'memory') for span in (first, last)]
        handles = [_median(self._within(span), 'handles') for span in (first, last)]
        p99 = [self.latency(*span).p99 for span in (first, last)]
        served = [self._answered_within(span) for span in (first, last)]
        end = self.samples[-1] if self.samples else SoakSample(0.0, 0, 0, 0, 0, 0)
        return [
            Check(
                'resident memory, MB', memory[0] / _MEGABYTE, memory[1] / _MEGABYTE,
                f'grows by less than {MAX_MEMORY_GROWTH:.0%}',
                0 < memory[1] < (1 + MAX_MEMORY_GROWTH) * memory[0],
            ),
            Check(
                'open files', handles[0], handles[1], f'at most {MAX_MORE_HANDLES} more',
                0 < handles[1] <= handles[0] + MAX_MORE_HANDLES,
            ),
            Check(
                'latency p99, ms', p99[0], p99[1], f'within {MAX_LATENCY_CHANGE:.0%}',
                p99[0] > 0 and abs(p99[1] / p99[0] - 1) <= MAX_LATENCY_CHANGE,
            ),
            Check('images answered', served[0], served[1], 'until the end', served[1] > 0),
            Check(
                'images received, and accounted for', end.received, end.processed + end.dropped,
                'all but the one in hand and the one that waits',
                0 <= end.received - end.processed - end.dropped <= 2,
            ),
        ]  # fmt: skip

    @property
    def held(self) -> bool:
        """Whether all checks hold."""
        return all(check.held for check in self.checks())

    def windows(self, count: int = 12) -> list[dict[str, float]]:
        """Cut the run into equal parts and return the metrics of each, by name."""
        edges = np.linspace(0.0, self.seconds, count + 1)
        rows = []
        for begin, end in zip(edges[:-1], edges[1:], strict=True):
            within = self._within((begin, end))
            latency = self.latency(begin, end)
            first, last = (within[0], within[-1]) if within else (None, None)
            rows.append({
                'until_s': float(end),
                'memory_mb': _median(within, 'memory') / _MEGABYTE,
                'open_files': _median(within, 'handles'),
                'p50_ms': latency.p50,
                'p99_ms': latency.p99,
                'served': self._answered_within((begin, end)),
                'dropped': float(last.dropped - first.dropped) if first and last else 0.0,
            })
        return rows

    def _answered_within(self, span: tuple[float, float]) -> float:
        return float(np.sum((self.answered >= span[0]) & (self.answered < span[1])))

    def _within(self, span: tuple[float, float]) -> list[SoakSample]:
        return [s for s in self.samples if span[0] <= s.seconds <= span[1]]

    def tables(self) -> list[Table]:
        """Tables of the course of the run and of its checks."""
        columns = (
            Column('until, min', 2), Column('memory, MB', 1), Column('open files', 0),
            Column('p50, ms', 1), Column('p99, ms', 1), Column('served', 0),
            Column('dropped', 0),
        )
        rows = tuple((row['until_s'] / 60, *list(row.values())[1:]) for row in self.windows())
        first, last = self.spans
        judged = (
            Column('what'), Column(f'{first[0]:.0f}–{first[1]:.0f} s', 1),
            Column(f'{last[0]:.0f}–{last[1]:.0f} s', 1), Column('expected'), Column('held'),
        )
        return [
            Table(columns, rows, f'{self.published} images in {self.seconds / 60:.1f} min'),
            Table(
                judged,
                tuple((c.name, c.first, c.last, c.limit, _word(c.held)) for c in self.checks()),
                'Beginning and end',
            ),
        ]

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON document."""
        return {
            'held': self.held,
            'checks': [vars(check) for check in self.checks()],
            'spans_s': [list(span) for span in self.spans],
            'seconds': self.seconds,
            'published': self.published,
            'answered': len(self.answered),
            'latency_ms': vars(self.latency(0.0, self.seconds)),
            'windows': self.windows(),
            'samples': [vars(sample) for sample in self.samples],
            'about': dict(self.about),
        }

    def figure(self) -> Figure:
        """Plot memory, open files, latency and frames over time.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        figure = new_figure(8.0, 6.5)
        memory, latency, frames = figure.subplots(3, 1, sharex=True)
        minutes = [s.seconds / 60 for s in self.samples]
        memory.plot(minutes, [s.memory / _MEGABYTE for s in self.samples], color=PALETTE[0])
        memory.set_ylabel('resident memory, MB')
        memory.set_ylim(0, 1.2 * memory.get_ylim()[1])  # off the frame of the panel
        handles = memory.twinx()
        handles.plot(minutes, [s.handles for s in self.samples], color=PALETTE[1])
        handles.set_ylabel('open files', color=PALETTE[1])
        handles.set_ylim(bottom=0)
        rows = [row for row in self.windows(min(60, max(2, len(self.samples)))) if row['served']]
        until = [row['until_s'] / 60 for row in rows]
        for key, colour in (('p50_ms', PALETTE[2]), ('p99_ms', PALETTE[3])):
            latency.plot(until, [row[key] for row in rows], color=colour, label=key[:3])
        latency.set_ylabel('latency, ms')
        latency.set_ylim(bottom=0)
        latency.legend()
        for key, colour in (('processed', PALETTE[2]), ('dropped', PALETTE[1])):
            frames.plot(minutes, [getattr(s, key) for s in self.samples], color=colour, label=key)
        frames.set_ylabel('images')
        frames.set_xlabel('minutes')
        frames.legend()
        for span in self.spans:
            for axes in (memory, latency):
                axes.axvspan(span[0] / 60, span[1] / 60, color='0.9', zorder=0)
        return figure


def _median(samples: list[SoakSample], name: str) -> float:
    return float(np.median([getattr(s, name) for s in samples])) if samples else 0.0


def _word(held: bool) -> str:
    return 'yes' if held else 'NO'

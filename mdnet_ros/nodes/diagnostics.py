"""What the tracker tells about itself on ``/diagnostics``."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from mdnet_ros.features.types import TrackedFrame
from mdnet_ros.nodes.host import host_facts
from mdnet_ros.tracker.settings import TrackerSettings

#: How many frames the percentiles and rates look back.
_WINDOW = 300
#: Seconds after which a rate is no longer of now.
_RECENT = 5.0
#: Seconds without an image after which diagnostics say so.
SILENCE = 2.0
#: Seconds between two lines on the same cause when the second tells of something else.
_OTHER_PERIOD = 0.5
#: Diagnostics' name for the time of extraction and tracking, a part of the latency.
STEP = 'step p50/p95/p99 (ms)'
_NUMBER = re.compile(r'\d+')
_NAMES = {
    DiagnosticStatus.OK: 'OK', DiagnosticStatus.WARN: 'WARN', DiagnosticStatus.ERROR: 'ERROR',
}


class Reporter:
    """Logs each cause of trouble when it begins and then at most once in a while.

    A cause whose text differs by more than its numbers from the last one told is told sooner:
    a truncated image is another trouble than an unknown encoding.

    Args:
        log: takes one line.
        period: seconds between two lines on the same cause.
        note: told of each trouble, logged or not: cause and text.
    """

    def __init__(
        self,
        log: Callable[[str], object],
        period: float = 10.0,
        note: Callable[[str, str], object] | None = None,
    ) -> None:
        self._log = log
        self._period = period
        self._note = note
        self._lock = threading.Lock()
        self._last: dict[str, tuple[float, int, str]] = {}

    def __call__(self, cause: str, text: str) -> None:
        """Tell of a cause (a short fixed name) with the present detail."""
        if self._note is not None:
            self._note(cause, text)
        now = time.monotonic()
        kind = _NUMBER.sub('', text)
        with self._lock:
            since, unsaid, last = self._last.get(cause, (-np.inf, 0, ''))
            period = self._period if kind == last else min(self._period, _OTHER_PERIOD)
            if now - since < period:
                self._last[cause] = (since, unsaid + 1, last)
                return
            self._last[cause] = (now, 0, kind)
        self._log(text + (f' ({unsaid} more times before)' if unsaid else ''))


@dataclass
class _Window:
    """Recent events: when they happened (monotonic seconds)."""

    times: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))

    def add(self, now: float) -> None:
        self.times.append(now)

    def intervals(self, now: float) -> np.ndarray:
        recent = [t for t in self.times if now - t <= _RECENT]
        return np.diff(recent)

    def rate(self, now: float) -> float:
        intervals = self.intervals(now)
        return float(1.0 / intervals.mean()) if len(intervals) and intervals.mean() > 0 else 0.0


class Statistics:
    """Counts what happens to frames. Every frame received is processed or counted as dropped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.received = 0
        self.processed = 0
        self.lost_in_transport = 0
        self.repeated_stamps = 0
        self.dropped: Counter[str] = Counter()
        self.restarts: Counter[str] = Counter()
        self.troubles: Counter[str] = Counter()
        self._details: dict[str, str] = {}
        self.last_frame: TrackedFrame | None = None
        self.last_problem = ''
        self.last_arrival = -np.inf
        self._arrivals = _Window()
        self._outputs = _Window()
        self._drops = _Window()
        self._latencies: deque[float] = deque(maxlen=_WINDOW)
        self._steps: deque[float] = deque(maxlen=_WINDOW)
        self._stamp_ages: deque[float] = deque(maxlen=_WINDOW)

    def arrival(self) -> float:
        """A frame was received; returns when (monotonic seconds)."""
        now = time.monotonic()
        with self._lock:
            self.received += 1
            self.last_arrival = now
            self._arrivals.add(now)
        return now

    def drop(self, cause: str, detail: str = '') -> None:
        """A received frame will not be processed."""
        with self._lock:
            self.dropped[cause] += 1
            self._drops.add(time.monotonic())
            self.last_problem = detail or self.last_problem

    def trouble(self, cause: str, text: str) -> None:
        """Something is not as it should be; the note of a :class:`Reporter`."""
        with self._lock:
            self.troubles[cause] += 1
            self._details[cause] = self.last_problem = text

    def lost(self, count: int) -> None:
        """Images were published but never came."""
        with self._lock:
            self.lost_in_transport += count

    def done(
        self, frame: TrackedFrame, arrived: float, step: float, stamp_age: float, restarted: str
    ) -> None:
        """A frame's outputs were published.

        Args:
            frame: its tracks.
            arrived: as :meth:`arrival` returned it.
            step: seconds that extraction and tracking took, for the images taken together.
            stamp_age: seconds from the image's stamp to now.
            restarted: the cause if tracks began anew with it, or empty.
        """
        now = time.monotonic()
        with self._lock:
            self.processed += 1
            self.last_frame = frame
            self._outputs.add(now)
            self._latencies.append(now - arrived)
            self._steps.append(step)
            self._stamp_ages.append(stamp_age)
            if restarted:
                self.restarts[restarted] += 1

    def silence(self) -> float:
        """Seconds since the last frame was received."""
        return time.monotonic() - self.last_arrival

    def status(
        self, settings: TrackerSettings, about: dict[str, str], trouble: str
    ) -> DiagnosticStatus:
        """The present state.

        Args:
            settings: with the thresholds.
            about: facts on model and device that are told as they are.
            trouble: why no images come in, or empty.
        """
        with self._lock:
            now = time.monotonic()
            rate_in, rate_out = self._arrivals.rate(now), self._outputs.rate(now)
            intervals = self._arrivals.intervals(now)
            drops = sum(1 for t in self._drops.times if now - t <= _RECENT)
            arrivals = sum(1 for t in self._arrivals.times if now - t <= _RECENT)
            latency, step = _percentiles(self._latencies), _percentiles(self._steps)
            ages = _percentiles(self._stamp_ages)
            # Drops and restarts are counted as such below.
            others = sorted(self.troubles.keys() - self.dropped.keys() - self.restarts.keys())
            links = self.last_frame.correspondences if self.last_frame else None
            inliers = int(links.inlier.sum()) if links is not None else 0
            problems = self._problems(
                settings, trouble, now, rate_in, drops / max(1, arrivals), latency[0], inliers
            )
            values = {
                'input rate (Hz)': f'{rate_in:.2f}',
                'input jitter (ms)': f'{intervals.std() * 1e3:.2f}' if len(intervals) else '',
                'output rate (Hz)': f'{rate_out:.2f}',
                'latency p50/p95/p99 (ms)': _milliseconds(latency),
                STEP: _milliseconds(step),
                'age of stamp p50/p95/p99 (ms)': _milliseconds(ages),
                'frames received': str(self.received),
                'frames processed': str(self.processed),
                'frames dropped': str(sum(self.dropped.values())),
                **{f'dropped: {cause}': str(n) for cause, n in sorted(self.dropped.items())},
                'frames lost in transport': str(self.lost_in_transport),
                'repeated stamps': str(self.repeated_stamps),
                'restarts': str(sum(self.restarts.values())),
                **{f'restarted: {why}': str(n) for why, n in sorted(self.restarts.items())},
                'keypoints': str(len(self.last_frame.features)) if self.last_frame else '0',
                'matches': str(len(links)) if links is not None else '0',
                'inliers': str(inliers),
                **{f'trouble: {cause}': str(self.troubles[cause]) for cause in others},
                **{f'last {cause}': text for cause, text in sorted(self._details.items())},
                'last problem': self.last_problem,
                **host_facts(about.get('device', '')),
                **about,
            }
        level = max((level for level, _ in problems), default=DiagnosticStatus.OK)
        return DiagnosticStatus(
            level=level,
            message='; '.join(text for _, text in problems) or f'tracking at {rate_out:.1f} Hz',
            values=[KeyValue(key=key, value=value) for key, value in values.items()],
        )

    def _problems(
        self,
        settings: TrackerSettings,
        trouble: str,
        now: float,
        rate_in: float,
        drop_share: float,
        latency: float,
        inliers: int,
    ) -> list[tuple[bytes, str]]:
        warn, error = DiagnosticStatus.WARN, DiagnosticStatus.ERROR
        if trouble:
            return [(error, trouble)]
        if now - self.last_arrival > SILENCE:
            return [(warn, 'no image comes in')]
        problems = []
        if settings.expected_rate and rate_in < 0.8 * settings.expected_rate:
            problems.append(
                (warn, f'{rate_in:.1f} images/s come in, expected {settings.expected_rate:g}')
            )
        if drop_share > settings.warn_drops:
            causes = ', '.join(f'{cause} {n}' for cause, n in self.dropped.most_common())
            problems.append((warn, f'{drop_share:.0%} of the frames dropped ({causes})'))
        for level, limit in ((error, settings.error_latency), (warn, settings.warn_latency)):
            if latency > limit:
                problems.append((level, f'latency {latency * 1e3:.0f} ms, limit {limit * 1e3:g}'))
                break
        if self.processed > 1 and inliers < settings.warn_matches:
            problems.append((warn, f'{inliers} inlier matches, expected {settings.warn_matches}'))
        return problems


def level_name(level: bytes) -> str:
    """OK, WARN or ERROR."""
    return _NAMES.get(level, 'STALE')


def _percentiles(values: deque[float]) -> tuple[float, float, float]:
    if not values:
        return (0.0, 0.0, 0.0)
    p50, p95, p99 = np.percentile(np.array(values), [50, 95, 99])
    return (float(p50), float(p95), float(p99))


def _milliseconds(values: tuple[float, float, float]) -> str:
    return ' / '.join(f'{v * 1e3:.2f}' for v in values)

"""The tracker's counters and log lines, and its status on ``/diagnostics``."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from mdnet_ros.features.types import TrackedFrame
from mdnet_ros.nodes.host import host_facts
from mdnet_ros.tracker.job import CameraResult
from mdnet_ros.tracker.settings import TrackerSettings

#: Number of the last frames that percentiles and rates are computed from.
_WINDOW = 300
#: Seconds after which an event no longer counts for a rate.
_RECENT = 5.0
#: Seconds without an image after which diagnostics say so.
SILENCE = 2.0
#: Fewer keypoints mean that the image has no texture: no geometry can be verified with them.
_FEWEST_KEYPOINTS = 8
#: Seconds between two lines with the same cause and different texts.
_OTHER_PERIOD = 0.5
#: Key of the time of extraction and tracking, which is a part of the latency.
STEP = 'step p50/p95/p99 (ms)'
_NUMBER = re.compile(r'\d+')


class Reporter:
    """Logs problems, the same one at most once in a period.

    A text that differs from the last one of the same cause by more than its numbers is logged
    sooner: a truncated image is another problem than an unknown encoding.

    Args:
        log: writes one line.
        period: seconds between two lines with the same cause.
        note: called with cause and text of each problem, logged or not.
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
        """Report a problem by its cause, a short fixed name, and the text for this case."""
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


class _Times(deque[float]):
    """Times of the last events, monotonic seconds."""

    def __init__(self) -> None:
        super().__init__(maxlen=_WINDOW)

    def recent(self, now: float) -> list[float]:
        """Return the times that count for a rate."""
        return [t for t in self if now - t <= _RECENT]

    def rate(self, now: float) -> float:
        """Return the recent events per second."""
        intervals = np.diff(self.recent(now))
        return float(1.0 / intervals.mean()) if len(intervals) and intervals.mean() > 0 else 0.0


class CameraDiagnostics:
    """Counts of a camera's frames: each one received is processed or dropped for a cause."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.received = 0
        self.processed = 0
        self.lost_in_transport = 0
        self.repeated_stamps = 0
        self.dropped: Counter[str] = Counter()
        self.restarts: Counter[str] = Counter()
        self.problems: Counter[str] = Counter()
        self._details: dict[str, str] = {}
        self.last_frame: TrackedFrame | None = None
        self.last_problem = ''
        self.last_arrival = -np.inf
        self._arrivals = _Times()
        self._outputs = _Times()
        self._drops = _Times()
        self._latencies: deque[float] = deque(maxlen=_WINDOW)
        self._steps: deque[float] = deque(maxlen=_WINDOW)
        self._stamp_ages: deque[float] = deque(maxlen=_WINDOW)

    def arrival(self) -> float:
        """Count a frame that was received; returns the present time, monotonic seconds."""
        now = time.monotonic()
        with self._lock:
            self.received += 1
            self.last_arrival = now
            self._arrivals.append(now)
        return now

    def drop(self, cause: str, detail: str = '') -> None:
        """Count a received frame that will not be processed."""
        with self._lock:
            self.dropped[cause] += 1
            self._drops.append(time.monotonic())
            self.last_problem = detail or self.last_problem

    def problem(self, cause: str, text: str) -> None:
        """Count a problem; for the ``note`` of a :class:`Reporter`."""
        with self._lock:
            self.problems[cause] += 1
            self._details[cause] = self.last_problem = text

    def lost(self, count: int) -> None:
        """Count images that were published but not received."""
        with self._lock:
            self.lost_in_transport += count

    def done(
        self, result: CameraResult, arrived: float, step: float, stamp_age: float
    ) -> None:
        """Count a frame whose tracks were published.

        Args:
            result: the result for the frame.
            arrived: what :meth:`arrival` returned.
            step: seconds that extraction and tracking took, for the images of the job together.
            stamp_age: seconds from the image's stamp to now.
        """
        now = time.monotonic()
        with self._lock:
            self.processed += 1
            self.last_frame = result.frame
            self._outputs.append(now)
            self._latencies.append(now - arrived)
            self._steps.append(step)
            self._stamp_ages.append(stamp_age)
            self.repeated_stamps += result.repeated
            if result.restart is not None:
                self.restarts[result.restart.cause] += 1

    def silence(self) -> float:
        """Return the seconds since the last frame was received."""
        return time.monotonic() - self.last_arrival

    def status(
        self, settings: TrackerSettings, about: dict[str, str], silence_reason: str
    ) -> DiagnosticStatus:
        """Return the status of the camera.

        Args:
            settings: has the thresholds.
            about: facts about network and device, which are added as they are.
            silence_reason: why no images are received, or empty.
        """
        with self._lock:
            now = time.monotonic()
            rate_in, rate_out = self._arrivals.rate(now), self._outputs.rate(now)
            arrivals, drops = self._arrivals.recent(now), self._drops.recent(now)
            intervals = np.diff(arrivals)
            latency, step = _percentiles(self._latencies), _percentiles(self._steps)
            ages = _percentiles(self._stamp_ages)
            # Drops and restarts have counts of their own below.
            others = sorted(self.problems.keys() - self.dropped.keys() - self.restarts.keys())
            matches = self.last_frame.correspondences if self.last_frame else None
            inliers = int(matches.inlier.sum()) if matches is not None else 0
            problems = self._exceeded(
                settings, silence_reason, now, rate_in, len(drops) / max(1, len(arrivals)),
                latency[0],
                inliers,
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
                'matches': str(len(matches)) if matches is not None else '0',
                'inliers': str(inliers),
                **{f'problem: {cause}': str(self.problems[cause]) for cause in others},
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

    def _exceeded(
        self,
        settings: TrackerSettings,
        silence_reason: str,
        now: float,
        rate_in: float,
        drop_share: float,
        latency: float,
        inliers: int,
    ) -> list[tuple[bytes, str]]:
        """Return level and text for each threshold that is exceeded."""
        warn, error = DiagnosticStatus.WARN, DiagnosticStatus.ERROR
        if silence_reason:
            return [(error, silence_reason)]
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
        keypoints = len(self.last_frame.features) if self.last_frame else 0
        if self.processed and keypoints < min(_FEWEST_KEYPOINTS, settings.max_keypoints):
            # That nothing is matched then goes without saying.
            limited = settings.mask or settings.score_threshold
            where = ' where mask and score_threshold allow keypoints' if limited else ''
            problems.append((warn, f'image has no texture{where}'))
        elif self.processed > 1 and inliers < settings.warn_matches:
            problems.append((warn, f'{inliers} inlier matches, expected {settings.warn_matches}'))
        return problems


def _percentiles(values: deque[float]) -> tuple[float, float, float]:
    if not values:
        return (0.0, 0.0, 0.0)
    p50, p95, p99 = np.percentile(np.array(values), [50, 95, 99])
    return (float(p50), float(p95), float(p99))


def _milliseconds(values: tuple[float, float, float]) -> str:
    return ' / '.join(f'{v * 1e3:.2f}' for v in values)

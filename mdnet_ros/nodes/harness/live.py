"""Runs the tracker node in a process of its own: plays a bag into it and records its outputs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rclpy
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.serialization import deserialize_message
from rclpy.signals import SignalHandlerOptions

from mdnet_ros.bags.reader import COMPRESSED_IMAGE, BagReader, RawMessage
from mdnet_ros.bags.writer import BagWriter
from mdnet_ros.errors import DataError
from mdnet_ros.nodes.diagnostics import STEP
from mdnet_ros.nodes.environment import ros_environment
from mdnet_ros.nodes.executors import executor_of, spinning
from mdnet_ros.nodes.player import BagPlayer, PlaySettings
from mdnet_ros.nodes.raw import header_stamp
from mdnet_ros.nodes.recorder import TopicRecorder
from mdnet_ros.progress import Progress
from mdnet_ros.tracker.settings import TrackerSettings

DIAGNOSTICS = '/diagnostics'
#: Topic of the tracker that answers each image.
ANSWER = 'correspondences'
#: Seconds that the tracker may take to load its network and create its topics.
START = 120.0
#: Seconds that the tracker may take for the images it has after the last one was sent.
_FINISH = 30.0
#: Seconds to wait for discovery: publishers learn of subscribers later than the reverse.
_SETTLE = 0.5
_DIAGNOSTICS_PERIOD = 0.2
_DROPPED = 'dropped: '


@dataclass(frozen=True)
class NodeCounters:
    """The tracker's counters on ``/diagnostics``.

    Attributes:
        received: number of images received.
        processed: number of images whose outputs were published.
        dropped: number of images dropped, by cause.
        lost_in_transport: number of images that the middleware lost.
        step_ms: median of the recent times of extraction and tracking, milliseconds.
    """

    received: int = 0
    processed: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    lost_in_transport: int = 0
    step_ms: float = 0.0

    @property
    def uncounted(self) -> int:
        """Number of images received that are neither processed nor counted as dropped."""
        return self.received - self.processed - sum(self.dropped.values())

    @staticmethod
    def of(message: DiagnosticArray) -> NodeCounters | None:
        """Return the counters in a message; None if it is not from the tracker."""
        for status in message.status:
            if status.name.endswith(': tracker'):
                values = {v.key: v.value for v in status.values}
                return NodeCounters(
                    int(values['frames received']),
                    int(values['frames processed']),
                    {
                        key.removeprefix(_DROPPED): int(value)
                        for key, value in values.items()
                        if key.startswith(_DROPPED)
                    },
                    int(values['frames lost in transport']),
                    float(values[STEP].split('/')[0]),
                )
        return None


@dataclass(frozen=True)
class LiveRun:
    """Result of a live run.

    Attributes:
        published: number of images sent.
        answered: number of these images for which correspondences of the same stamp came back.
        foreign: number of correspondences messages with a stamp that no image had.
        counters: the tracker's counters at the end.
        latencies_ms: (answered,) image published → correspondences received, on one clock.
        seconds: time from the first image to the last answer.
    """

    published: int
    answered: int
    foreign: int
    counters: NodeCounters
    latencies_ms: np.ndarray
    seconds: float


class _Stopwatch:
    """Records when images were sent and answered, and the tracker's counters."""

    def __init__(self, image_topic: str, bar: Progress) -> None:
        self.sent: dict[int, int] = {}
        self.answered: dict[int, int] = {}
        self.foreign = 0
        self.counters = NodeCounters()
        self._image_topic = image_topic
        self._bar = bar

    def on_publish(self, message: RawMessage, now: int) -> None:
        if message.topic == self._image_topic:
            self.sent[header_stamp(message.data)] = now
            self._bar.update()

    def on_message(self, topic: str, data: bytes, now: int) -> None:
        if topic == ANSWER:
            stamp = header_stamp(data)
            if stamp in self.sent:
                self.answered.setdefault(stamp, now)
            else:
                self.foreign += 1
        elif topic == DIAGNOSTICS:
            self.counters = NodeCounters.of(
                deserialize_message(data, DiagnosticArray)
            ) or self.counters

    def run(self) -> LiveRun:
        latencies = np.array([now - self.sent[s] for s, now in self.answered.items()], np.float64)
        begin = min(self.sent.values(), default=0)
        end = max(self.answered.values(), default=begin)
        return LiveRun(
            len(self.sent), len(self.answered), self.foreign, self.counters, latencies * 1e-6,
            (end - begin) * 1e-9,
        )


def run_live(
    bag: BagReader,
    image_topic: str,
    camera_info_topic: str | None,
    settings: TrackerSettings,
    recording: BagWriter,
    log: Path,
    *,
    rate: float = 1.0,
    lockstep: bool = False,
    progress: bool = False,
) -> LiveRun:
    """Play a bag into the tracker node and record what it publishes.

    The tracker runs in a process of its own on this machine, on an unused ROS domain if one can be
    found. This process sends the images and receives the answers, so that latencies are measured
    on one clock.

    Args:
        bag: the open bag.
        image_topic: topic of the images, see :meth:`BagReader.image_topic`.
        camera_info_topic: topic of the camera's calibration, or None.
        settings: settings of the tracker.
        recording: a new bag, not yet entered, for keypoints, correspondences, tracks and
            diagnostics.
        log: file for the tracker's output.
        rate: speed of playing; 1: as recorded.
        lockstep: send each image as soon as the last one was answered.
        progress: show a progress bar.

    Raises:
        DataError: if the tracker does not start, or the recording cannot be written.
    """
    with tracker_process(bag, image_topic, camera_info_topic, settings, log) as tracker:
        return _exchange(
            bag, image_topic, camera_info_topic, settings, recording,
            PlaySettings(
                rate=rate, lockstep=ANSWER if lockstep else '', wait=START,
                topics=played_topics(image_topic, camera_info_topic),
            ),
            tracker.check, progress,
        )  # fmt: skip


def played_topics(image_topic: str, camera_info_topic: str | None) -> tuple[str, ...]:
    """Return the topics of a bag that are played to the tracker, the calibration first."""
    return tuple(topic for topic in (camera_info_topic, image_topic) if topic)


@dataclass(frozen=True)
class TrackerHandle:
    """A tracker in a process of its own.

    Attributes:
        pid: id of the process.
        check: raises DataError with the last line of the log if the process has ended.
    """

    pid: int
    check: Callable[[], None]


@contextmanager
def tracker_process(
    bag: BagReader,
    image_topic: str,
    camera_info_topic: str | None,
    settings: TrackerSettings,
    log: Path,
) -> Iterator[TrackerHandle]:
    """Run the tracker while the block runs, on an unused ROS domain if one can be found.

    ROS is initialised in this process for the same domain. Both find nodes on this machine only.

    Args:
        bag: the open bag whose images will be sent.
        image_topic: topic of the images, see :meth:`BagReader.image_topic`.
        camera_info_topic: topic of the camera's calibration, or None.
        settings: settings of the tracker.
        log: file for the tracker's output.
    """
    with _domain() as domain_id:
        environment = ros_environment(
            os.environ, domain_id=domain_id, localhost=True, log_dir=log.parent / 'ros'
        )
        os.environ.update(environment)
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        try:
            compressed = bag.topics[image_topic] == COMPRESSED_IMAGE
            remaps = {'image/compressed' if compressed else 'image': image_topic}
            if camera_info_topic is not None:
                remaps['camera_info'] = camera_info_topic
            transport = 'compressed' if compressed else 'raw'
            parameters = vars(settings) | {
                'image_transport': transport, 'diagnostics_period': _DIAGNOSTICS_PERIOD
            }
            with _tracker(parameters, remaps, environment, log) as handle:
                yield handle
        finally:
            rclpy.try_shutdown()


def _exchange(
    bag: BagReader,
    image_topic: str,
    camera_info_topic: str | None,
    settings: TrackerSettings,
    recording: BagWriter,
    play: PlaySettings,
    alive: Callable[[], None],
    progress: bool,
) -> LiveRun:
    node = Node('mdnet_live')
    bar = Progress(
        desc='live', total=bag.counts[image_topic], unit='frame', disable=not progress
    )
    watch = _Stopwatch(image_topic, bar)
    topics = ['keypoints', ANSWER, DIAGNOSTICS]
    if settings.vins_layout != 'none' and camera_info_topic is not None:
        topics.append('tracks')
    player = BagPlayer(node, bag, play, watch.on_publish)
    with (
        bar,
        TopicRecorder(node, recording, topics, watch.on_message) as recorder,
        spinning(executor_of(node)),
    ):
        deadline = time.monotonic() + START
        while True:
            alive()
            with suppress(DataError):
                recorder.wait_until_subscribed(0.2)
                break
            if recorder.failed:
                break
            if time.monotonic() > deadline:
                raise DataError(f'the tracker did not appear within {START:g} s')
        time.sleep(_SETTLE)
        player.play()
        _wait_until_idle(watch, alive)
    node.destroy_node()
    return watch.run()


def _wait_until_idle(watch: _Stopwatch, alive: Callable[[], None]) -> None:
    """Wait, at most for a while, until the tracker's counters add up and do not change."""
    deadline = time.monotonic() + _FINISH
    last, since = None, time.monotonic()
    while time.monotonic() < deadline:
        alive()
        state = (watch.counters, len(watch.answered))
        if state != last or watch.counters.uncounted:
            last, since = state, time.monotonic()
        elif time.monotonic() - since > 5 * _DIAGNOSTICS_PERIOD:
            return
        time.sleep(0.05)


@contextmanager
def _domain() -> Iterator[int | None]:
    """Yield a ROS domain id that is unused on this machine; None if that is unknown."""
    try:
        from domain_coordinator import domain_id
    except ImportError:
        yield None
        return
    with domain_id() as number:
        yield int(number)


@contextmanager
def _tracker(
    parameters: dict[str, object], remaps: dict[str, str], environment: dict[str, str], log: Path
) -> Iterator[TrackerHandle]:
    """Run the tracker process, without ROS in this process."""
    file = log.with_name('tracker.yaml')
    file.write_text(yaml.safe_dump({'/**': {'ros__parameters': parameters}}))
    command = [sys.executable, '-m', 'mdnet_ros.nodes.tracker', '--ros-args']
    command += ['--params-file', str(file)]
    for old, new in remaps.items():
        command += ['-r', f'{old}:={new}']
    with log.open('wb') as out:
        process = subprocess.Popen(
            command, env=environment, stdout=out, stderr=subprocess.STDOUT,
            start_new_session=True,  # SIGINT is for this process, which then stops the tracker
        )

    def alive() -> None:
        if process.poll() is not None:
            lines = log.read_text(errors='replace').strip().splitlines()
            raise DataError(
                f'the tracker ended with code {process.returncode}: {lines[-1] if lines else ""}'
            )

    try:
        yield TrackerHandle(process.pid, alive)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(5.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

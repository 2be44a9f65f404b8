"""Endurance test: plays a bag to the tracker node again and again, and observes the process."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import PointCloud2

from mdnet_ros.bags.reader import BagReader, RawMessage
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.benchmark.endurance import SoakRun, SoakSample
from mdnet_ros.nodes.executors import executor_of, spinning
from mdnet_ros.nodes.harness.live import (
    ANSWER,
    DIAGNOSTICS,
    START,
    NodeCounters,
    TrackerHandle,
    played_topics,
    tracker_process,
)
from mdnet_ros.nodes.host import open_files, resident_memory
from mdnet_ros.nodes.player import BagPlayer, PlaySettings
from mdnet_ros.nodes.raw import header_stamp
from mdnet_ros.progress import Progress
from mdnet_ros.tracker.settings import TrackerSettings

#: Number of samples in a run, and the shortest time between two samples, seconds.
_SAMPLES = 600
_SHORTEST_INTERVAL = 0.1
_QUEUE = 10


class _Watch:
    """Records when images were sent and answered; a stamp is repeated in every round."""

    def __init__(self, image_topic: str) -> None:
        self.counters = NodeCounters()
        self.published = 0
        self.begin = 0.0
        self.answered: list[float] = []
        self.latencies: list[float] = []
        self._image_topic = image_topic
        self._sent: dict[int, float] = {}

    def on_publish(self, message: RawMessage, now: int) -> None:
        if message.topic != self._image_topic:
            return
        seconds = now * 1e-9
        self.begin = self.begin or seconds
        self.published += 1
        self._sent[header_stamp(message.data)] = seconds

    def on_answer(self, data: bytes) -> None:
        now = time.perf_counter_ns() * 1e-9
        sent = self._sent.pop(header_stamp(data), None)
        if sent is not None:
            self.answered.append(now - self.begin)
            self.latencies.append((now - sent) * 1e3)

    def on_diagnostics(self, message: DiagnosticArray) -> None:
        self.counters = NodeCounters.of(message) or self.counters

    @property
    def seconds(self) -> float:
        """Seconds since the first image; 0 before it."""
        return time.perf_counter_ns() * 1e-9 - self.begin if self.begin else 0.0


def soak(
    bag: BagReader,
    image_topic: str,
    camera_info_topic: str | None,
    settings: TrackerSettings,
    seconds: float,
    log: Path,
    *,
    rate: float = 1.0,
    progress: bool = False,
) -> SoakRun:
    """Play a bag repeatedly to the tracker node in a process of its own, and observe the process.

    Args:
        bag: the open bag.
        image_topic: topic of the images, see :meth:`BagReader.image_topic`.
        camera_info_topic: topic of the camera's calibration, or None.
        settings: settings of the tracker.
        seconds: length of the run from the first image on.
        log: file for the tracker's output.
        rate: speed of playing; 1: as recorded.
        progress: show a progress bar.

    Raises:
        DataError: if the tracker does not start, or ends before its time.
    """
    with tracker_process(bag, image_topic, camera_info_topic, settings, log) as tracker:
        node = Node('mdnet_soak')
        watch = _Watch(image_topic)
        queue = QoSProfile(depth=_QUEUE)
        node.create_subscription(PointCloud2, ANSWER, watch.on_answer, queue, raw=True)
        # Without a subscriber the tracker would not publish them.
        node.create_subscription(PointCloud2, 'keypoints', lambda data: None, queue, raw=True)
        node.create_subscription(DiagnosticArray, DIAGNOSTICS, watch.on_diagnostics, queue)
        topics = played_topics(image_topic, camera_info_topic)
        player = BagPlayer(
            node, bag, PlaySettings(rate=rate, loop=True, wait=START, topics=topics),
            watch.on_publish,
        )
        stop, samples = threading.Event(), list[SoakSample]()
        with spinning(executor_of(node)):
            watcher = threading.Thread(
                target=_sample, args=(watch, tracker, seconds, stop, samples, progress),
                name='soak',
            )
            watcher.start()
            try:
                player.play(stop)
            finally:
                stop.set()
                watcher.join()
        node.destroy_node()
        tracker.check()
    return SoakRun(
        tuple(samples), np.array(watch.answered), np.array(watch.latencies), watch.published,
        seconds,
    )


def _sample(
    watch: _Watch,
    tracker: TrackerHandle,
    seconds: float,
    stop: threading.Event,
    samples: list[SoakSample],
    progress: bool,
) -> None:
    """Sample the tracker process until the time is over or it has ended; then stop the player."""
    interval = max(_SHORTEST_INTERVAL, seconds / _SAMPLES)
    bar_format = '{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s{postfix}'
    with (
        Progress(desc='soak', total=seconds, disable=not progress, bar_format=bar_format) as bar,
        suppress(DataError),
    ):
        while not stop.wait(interval):
            tracker.check()
            now, counters = watch.seconds, watch.counters
            if not now:
                continue
            sample = SoakSample(
                now, resident_memory(tracker.pid), open_files(tracker.pid),
                counters.received, counters.processed, sum(counters.dropped.values()),
            )
            samples.append(sample)
            text = f'{sample.memory / 2**20:.0f} MB, {sample.processed} served'
            bar.set_postfix_str(text, refresh=False)
            bar.update(min(now, seconds) - bar.n)
            if now >= seconds:
                break
    stop.set()

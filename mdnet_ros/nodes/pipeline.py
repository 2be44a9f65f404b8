"""The images' way through the node: from their arrival to what is published of them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from sensor_msgs.msg import CompressedImage, Image

from mdnet_ros.errors import ImageError
from mdnet_ros.nodes.diagnostics import Reporter, Statistics
from mdnet_ros.nodes.images import ImageConverter, check
from mdnet_ros.nodes.inputs import Inputs
from mdnet_ros.nodes.mailbox import Mailbox
from mdnet_ros.nodes.messages import stamp_nanoseconds
from mdnet_ros.nodes.outputs import Outputs, PairOutputs
from mdnet_ros.tracker.camera import NO_CALIBRATION, Processed
from mdnet_ros.tracker.engine import Engine, GrayImage, ProcessedGroup, StereoProcessed
from mdnet_ros.tracker.grouping import StampGrouper


def one_line(error: Exception) -> str:
    """What an error that was not foreseen says."""
    return ' '.join(f'{type(error).__name__}: {error}'.split())


class Camera:
    """One camera of the node: its topics, and what is counted and told of it.

    Args:
        number: its place among the cameras.
        name: below which its topics lie; empty: none.
        warn: takes a line for the log.
    """

    def __init__(self, number: int, name: str, warn: Callable[[str], object]) -> None:
        self.number = number
        self.name = name
        self.statistics = Statistics()
        self.report = Reporter(
            lambda line: warn(f'{name}: {line}' if name else line), note=self.statistics.trouble
        )
        self.inputs: Inputs | None = None
        self.outputs: Outputs | None = None

    def dropped(self, cause: str, detail: str) -> None:
        """Count an image that cannot be used, and tell why."""
        self.statistics.drop(cause, detail)
        self.report(cause, f'frame dropped, {cause}: {detail}')


@dataclass(frozen=True)
class _Arrival:
    """An image that came; a broken one stands for its camera, and is counted already."""

    message: Image | CompressedImage
    received: float
    broken: bool


@dataclass(frozen=True)
class _Served:
    """An image whose links are published; the rest is to follow."""

    camera: Camera
    message: Image | CompressedImage
    done: Processed


class Pipeline:
    """Brings the cameras' images together, tracks the newest ones and publishes what comes of it.

    Callbacks leave images in a mailbox that holds one group, the newest. A worker takes it,
    tracks it and publishes what odometry waits for. A second thread publishes the rest,
    keypoints with their descriptors and pictures, while the worker has the next images in hand;
    it holds one group, so everything comes in the order of the images and nothing piles up.

    Args:
        engine: with the present settings.
        cameras: with their outputs, in the order of the engine's.
        pair: outputs of a stereo pair, if it is one.
        converter: of the images.
        now: the ROS time in nanoseconds.
    """

    def __init__(
        self,
        engine: Engine,
        cameras: Sequence[Camera],
        pair: PairOutputs | None,
        converter: ImageConverter,
        now: Callable[[], int],
    ) -> None:
        self._engine, self._cameras, self._pair = engine, cameras, pair
        self._converter, self._now = converter, now
        #: What came of the last stereo pair.
        self.stereo: StereoProcessed | None = None
        self._arriving = threading.Lock()  # groups go into the mailbox in their order
        self._grouper: StampGrouper[_Arrival] = StampGrouper(len(cameras))
        self._mailbox: Mailbox[tuple[_Arrival, ...]] = Mailbox()
        self._rest: queue.Queue[list[_Served] | None] = queue.Queue(maxsize=1)
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (('tracker', self._track), ('publisher', self._publish_rest))
        ]
        for thread in self._threads:
            thread.start()

    def add(self, camera: Camera, message: Image | CompressedImage) -> None:
        """Take an image of a camera; returns at once."""
        received, broken = camera.statistics.arrival(), False
        try:
            check(message)
        except ImageError as error:  # before it could take the place of a good one
            camera.dropped('bad image', str(error))
            broken = True
        arrival = _Arrival(message, received, broken)
        with self._arriving:
            difference = self._engine.settings.max_stamp_difference
            self._grouper.max_difference_ns = round(difference * 1e9)
            stamp = stamp_nanoseconds(message.header)
            grouped = self._grouper.add(camera.number, stamp, arrival)
            for number, left_over in grouped.left_over:
                if not left_over.broken:
                    self._cameras[number].dropped('no partner', self._no_partner(number))
            if grouped.group is not None and not all(one.broken for one in grouped.group):
                self._count(self._mailbox.put(grouped.group), 'overload')

    def stop(self, seconds: float) -> None:
        """Take no more images; wait so long for what is in hand to be published."""
        with self._arriving:
            self._count(self._mailbox.close(), 'deactivated')
            for number, arrival in self._grouper.clear():
                if not arrival.broken:
                    self._cameras[number].statistics.drop('deactivated')
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _count(self, group: tuple[_Arrival, ...] | None, cause: str) -> None:
        for camera, arrival in zip(self._cameras, group or (), strict=False):
            if not arrival.broken:
                camera.statistics.drop(cause)

    def _no_partner(self, number: int) -> str:
        others = ', '.join(camera.name for camera in self._cameras if camera.number != number)
        within = self._engine.settings.max_stamp_difference
        return f'no image of {others} with ' + (
            f'a stamp within {within:g} s (max_stamp_difference)' if within else
            'the same stamp; set max_stamp_difference where the cameras are not triggered together'
        )

    def _track(self) -> None:
        while (group := self._mailbox.take()) is not None:
            waiting = {
                number: arrival for number, arrival in enumerate(group) if not arrival.broken
            }
            try:
                self._serve(waiting)
            except Exception as error:  # the node lives on whatever a frame brings
                for number in waiting:
                    self._cameras[number].dropped('failed', one_line(error))
        self._rest.put(None)

    def _serve(self, waiting: dict[int, _Arrival]) -> None:
        """Track images, by the camera's number; takes away each one that is counted."""
        images: dict[int, GrayImage] = {}
        refused: dict[int, ImageError] = {}
        for number, arrival in waiting.items():
            stamp = stamp_nanoseconds(arrival.message.header)
            try:
                images[number] = GrayImage(self._converter.gray(arrival.message), stamp)
            except ImageError as error:
                refused[number] = error
        begin = time.monotonic()
        group = self._engine.process_group(images)
        step = time.monotonic() - begin
        for number, reason in (refused | group.refused).items():
            self._cameras[number].dropped('bad image', str(reason))
            del waiting[number]
        served = [
            _Served(self._cameras[number], waiting[number].message, done)
            for number, done in group.done.items()
        ]
        settings = self._engine.settings
        for one in served:
            if one.camera.outputs is not None:
                one.camera.outputs.publish_links(one.done, one.message.header, settings)
        if self._pair is not None and 0 in group.done:
            header = waiting[0].message.header
            self.stereo = group.stereo
            self._pair.publish(
                group.done[0], group.done.get(1), group.stereo, header, settings
            )
        for one in served:
            arrival = waiting.pop(one.camera.number)
            age = (self._now() - one.done.frame.stamp_ns) * 1e-9
            restart = one.done.restart.cause if one.done.restart else ''
            one.camera.statistics.done(one.done.frame, arrival.received, step, age, restart)
        self._rest.put(served)
        self._tell(group)

    def _publish_rest(self) -> None:
        while (served := self._rest.get()) is not None:
            for one in served:
                try:
                    self._publish(one)
                except Exception as error:
                    one.camera.report('failed', f'not all published: {one_line(error)}')

    def _publish(self, one: _Served) -> None:
        outputs, settings, header = one.camera.outputs, self._engine.settings, one.message.header
        if outputs is not None:
            outputs.publish_keypoints(one.done, header, settings)
            image = partial(self._converter.bgr, one.message)
            outputs.publish_overlay(one.done, header, settings, image)

    def _tell(self, group: ProcessedGroup) -> None:
        for number, done in group.done.items():
            camera = self._cameras[number]
            if done.restart is not None:
                camera.report(done.restart.cause, f'tracks begin anew: {done.restart}')
            if done.repeated:
                camera.statistics.repeated_stamps += 1
                camera.report(
                    'repeated stamp', 'two images with the same stamp, velocities are unknown'
                )
            if done.calibration_error:
                camera.report('calibration', f'no tracks published: {done.calibration_error}')
            if done.fell_back:
                camera.report(
                    'memory', 'the GPU has no memory left: the network runs on the CPU now'
                )
        if group.stereo is not None and group.stereo.calibration_error not in ('', NO_CALIBRATION):
            self._cameras[0].report(
                'stereo calibration',
                f'left-right matches are checked without it: {group.stereo.calibration_error}',
            )

"""An image's way through the node, from the subscription to the publishers.

A subscription calls :meth:`Pipeline.on_image`, which leaves the image in a mailbox. A worker
thread takes the newest images, makes a job of them with the settings in force, has the engine
process it and publishes the tracks. A second thread publishes the keypoints and the overlay.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping, Sequence

from rclpy.clock import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mdnet_ros.data.camera import camera_of_info, rectified_by_name
from mdnet_ros.data.headers import stamp_nanoseconds
from mdnet_ros.errors import DataError, ImageError
from mdnet_ros.nodes.image_conversion import ImageConverter, ReceivedImage, check
from mdnet_ros.nodes.mailbox import Mailbox
from mdnet_ros.nodes.node_camera import NodeCamera
from mdnet_ros.nodes.outputs import PairOutputs
from mdnet_ros.tracker.camera_tracker import NO_CALIBRATION
from mdnet_ros.tracker.engine import Engine
from mdnet_ros.tracker.grouping import StampGrouper
from mdnet_ros.tracker.job import Job, JobResult, StereoResult


class Pipeline:
    """Groups the images of the cameras by stamp, tracks the newest group and publishes results.

    The mailbox holds one group: the newest replaces one that was not taken in time, which is
    counted as dropped. The queue between worker and publishing thread holds one result, so
    messages are published in the order of the images and nothing piles up.

    Args:
        engine: processes the images.
        cameras: the cameras with their outputs, in the order of the engine's.
        pair: outputs of the stereo pair, if there is one.
        converter: decodes the images.
        clock: the node's clock.

    Attributes:
        stereo: the result of the last stereo pair.
    """

    def __init__(
        self,
        engine: Engine,
        cameras: Sequence[NodeCamera],
        pair: PairOutputs | None,
        converter: ImageConverter,
        clock: Clock,
    ) -> None:
        self._engine, self._cameras, self._pair = engine, cameras, pair
        self._converter, self._clock = converter, clock
        self.stereo: StereoResult | None = None
        self._grouping = threading.Lock()  # groups go into the mailbox in their order
        #: None stands for a broken image, which is counted when it is received.
        self._grouper: StampGrouper[ReceivedImage | None] = StampGrouper(len(cameras))
        self._mailbox: Mailbox[Mapping[int, ReceivedImage]] = Mailbox()
        self._results: queue.Queue[JobResult[ReceivedImage] | None] = queue.Queue(maxsize=1)
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (('tracker', self._run_worker), ('publisher', self._run_publisher))
        ]
        for thread in self._threads:
            thread.start()

    # Called by the subscriptions, in the executor's threads.

    def on_image(self, camera: NodeCamera, message: Image | CompressedImage) -> None:
        """Receive an image of a camera; returns at once."""
        received = camera.diagnostics.arrival()
        stamp = stamp_nanoseconds(message.header)
        image: ReceivedImage | None = ReceivedImage(message, stamp, received, self._converter)
        try:
            check(message)
        except ImageError as error:  # found now, before it could replace a good image
            camera.drop('bad image', str(error))
            image = None
        with self._grouping:
            within = round(self._engine.configuration.settings.max_stamp_difference * 1e9)
            grouped = self._grouper.add(camera.number, stamp, image, within)
            for number, left_over in grouped.left_over:
                if left_over is not None:
                    self._cameras[number].drop('no partner', self._no_partner(number))
            group = {n: item for n, item in enumerate(grouped.group or ()) if item is not None}
            if group and (replaced := self._mailbox.put(group)) is not None:
                self._count(replaced, 'overload')

    def on_camera_info(self, camera: NodeCamera, message: CameraInfo) -> None:
        """Use a calibration from the next image on."""
        rectified = self._engine.configuration.settings.rectified
        tracker = self._engine.cameras[camera.number]
        try:
            tracker.model = camera_of_info(message, rectified)
        except DataError as error:
            tracker.unusable = str(error)
            kept = '; the last good one is kept' if tracker.model is not None else ''
            camera.report('camera_info', f'{error}{kept}')
            return
        if note := rectified_by_name(tracker.model, camera.image_topic, rectified):
            camera.report('camera_info', note)

    def on_mask(self, camera: NodeCamera, message: Image) -> None:
        """Use a region of interest from the next image on; an empty image means everywhere."""
        try:
            empty = not message.width and not message.height
            mask = None if empty else self._converter.gray(message)
        except ImageError as error:
            camera.report('mask', f'mask: {error}; the last good one is kept')
            return
        self._engine.cameras[camera.number].mask = mask

    def stop(self, seconds: float) -> None:
        """Take no more images; wait up to some seconds until the present ones are published."""
        with self._grouping:
            self._count(self._mailbox.close() or {}, 'deactivated')
            for number, image in self._grouper.clear():
                if image is not None:
                    self._cameras[number].diagnostics.drop('deactivated')
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _count(self, dropped: Mapping[int, ReceivedImage], cause: str) -> None:
        for number in dropped:
            self._cameras[number].diagnostics.drop(cause)

    def _no_partner(self, number: int) -> str:
        others = ', '.join(camera.name for camera in self._cameras if camera.number != number)
        within = self._engine.configuration.settings.max_stamp_difference
        return f'no image of {others} with ' + (
            f'a stamp within {within:g} s (max_stamp_difference)' if within else
            'the same stamp; set max_stamp_difference where the cameras are not triggered together'
        )

    # The worker thread.

    def _run_worker(self) -> None:
        while (images := self._mailbox.take()) is not None:
            uncounted = set(images)
            try:
                self._process(Job(self._engine.configuration, images), uncounted)
            except Exception as error:  # no image may end the node
                for number in uncounted:
                    self._cameras[number].drop('failed', one_line(error))
        self._results.put(None)

    def _process(self, job: Job[ReceivedImage], uncounted: set[int]) -> None:
        """Process a job and publish its tracks; removes the cameras counted from ``uncounted``."""
        result = self._engine.process_job(job)
        settings = job.configuration.settings
        for number, error in result.refused.items():
            self._cameras[number].drop('bad image', str(error))
            uncounted.discard(number)
        for number, done in result.cameras.items():
            outputs = self._cameras[number].outputs
            if outputs is not None:
                outputs.publish_tracks(done, job.images[number].message.header, settings)
        if self._pair is not None and 0 in result.cameras:
            self.stereo = result.stereo
            self._pair.publish(result, job.images[0].message.header)
        for number, done in result.cameras.items():
            age = (self._clock.now().nanoseconds - done.frame.stamp_ns) * 1e-9
            self._cameras[number].diagnostics.done(
                done, job.images[number].received, result.seconds, age
            )
            uncounted.discard(number)
        self._results.put(result)
        self._report(result)

    def _report(self, result: JobResult[ReceivedImage]) -> None:
        """Log what is unusual about a result."""
        for number, done in result.cameras.items():
            camera = self._cameras[number]
            if done.restart is not None:
                camera.report(done.restart.cause, f'tracks restarted: {done.restart}')
            if done.repeated:
                camera.report(
                    'repeated stamp', 'two images with the same stamp, velocities are unknown'
                )
            if done.calibration_error:
                camera.report('calibration', f'no tracks published: {done.calibration_error}')
            if done.tracks is not None and done.tracks.without_ray:
                camera.report(
                    'no ray', f'{done.tracks.without_ray} tracks left out: their pixels have no '
                    'ray in the calibration'
                )
            if result.fell_back:
                camera.report(
                    'memory', 'the GPU has no memory left: the network runs on the CPU now'
                )
        stereo = result.stereo
        if stereo is not None and stereo.calibration_error not in ('', NO_CALIBRATION):
            self._cameras[0].report(
                'stereo calibration',
                f'left-right matches are checked without it: {stereo.calibration_error}',
            )

    # The publishing thread.

    def _run_publisher(self) -> None:
        while (result := self._results.get()) is not None:
            settings = result.job.configuration.settings
            for number, done in result.cameras.items():
                camera, image = self._cameras[number], result.job.images[number]
                header = image.message.header
                try:
                    if camera.outputs is not None:
                        camera.outputs.publish_keypoints(done, header, settings)
                        camera.outputs.publish_overlay(done, header, settings, image.bgr)
                except Exception as error:
                    camera.report('failed', f'not all published: {one_line(error)}')


def one_line(error: Exception) -> str:
    """Return type and text of an unexpected error on one line."""
    return ' '.join(f'{type(error).__name__}: {error}'.split())

"""The tracker without ROS: images in, tracks out, for one camera or several."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import torch

from mdnet_ros.errors import DataError, ImageError
from mdnet_ros.features.types import Features
from mdnet_ros.tracker.camera_tracker import CameraTracker
from mdnet_ros.tracker.configuration import Configuration, free_memory
from mdnet_ros.tracker.job import (
    CameraResult,
    GrayImage,
    ImageT,
    Job,
    JobResult,
    Restart,
    StereoResult,
)
from mdnet_ros.tracker.settings import TrackerSettings
from mdnet_ros.tracker.stereo import StereoGeometry, match_stereo
from mdnet_ros.tracker.vins import StereoVinsTracker

_DEFAULT_THREADS = torch.get_num_threads()


class Engine:
    """Extracts and tracks the images of one or more cameras with one network.

    All methods may be called from any thread.

    Attributes:
        configuration: settings and network for the next job; :meth:`apply` and
            :meth:`change_settings` replace it.
        cameras: the state of each camera, in the order of ``settings.camera_names``.

    Args:
        configuration: settings and network to begin with.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._lock = threading.Lock()
        self.configuration = configuration
        settings = configuration.settings
        self.cameras = tuple(CameraTracker(settings) for _ in settings.camera_names)
        self._right_vins = StereoVinsTracker()
        self._last = configuration  # of the last job
        configuration.prepare()

    def apply(self, configuration: Configuration) -> None:
        """Use another configuration from the next job on; its cameras must be the same.

        With another network all tracks are restarted; ids are not reused.
        """
        with self._lock:
            self.configuration = configuration

    def change_settings(self, settings: TrackerSettings) -> None:
        """Use other settings with the same network from the next job on.

        Raises:
            SettingError: if the network cannot detect keypoints with these settings.
            ImageError: if the mask cannot be used.
        """
        with self._lock:  # the network may be moved to the CPU at any time
            self.configuration = self.configuration.changed(settings)

    def reset(self) -> None:
        """Forget all tracks; ids are not reused."""
        with self._lock:
            self._restart(Restart('reset asked for'))

    def process(self, gray: np.ndarray, stamp_ns: int) -> CameraResult:
        """Process the next image of the first camera.

        Args:
            gray: (H, W) uint8.
            stamp_ns: stamp of the image in nanoseconds.

        Raises:
            ImageError: if the image cannot be used; the tracks stay as they are.
        """
        result = self.process_job(Job(self.configuration, {0: GrayImage(gray, stamp_ns)}))
        if 0 in result.refused:
            raise result.refused[0]
        return result.cameras[0]

    def process_job(self, job: Job[ImageT]) -> JobResult[ImageT]:
        """Process the images of a job in as few passes of the network as possible.

        An image that cannot be used is refused and leaves its camera's tracks as they are; the
        other images are processed.
        """
        with self._lock:
            if job.configuration is not self._last:
                self._use(job.configuration, 'new weights')
            # OpenMP keeps this number for each thread, so it is set by the thread that computes.
            threads = job.configuration.settings.threads or _DEFAULT_THREADS
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            pixels, refused = _decode(job)
            begin = time.monotonic()
            last_images = [camera.last_image for camera in self.cameras]
            try:
                result = self._extract_and_track(job, pixels, refused)
            except torch.cuda.OutOfMemoryError:
                for camera, last_image in zip(self.cameras, last_images, strict=True):
                    camera.last_image = last_image  # some may have been updated already
                result = self._extract_and_track(self._fall_back(job), pixels, refused)
                result = replace(result, fell_back=True)
            return replace(result, seconds=time.monotonic() - begin)

    def _extract_and_track(
        self, job: Job[ImageT], pixels: dict[int, np.ndarray], undecoded: dict[int, ImageError]
    ) -> JobResult[ImageT]:
        """Extract and track decoded images, and match the stereo pair."""
        features, refused = self._extract(job, pixels)
        settings = job.configuration.settings
        results = {
            number: self.cameras[number].update(
                features[number], image.stamp_ns, settings, pixels[number],
                (job.configuration.mask,),
            )
            for number, image in job.images.items() if number in features
        }
        stereo = None
        if settings.stereo and {0, 1} <= results.keys():
            stereo = self._match_stereo(results[0], results[1], settings)
        return JobResult(job, results, undecoded | refused, stereo)

    def _extract(
        self, job: Job[ImageT], pixels: dict[int, np.ndarray]
    ) -> tuple[dict[int, Features], dict[int, ImageError]]:
        """Extract features, images of one size in one pass; also return why not of an image."""
        by_size: dict[tuple[int, ...], list[int]] = {}
        for number, image in pixels.items():
            by_size.setdefault(image.shape, []).append(number)
        extractor = job.configuration.extractor
        features: dict[int, Features] = {}
        refused: dict[int, ImageError] = {}
        for numbers in by_size.values():
            step = extractor.fixed_batch or len(numbers)
            for batch in (numbers[i : i + step] for i in range(0, len(numbers), step)):
                try:
                    extracted = extractor.extract_batch(
                        [pixels[number] for number in batch],
                        [self.cameras[number].mask for number in batch],
                    )
                except ImageError as error:  # about their size, which is the same for all
                    refused |= dict.fromkeys(batch, error)
                else:
                    features |= dict(zip(batch, extracted, strict=True))
        return features, refused

    def _match_stereo(
        self, left: CameraResult, right: CameraResult, settings: TrackerSettings
    ) -> StereoResult:
        geometry, reason = self._stereo_geometry(left, right)
        matches = match_stereo(
            left.frame.features,
            right.frame.features,
            geometry,
            min_similarity=settings.min_similarity,
            verification=settings.verification,
            max_error=settings.max_error,
            exact=settings.exact,
        )
        tracks = None
        model = self.cameras[1].calibration(right.frame.features.image_size)[0]
        if settings.vins_layout == 'fusion' and left.tracks is not None and model is not None:
            tracks = self._right_vins.update(left.tracks, right.frame, matches, model)
        return StereoResult(matches, tracks, reason)

    def _stereo_geometry(
        self, left: CameraResult, right: CameraResult
    ) -> tuple[StereoGeometry | None, str]:
        """Return the geometry of the calibrated pair, or None and why it is not known."""
        models = []
        for camera, result in zip(self.cameras, (left, right), strict=True):
            model, reason = camera.calibration(result.frame.features.image_size)
            if model is None:
                return None, reason
            models.append(model)
        try:
            return StereoGeometry.of(models[0], models[1]), ''
        except DataError as error:
            return None, str(error)

    def _use(self, configuration: Configuration, cause: str) -> None:
        """Go over to another configuration; restart the tracks if it has another network."""
        configuration.prepare()
        if configuration.extractor is not self._last.extractor:
            self._restart(Restart(cause))
        self._last = configuration

    def _restart(self, restart: Restart) -> None:
        for camera in self.cameras:
            camera.restart(restart)

    def _fall_back(self, job: Job[ImageT]) -> Job[ImageT]:
        """Move the job's network to the CPU, for when the GPU has no memory left."""
        configuration = job.configuration.on_cpu()
        if self.configuration.extractor is job.configuration.extractor:
            # The settings may have changed since the job was made; they stay.
            self.configuration = replace(self.configuration, extractor=configuration.extractor)
        self._use(configuration, 'moved to the CPU')
        free_memory()
        return replace(job, configuration=configuration)


def _decode(job: Job[ImageT]) -> tuple[dict[int, np.ndarray], dict[int, ImageError]]:
    """Return the (H, W) uint8 pixels of each image, and why an image cannot be decoded."""
    pixels: dict[int, np.ndarray] = {}
    refused: dict[int, ImageError] = {}
    for number, image in job.images.items():
        try:
            pixels[number] = image.gray()
        except ImageError as error:
            refused[number] = error
    return pixels, refused

"""What the tracker node does with its images, without ROS: gray images in, tracks out."""

from __future__ import annotations

import gc
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.errors import DataError, ImageError
from mdnet_ros.features.detection import DetectionSettings
from mdnet_ros.features.extractor import MDNetExtractor
from mdnet_ros.features.types import Features
from mdnet_ros.tracker.camera import CameraSequence, Processed, Restart
from mdnet_ros.tracker.settings import TrackerSettings
from mdnet_ros.tracker.stereo import StereoGeometry, StereoMatches, match_stereo
from mdnet_ros.tracker.vins import StereoVinsTracker, VinsTracks

#: (height, width) of the blank image that warms a new network up.
_WARM_UP = (480, 640)
_DEFAULT_THREADS = torch.get_num_threads()
#: A larger mask file is refused unread.
_MAX_MASK_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class GrayImage:
    """An image of a camera.

    Attributes:
        pixels: (H, W) uint8.
        stamp_ns: nanoseconds.
    """

    pixels: np.ndarray
    stamp_ns: int


@dataclass(frozen=True)
class StereoProcessed:
    """What came of a left and a right image.

    Attributes:
        matches: between the two, left first.
        right_tracks: the right image's observations of the left one's ``tracks``; None without
            calibration or where tracks are not asked for.
        calibration_error: why ``camera_info`` could not be used to check the matches, or empty.
    """

    matches: StereoMatches
    right_tracks: VinsTracks | None = None
    calibration_error: str = ''


@dataclass(frozen=True)
class ProcessedGroup:
    """What came of images taken together.

    Attributes:
        done: by the camera's number.
        refused: why an image could not be used, by the camera's number.
        stereo: of the pair, if there is one and both images could be used.
    """

    done: dict[int, Processed]
    refused: dict[int, ImageError] = field(default_factory=dict)
    stereo: StereoProcessed | None = None


def read_mask(path: str) -> np.ndarray | None:
    """The region of interest in an image file; None for an empty path.

    Raises:
        ImageError: if the file is no image, or forbids everything.
    """
    if not path:
        return None
    file = Path(path).expanduser()
    if not file.is_file():
        raise ImageError(f"mask '{path}': no such file")
    if file.stat().st_size > _MAX_MASK_BYTES:
        raise ImageError(f"mask '{path}': larger than {_MAX_MASK_BYTES} bytes, refused")
    try:
        mask = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    except cv2.error:
        mask = None
    if mask is None:
        raise ImageError(f"mask '{path}': not a readable image")
    if not mask.any():
        raise ImageError(f"mask '{path}': black everywhere; expected white where to detect")
    return mask


def load_extractor(settings: TrackerSettings) -> MDNetExtractor:
    """The network of some settings, loaded, on its device and warmed up.

    That is done in a thread that ends. On the CPU each thread that ran a network keeps helper
    threads for as long as it lives, and while there are more of them than cores, OpenMP lets all
    threads sleep instead of spin between two layers: the worker would take half as long again.

    Raises:
        WeightsError: if the weights cannot be used.
        ImageError: if the mask cannot be used.
        ValueError: if the device is not there.
    """
    with ThreadPoolExecutor(1) as loader:
        return loader.submit(_load, settings).result()


def _load(settings: TrackerSettings) -> MDNetExtractor:
    mask = read_mask(settings.mask)
    extractor = MDNetExtractor(
        settings.weights,
        settings.device,
        settings.max_keypoints,
        score_threshold=settings.score_threshold,
        nms_radius=settings.nms_radius,
        border=settings.border,
        precision=settings.precision,
        max_side=settings.max_side,
        runtime=settings.runtime,
    )
    count = extractor.fixed_batch or len(settings.camera_names)
    extractor.extract_batch([np.zeros(extractor.fixed_size or _WARM_UP, np.uint8)] * count)
    extractor.mask = mask
    return extractor


class Engine:
    """Extracts and tracks the images of one or more cameras with one network.

    All methods may be called from any thread; images are processed under one set of settings.

    Attributes:
        cameras: what is known of each camera, in the order of ``settings.camera_names``.

    Args:
        settings: of the node.
        extractor: as :func:`load_extractor` gives it.
    """

    def __init__(self, settings: TrackerSettings, extractor: MDNetExtractor) -> None:
        self._lock = threading.Lock()
        self.settings = settings
        self.extractor = extractor
        self.cameras = tuple(CameraSequence(settings) for _ in settings.camera_names)
        self._right_vins = StereoVinsTracker()
        self.apply(settings)

    @property
    def camera(self) -> CameraModel | None:
        """The calibration of the first camera."""
        return self.cameras[0].model

    @camera.setter
    def camera(self, model: CameraModel | None) -> None:
        self.cameras[0].model = model

    def apply(
        self,
        settings: TrackerSettings,
        extractor: MDNetExtractor | None = None,
        mask: np.ndarray | None = None,
    ) -> None:
        """Use other settings from the next images on.

        Args:
            settings: the new ones, checked; the cameras stay.
            extractor: a new network; tracks begin anew with it, ids go on.
            mask: the region of interest that ``settings.mask`` names, if it changed.
        """
        with self._lock:
            if extractor is not None:
                self.extractor = extractor
                self._restart(Restart('new weights'))
            elif settings.mask != self.settings.mask:
                self.extractor.mask = mask
            self.settings = settings
            self.extractor.settings = DetectionSettings(
                settings.max_keypoints, settings.score_threshold, settings.nms_radius,
                settings.border,
            )
            self.extractor.max_side = settings.max_side
            for camera in self.cameras:
                camera.apply(settings)

    def reset(self) -> None:
        """Forget all tracks; ids go on from where they are."""
        with self._lock:
            self._restart(Restart('reset asked for'))

    def process(self, gray: np.ndarray, stamp_ns: int) -> Processed:
        """Take the next image of the first camera.

        Args:
            gray: (H, W) uint8.
            stamp_ns: of the image, nanoseconds.

        Raises:
            ImageError: if the image cannot be used; the tracks stay as they are.
        """
        group = self.process_group({0: GrayImage(gray, stamp_ns)})
        if 0 in group.refused:
            raise group.refused[0]
        return group.done[0]

    def process_group(self, images: Mapping[int, GrayImage]) -> ProcessedGroup:
        """Take images of several cameras, at most one of each, in as few passes as they allow.

        An image that cannot be used is refused and leaves its camera's tracks as they are; the
        others are served.

        Args:
            images: by the camera's number.
        """
        with self._lock:
            # Per thread with OpenMP, so it is set where it is used.
            threads = self.settings.threads or _DEFAULT_THREADS
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            fell_back = False
            try:
                features, refused = self._extract(images)
            except torch.cuda.OutOfMemoryError:
                self._fall_back()
                features, refused = self._extract(images)
                fell_back = True
            done = {
                number: self.cameras[number].update(features[number], image.stamp_ns)
                for number, image in images.items() if number in features
            }
            if fell_back:
                done = {number: replace(one, fell_back=True) for number, one in done.items()}
            stereo = None
            if self.settings.stereo and {0, 1} <= done.keys():
                stereo = self._match_sides(done[0], done[1])
            return ProcessedGroup(done, refused, stereo)

    def _extract(
        self, images: Mapping[int, GrayImage]
    ) -> tuple[dict[int, Features], dict[int, ImageError]]:
        """Features of each image, images of one size in one pass, and what was refused."""
        by_size: dict[tuple[int, ...], list[int]] = {}
        for number, image in images.items():
            by_size.setdefault(image.pixels.shape, []).append(number)
        features: dict[int, Features] = {}
        refused: dict[int, ImageError] = {}
        for numbers in by_size.values():
            step = self.extractor.fixed_batch or len(numbers)
            for part in (numbers[i : i + step] for i in range(0, len(numbers), step)):
                try:
                    found = self.extractor.extract_batch(
                        [images[number].pixels for number in part],
                        [self.cameras[number].mask for number in part],
                    )
                except ImageError as error:  # of their size, which is the same for all
                    refused |= dict.fromkeys(part, error)
                else:
                    features |= dict(zip(part, found, strict=True))
        return features, refused

    def _match_sides(self, left: Processed, right: Processed) -> StereoProcessed:
        geometry, reason = self._stereo_geometry(left, right)
        matches = match_stereo(
            left.frame.features,
            right.frame.features,
            geometry,
            min_similarity=self.settings.min_similarity,
            verification=self.settings.verification,
            max_error=self.settings.max_error,
            exact=self.settings.exact,
        )
        tracks = None
        model = self.cameras[1].calibration(right.frame.features.image_size)[0]
        if self.settings.vins_layout == 'fusion' and left.tracks is not None and model is not None:
            tracks = self._right_vins.update(left.tracks, right.frame, matches, model)
        return StereoProcessed(matches, tracks, reason)

    def _stereo_geometry(
        self, left: Processed, right: Processed
    ) -> tuple[StereoGeometry | None, str]:
        """How the calibrated cameras stand to each other, or None and why it is not known."""
        models = []
        for camera, done in zip(self.cameras, (left, right), strict=True):
            model, reason = camera.calibration(done.frame.features.image_size)
            if model is None:
                return None, reason
            models.append(model)
        try:
            return StereoGeometry.of(models[0], models[1]), ''
        except DataError as error:
            return None, str(error)

    def _restart(self, restart: Restart) -> None:
        for camera in self.cameras:
            camera.restart(restart)

    def _fall_back(self) -> None:
        """The same network on the CPU, for when the GPU has no memory left."""
        settings = replace(self.settings, device='cpu', precision='fp32')
        self.extractor = load_extractor(settings)
        self._restart(Restart('moved to the CPU'))
        free_memory()


def free_memory() -> None:
    """Give the device memory of a network that was let go back to the system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

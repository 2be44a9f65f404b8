"""What the tracker node does with a frame, without ROS: gray image in, tracks out."""

from __future__ import annotations

import gc
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from mdnet_ros.camera import CameraModel
from mdnet_ros.errors import ImageError
from mdnet_ros.features.detection import DetectionSettings
from mdnet_ros.features.extractor import MDNetExtractor
from mdnet_ros.features.tracking import FrameTracker
from mdnet_ros.features.types import TrackedFrame
from mdnet_ros.nodes.settings import TrackerSettings
from mdnet_ros.vins import VinsTracker, VinsTracks

#: (height, width) of the blank image that warms a new network up.
_WARM_UP = (480, 640)
_DEFAULT_THREADS = torch.get_num_threads()
#: A larger mask file is refused unread.
_MAX_MASK_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Restart:
    """Why all tracks began anew: a fixed short cause, and the detail of this case."""

    cause: str
    detail: str = ''

    def __str__(self) -> str:
        return f'{self.cause} {self.detail}'.strip()


@dataclass(frozen=True)
class Processed:
    """What came of one frame.

    Attributes:
        frame: its tracks.
        tracks: the same for VINS, or None where there is nothing to publish.
        restart: why all tracks began anew with this frame; None if they did not.
        repeated: the stamp is that of the frame before.
        calibration_error: why ``camera_info`` cannot be used for this frame, or empty.
        fell_back: the GPU ran out of memory and the CPU took over with this frame.
    """

    frame: TrackedFrame
    tracks: VinsTracks | None = None
    restart: Restart | None = None
    repeated: bool = False
    calibration_error: str = ''
    fell_back: bool = False


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

    Raises:
        WeightsError: if the weights cannot be used.
        ImageError: if the mask cannot be used.
        ValueError: if the device is not there.
    """
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
    )
    extractor(np.zeros(extractor.fixed_size or _WARM_UP, np.uint8))
    extractor.mask = mask
    return extractor


class Engine:
    """Extracts, tracks and keeps track of time.

    All methods may be called from any thread; a frame is processed under one set of settings.

    Args:
        settings: of the node.
        extractor: as :func:`load_extractor` gives it.
    """

    def __init__(self, settings: TrackerSettings, extractor: MDNetExtractor) -> None:
        self.camera: CameraModel | None = None
        self._lock = threading.Lock()
        self._tracker = FrameTracker()
        self._vins = VinsTracker()
        self._last_stamp: int | None = None
        self._last_size: tuple[int, ...] = ()
        self._pending: Restart | None = None
        self.settings = settings
        self.extractor = extractor
        self.apply(settings)

    def apply(
        self,
        settings: TrackerSettings,
        extractor: MDNetExtractor | None = None,
        mask: np.ndarray | None = None,
    ) -> None:
        """Use other settings from the next frame on.

        Args:
            settings: the new ones, checked.
            extractor: a new network; tracks begin anew with it, ids go on.
            mask: the region of interest that ``settings.mask`` names, if it changed.
        """
        with self._lock:
            if extractor is not None:
                self.extractor = extractor
                self._restart(Restart('new weights'))
            elif settings.mask != self.settings.mask:
                self.extractor.mask = mask
            if settings.vins_layout != self.settings.vins_layout:
                self._vins.restart()
            self.settings = settings
            self.extractor.settings = DetectionSettings(
                settings.max_keypoints, settings.score_threshold, settings.nms_radius,
                settings.border,
            )
            self.extractor.max_side = settings.max_side
            self._tracker.max_gap = settings.max_gap
            self._tracker.min_similarity = settings.min_similarity
            self._tracker.verification = settings.verification
            self._tracker.max_error = settings.max_error

    def reset(self) -> None:
        """Forget all tracks; ids go on from where they are."""
        with self._lock:
            self._restart(Restart('reset asked for'))

    def process(self, gray: np.ndarray, stamp_ns: int) -> Processed:
        """Take the next frame.

        Args:
            gray: (H, W) uint8.
            stamp_ns: of the image, nanoseconds.

        Raises:
            ImageError: if the image cannot be used; the tracks stay as they are.
        """
        with self._lock:
            fell_back = False
            # Per thread with OpenMP, so it is set where it is used.
            threads = self.settings.threads or _DEFAULT_THREADS
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            try:
                features = self.extractor(gray)
            except torch.cuda.OutOfMemoryError:
                self._fall_back()
                features = self.extractor(gray)
                fell_back = True
            last, size = self._last_stamp, gray.shape
            if last is not None:
                self._check_continuity((stamp_ns - last) * 1e-9, size)
            self._last_stamp, self._last_size = stamp_ns, size
            restart, self._pending = self._pending, None
            frame = self._tracker.update(features, stamp_ns)
            done = Processed(
                frame, restart=restart, repeated=stamp_ns == last, fell_back=fell_back
            )
            if self.settings.vins_layout == 'none':
                return done
            return self._with_tracks(done)

    def _with_tracks(self, done: Processed) -> Processed:
        camera = self.camera
        if camera is None:
            return replace(done, calibration_error='no camera_info yet')
        size = done.frame.features.image_size
        if 0 not in (camera.width, camera.height) and (camera.width, camera.height) != size:
            return replace(
                done,
                calibration_error=f'camera_info is for {camera.width}x{camera.height}, '
                f'the image is {size[0]}x{size[1]}',
            )
        return replace(done, tracks=self._vins.update(done.frame, camera))

    def _check_continuity(self, gap: float, size: tuple[int, ...]) -> None:
        if gap < 0:
            self._restart(Restart('stamp went back', f'by {-gap:.3f} s'))
        elif gap > self.settings.restart_after:
            self._restart(Restart('stamp jumped', f'by {gap:.3f} s'))
        elif size != self._last_size:
            self._restart(Restart('image size changed', f'to {size[1]}x{size[0]}'))

    def _restart(self, restart: Restart) -> None:
        self._tracker.reset()
        self._vins.restart()
        self._pending = restart

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

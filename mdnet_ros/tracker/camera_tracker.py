"""The tracking state of one camera, without ROS: features in, tracks out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.errors import DataError
from mdnet_ros.features.tracking import FrameTracker
from mdnet_ros.features.types import Features
from mdnet_ros.tracker.job import CameraResult, Restart
from mdnet_ros.tracker.settings import TrackerSettings
from mdnet_ros.tracker.vins import VinsTracker

#: Why there is no calibration before the first ``camera_info``.
NO_CALIBRATION = 'no camera_info yet'


class CameraTracker:
    """Tracks the keypoints of one camera, and restarts where its images are not consecutive.

    Attributes:
        model: the calibration, or None as long as it is not known.
        unusable: why the last ``camera_info`` cannot be used, while there was no good one.
        mask: (h, w) uint8 of any size, stretched to the image: no keypoint where it is 0; None:
            keypoints everywhere.
        last_image: stamp in nanoseconds and (width, height) of the last image, or None.

    Args:
        settings: settings to begin with.
    """

    def __init__(self, settings: TrackerSettings) -> None:
        self.unusable = ''
        self.model: CameraModel | None = None
        self._fitted: tuple[CameraModel, tuple[int, int], CameraModel | None, str] | None = None
        self.mask: np.ndarray | None = None
        self._settings = settings
        self._tracker = FrameTracker()
        self._tracker.settings = settings.tracking
        self._vins = VinsTracker()
        self.last_image: tuple[int, tuple[int, int]] | None = None
        self._pending: Restart | None = None

    def restart(self, restart: Restart) -> None:
        """Forget all tracks; ids are not reused."""
        self._tracker.reset()
        self._vins.restart()
        self._pending = restart

    def update(
        self, features: Features, stamp_ns: int, settings: TrackerSettings
    ) -> CameraResult:
        """Track the next frame.

        Args:
            features: features of the frame.
            stamp_ns: stamp of the frame in nanoseconds.
            settings: settings to track it with.
        """
        if settings is not self._settings:
            self._use(settings)
        size = features.image_size
        repeated = self._check_continuity(stamp_ns, size)
        self.last_image = stamp_ns, size
        restart, self._pending = self._pending, None
        frame = self._tracker.update(features, stamp_ns)
        result = CameraResult(frame, restart=restart, repeated=repeated)
        if settings.vins_layout == 'none':
            return result
        model, reason = self.calibration(size)
        if model is None:
            return replace(result, calibration_error=reason)
        return replace(result, tracks=self._vins.update(frame, model))

    def calibration(self, size: tuple[int, int]) -> tuple[CameraModel | None, str]:
        """Return the calibration for images of a (width, height), or None and the reason."""
        model, fitted = self.model, self._fitted
        if model is None:
            return None, self.unusable or NO_CALIBRATION
        # A camera_info may come from another thread at any time.
        if fitted is None or fitted[0] is not model or fitted[1] != size:
            try:
                fitted = (model, size, model.for_image(size), '')
            except DataError as error:
                fitted = (model, size, None, str(error))
            self._fitted = fitted
        return fitted[2], fitted[3]

    def _use(self, settings: TrackerSettings) -> None:
        if settings.vins_layout != self._settings.vins_layout:
            self._vins.restart()
        self._tracker.settings = settings.tracking
        self._settings = settings

    def _check_continuity(self, stamp_ns: int, size: tuple[int, int]) -> bool:
        """Restart unless an image follows the last one; returns whether it repeats its stamp."""
        if self.last_image is None:
            return False
        last_stamp, last_size = self.last_image
        gap = (stamp_ns - last_stamp) * 1e-9
        if gap < 0:
            self.restart(Restart('stamp went back', f'by {-gap:.3f} s'))
        elif gap > self._settings.restart_after:
            self.restart(Restart('stamp jumped', f'by {gap:.3f} s'))
        elif size != last_size:
            self.restart(Restart('image size changed', f'to {size[0]}x{size[1]}'))
        return stamp_ns == last_stamp

"""The tracking state of one camera, without ROS: features in, tracks out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mdnet_ros.data.camera import CameraModel
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
        mask: (h, w) uint8 of any size, stretched to the image: no keypoint where it is 0; None:
            keypoints everywhere.

    Args:
        settings: settings to begin with.
    """

    def __init__(self, settings: TrackerSettings) -> None:
        self.model: CameraModel | None = None
        self.mask: np.ndarray | None = None
        self._settings = settings
        self._tracker = FrameTracker()
        self._tracker.settings = settings.tracking
        self._vins = VinsTracker()
        self._last_stamp: int | None = None
        self._last_size: tuple[int, int] | None = None
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
        last, size = self._last_stamp, features.image_size
        if last is not None:
            self._check_continuity((stamp_ns - last) * 1e-9, size)
        self._last_stamp, self._last_size = stamp_ns, size
        restart, self._pending = self._pending, None
        frame = self._tracker.update(features, stamp_ns)
        result = CameraResult(frame, restart=restart, repeated=stamp_ns == last)
        if settings.vins_layout == 'none':
            return result
        model, reason = self.calibration(size)
        if model is None:
            return replace(result, calibration_error=reason)
        return replace(result, tracks=self._vins.update(frame, model))

    def calibration(self, size: tuple[int, int]) -> tuple[CameraModel | None, str]:
        """Return the calibration for images of a (width, height), or None and the reason."""
        model = self.model
        if model is None:
            return None, NO_CALIBRATION
        if 0 not in (model.width, model.height) and (model.width, model.height) != size:
            return None, (
                f'camera_info is for {model.width}x{model.height}, '
                f'the image is {size[0]}x{size[1]}'
            )
        return model, ''

    def _use(self, settings: TrackerSettings) -> None:
        if settings.vins_layout != self._settings.vins_layout:
            self._vins.restart()
        self._tracker.settings = settings.tracking
        self._settings = settings

    def _check_continuity(self, gap: float, size: tuple[int, int]) -> None:
        if gap < 0:
            self.restart(Restart('stamp went back', f'by {-gap:.3f} s'))
        elif gap > self._settings.restart_after:
            self.restart(Restart('stamp jumped', f'by {gap:.3f} s'))
        elif size != self._last_size:
            self.restart(Restart('image size changed', f'to {size[0]}x{size[1]}'))

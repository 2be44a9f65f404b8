"""The images of one camera in their order, without ROS: features in, tracks out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.features.tracking import FrameTracker
from mdnet_ros.features.types import Features, TrackedFrame
from mdnet_ros.tracker.settings import TrackerSettings
from mdnet_ros.tracker.vins import VinsTracker, VinsTracks

#: Why there is no calibration before the first one came.
NO_CALIBRATION = 'no camera_info yet'


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
        calibration_error: why ``camera_info`` cannot be used for this frame, or empty; told only
            where tracks are asked for.
        fell_back: the GPU ran out of memory and the CPU took over with this frame.
    """

    frame: TrackedFrame
    tracks: VinsTracks | None = None
    restart: Restart | None = None
    repeated: bool = False
    calibration_error: str = ''
    fell_back: bool = False


class CameraSequence:
    """Tracks one camera, and begins anew where its images do not go on.

    Attributes:
        model: the calibration, or None as long as it is not known.
        mask: (h, w) uint8 of any size, stretched to the image: no keypoint where it is 0; None:
            keypoints everywhere.

    Args:
        settings: of the node.
    """

    def __init__(self, settings: TrackerSettings) -> None:
        self.model: CameraModel | None = None
        self.mask: np.ndarray | None = None
        self._settings = settings
        self._tracker = FrameTracker()
        self._vins = VinsTracker()
        self._last_stamp: int | None = None
        self._last_size: tuple[int, int] | None = None
        self._pending: Restart | None = None
        self.apply(settings)

    def apply(self, settings: TrackerSettings) -> None:
        """Use other settings from the next frame on."""
        if settings.vins_layout != self._settings.vins_layout:
            self._vins.restart()
        self._settings = settings
        self._tracker.max_gap = settings.max_gap
        self._tracker.min_similarity = settings.min_similarity
        self._tracker.verification = settings.verification
        self._tracker.max_error = settings.max_error
        self._tracker.exact = settings.exact

    def restart(self, restart: Restart) -> None:
        """Forget all tracks; ids go on from where they are."""
        self._tracker.reset()
        self._vins.restart()
        self._pending = restart

    def update(self, features: Features, stamp_ns: int) -> Processed:
        """Take the features of the next frame."""
        last, size = self._last_stamp, features.image_size
        if last is not None:
            self._check_continuity((stamp_ns - last) * 1e-9, size)
        self._last_stamp, self._last_size = stamp_ns, size
        restart, self._pending = self._pending, None
        frame = self._tracker.update(features, stamp_ns)
        done = Processed(frame, restart=restart, repeated=stamp_ns == last)
        if self._settings.vins_layout == 'none':
            return done
        model, reason = self.calibration(size)
        if model is None:
            return replace(done, calibration_error=reason)
        return replace(done, tracks=self._vins.update(frame, model))

    def calibration(self, size: tuple[int, int]) -> tuple[CameraModel | None, str]:
        """The calibration for images of a (width, height), or None and why there is none."""
        model = self.model
        if model is None:
            return None, NO_CALIBRATION
        if 0 not in (model.width, model.height) and (model.width, model.height) != size:
            return None, (
                f'camera_info is for {model.width}x{model.height}, '
                f'the image is {size[0]}x{size[1]}'
            )
        return model, ''

    def _check_continuity(self, gap: float, size: tuple[int, int]) -> None:
        if gap < 0:
            self.restart(Restart('stamp went back', f'by {-gap:.3f} s'))
        elif gap > self._settings.restart_after:
            self.restart(Restart('stamp jumped', f'by {gap:.3f} s'))
        elif size != self._last_size:
            self.restart(Restart('image size changed', f'to {size[0]}x{size[1]}'))

"""A job, which is images with the settings to process and publish them with, and its results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from mdnet_ros.errors import ImageError
from mdnet_ros.features.types import TrackedFrame
from mdnet_ros.tracker.configuration import Configuration
from mdnet_ros.tracker.stereo import StereoMatches
from mdnet_ros.tracker.vins import VinsTracks


class StampedImage(Protocol):
    """An image that can be decoded when it is needed."""

    @property
    def stamp_ns(self) -> int:
        """Stamp in nanoseconds."""
        ...

    def gray(self) -> np.ndarray:
        """Return the (H, W) uint8 gray pixels.

        Raises:
            ImageError: if the image cannot be decoded.
        """
        ...


@dataclass(frozen=True)
class GrayImage:
    """A :class:`StampedImage` that is decoded already.

    Attributes:
        pixels: (H, W) uint8.
        stamp_ns: stamp in nanoseconds.
    """

    pixels: np.ndarray
    stamp_ns: int

    def gray(self) -> np.ndarray:
        """Return the pixels."""
        return self.pixels


ImageT = TypeVar('ImageT', bound=StampedImage)


@dataclass(frozen=True)
class Job(Generic[ImageT]):
    """Images taken together, and all that they are processed and published with.

    Settings may be changed at any time; a job keeps those it was made with until its last
    message is published.

    Attributes:
        configuration: settings, network and mask in force when processing began.
        images: by camera number, at most one for each camera.
    """

    configuration: Configuration
    images: Mapping[int, ImageT]


@dataclass(frozen=True)
class Restart:
    """Why all tracks of a camera were restarted: a fixed short cause, and the details."""

    cause: str
    detail: str = ''

    def __str__(self) -> str:
        return f'{self.cause} {self.detail}'.strip()


@dataclass(frozen=True)
class CameraResult:
    """The result for one camera's image.

    Attributes:
        frame: keypoints with their tracks.
        tracks: the tracks for VINS, or None where there is nothing to publish.
        restart: why all tracks were restarted with this frame; None if they were not.
        repeated: True if the stamp equals that of the previous frame.
        calibration_error: why ``camera_info`` cannot be used for this frame; empty if it can, or
            if no tracks for VINS are published.
    """

    frame: TrackedFrame
    tracks: VinsTracks | None = None
    restart: Restart | None = None
    repeated: bool = False
    calibration_error: str = ''


@dataclass(frozen=True)
class StereoResult:
    """The result for a left and a right image together.

    Attributes:
        matches: between the two images, left first.
        right_tracks: the right image's observations of the left image's ``tracks``; None without
            a calibration, or where no tracks are published.
        calibration_error: why ``camera_info`` could not be used to check the matches, or empty.
    """

    matches: StereoMatches
    right_tracks: VinsTracks | None = None
    calibration_error: str = ''


@dataclass(frozen=True)
class JobResult(Generic[ImageT]):
    """The results of a job.

    Attributes:
        job: the job.
        cameras: results by camera number.
        refused: why an image could not be used, by camera number; every image of the job is
            either here or in ``cameras``.
        stereo: the result of the stereo pair, if there is one and both images could be used.
        seconds: time that extraction, tracking and stereo matching took.
        fell_back: True if the GPU ran out of memory and the CPU took over with this job.
    """

    job: Job[ImageT]
    cameras: Mapping[int, CameraResult]
    refused: Mapping[int, ImageError]
    stereo: StereoResult | None = None
    seconds: float = 0.0
    fell_back: bool = False

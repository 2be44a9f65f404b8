"""Camera calibration without ROS: ``CameraModel``, and how it is read from ``camera_info``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from mdnet_ros.data.distortion import (
    DISTORTION_MODELS,
    EQUIDISTANT,
    PLUMB_BOB,
    LensDistortion,
    canonical_distortion,
)
from mdnet_ros.errors import DataError

#: A ray is accepted if it projects back to within this distance of its pixel, in pixels.
MAX_ROUND_TRIP = 0.01
#: The shortest believable focal length, as a share of the longer side of the image. A 360 degree
#: equidistant lens has 0.16; an identity matrix, which stands for "not calibrated", less than this.
_MIN_FOCAL_SHARE = 0.02
#: Larger numbers in a camera matrix are not pixels.
_LARGEST = 1e9

__all__ = [
    'DISTORTION_MODELS', 'CameraModel', 'camera_of_info', 'is_calibrated', 'rectified_by_name'
]

#: Topics of rectified images, by the names of ROS's image_proc: image_rect, image_rect_color.
_RECTIFIED_NAME = re.compile(r'(^|_)rect(ified)?(_|$)')


@dataclass(frozen=True)
class CameraModel:
    """Intrinsic calibration of a camera, and the rectification that goes with it.

    Attributes:
        width: columns of the image, pixels; 0: not known.
        height: rows of the image, pixels; 0: not known.
        k: (3, 3) float64, maps rays to pixels: fx, skew, cx; 0, fy, cy; 0, 0, 1. Integer
            coordinates lie at pixel centres.
        d: (n,) float64 distortion coefficients in OpenCV's order; empty: none. Zeros that a
            driver appends are dropped.
        distortion_model: one of :data:`DISTORTION_MODELS`. Names that drivers use for them are
            accepted and replaced, see :mod:`mdnet_ros.data.distortion`.
        r: (3, 3) float64, rotates rays into the rectified camera.
        p: (3, 4) float64, projects points in the frame of the rectified left camera, metres, to
            pixels of the rectified image; zeros: not known.
        full: calibration of the whole, unbinned image, where ``camera_info`` announces binning
            or a region of interest; else None.

    Raises:
        DataError: if the intrinsics cannot be those of a camera.
    """

    width: int
    height: int
    k: np.ndarray
    d: np.ndarray
    distortion_model: str = PLUMB_BOB
    r: np.ndarray = field(default_factory=lambda: np.eye(3))
    p: np.ndarray = field(default_factory=lambda: np.zeros((3, 4)))
    full: CameraModel | None = None

    def __post_init__(self) -> None:
        k = np.array(self.k, np.float64)
        if k.shape != (3, 3) or not (np.abs(k) < _LARGEST).all():  # NaN is not, either
            raise DataError(f'camera_info: expected nine finite numbers below {_LARGEST:g} in k')
        if k[0, 0] <= 0 or k[1, 1] <= 0:
            raise DataError(
                f'camera_info: expected focal lengths above 0 in k, got {k[0, 0]:g} and {k[1, 1]:g}'
            )
        # Some drivers leave out the last 1, which nothing but the scale depends on.
        if k[1, 0] or k[2, 0] or k[2, 1] or k[2, 2] not in (0.0, 1.0):
            raise DataError(
                'camera_info: expected fx, skew, cx; 0, fy, cy; 0, 0, 1 in k, got '
                + '; '.join(', '.join(f'{value:g}' for value in row) for row in k)
            )
        k[2, 2] = 1.0
        smallest = _MIN_FOCAL_SHARE * max(self.width, self.height)
        if min(k[0, 0], k[1, 1]) < smallest:
            raise DataError(
                f'camera_info: expected focal lengths of at least {smallest:g} px in k for an '
                f'image of {self.width}x{self.height}, got {k[0, 0]:g} and {k[1, 1]:g}'
            )
        model, d = canonical_distortion(self.distortion_model, self.d)
        for name, value in (('k', k), ('d', d), ('distortion_model', model)):
            object.__setattr__(self, name, value)

    @property
    def is_fisheye(self) -> bool:
        """Whether the lens follows the equidistant (theta) model, with or without coefficients."""
        return self.distortion_model == EQUIDISTANT

    @cached_property
    def _lens(self) -> LensDistortion:
        return LensDistortion(self.distortion_model, self.d)

    def normalise(self, points: np.ndarray) -> np.ndarray:
        """Compute the rays that pixels see, with the lens distortion removed.

        Each ray is checked by projecting it back.

        Args:
            points: (N, 2) pixels.

        Returns:
            (N, 2) float64, x/z and y/z in the camera's frame (z forward). NaN where there is no
            ray: the pixel lies where the distortion has no inverse, or looks 90 degrees or more
            away from the axis.
        """
        points = np.asarray(points, np.float64).reshape(-1, 2)
        inverse = np.linalg.inv(self.k)
        with np.errstate(all='ignore'):  # pixels may be infinite
            plane = points @ inverse[:2, :2].T + inverse[:2, 2]
        return self._lens.undistort(plane, MAX_ROUND_TRIP / max(self.k[0, 0], self.k[1, 1]))

    def project(self, points: np.ndarray) -> np.ndarray:
        """Compute the pixels at which points in front of the camera are seen.

        Args:
            points: (N, 3) in the camera's frame.

        Returns:
            (N, 2) float64 pixels; NaN for points behind the camera, and for those so far off its
            axis that the distortion is not defined there.
        """
        points = np.asarray(points, np.float64).reshape(-1, 3)
        front = points[:, 2] > 0
        rays = np.full((len(points), 2), np.nan)
        rays[front] = points[front, :2] / points[front, 2:]
        return self._lens.distort(rays) @ self.k[:2, :2].T + self.k[:2, 2]

    def rectify(self, points: np.ndarray) -> np.ndarray:
        """Compute the rays that pixels see, in the frame of the rectified camera.

        Args:
            points: (N, 2) pixels.

        Returns:
            (N, 2) float64, x/z and y/z; NaN where there is no ray, or it points backwards there.
        """
        rays = self.normalise(points)
        with np.errstate(all='ignore'):  # R may hold anything where it is not used
            turned = rays @ self.r[:, :2].T + self.r[:, 2]
            turned[~(turned[:, 2] > 0)] = np.nan
            return turned[:, :2] / turned[:, 2:]

    @property
    def has_projection(self) -> bool:
        """Whether ``p`` can be that of a camera."""
        return bool(np.isfinite(self.p).all() and self.p[0, 0] > 0 and self.p[1, 1] > 0)

    def of_rectified_images(self) -> CameraModel:
        """Return the calibration of the images that rectification gives: ``p``, no distortion.

        Raises:
            DataError: if ``p`` is not that of a camera.
        """
        return _rectified(self.width, self.height, self.p)

    def for_image(self, size: tuple[int, int]) -> CameraModel:
        """Return the calibration of images of a size.

        Args:
            size: (width, height) in pixels.

        Raises:
            DataError: if the calibration is for another size, with and without the binning and
                region of interest that ``camera_info`` announces.
        """
        if 0 in (self.width, self.height):
            return replace(self, width=size[0], height=size[1])
        if (self.width, self.height) == size:
            return self
        # Drivers round a size that the binning does not divide up or down.
        if self.full is not None and max(
            abs(self.width - size[0]), abs(self.height - size[1])
        ) <= 1:
            return replace(self, width=size[0], height=size[1])
        # Some announce binning that they did not apply, or calibrated the binned image.
        if self.full is not None and (self.full.width, self.full.height) == size:
            return self.full
        whole = (
            f' (binned or cropped from {self.full.width}x{self.full.height})' if self.full else ''
        )
        raise DataError(
            f'camera_info is for {self.width}x{self.height}{whole}, '
            f'the image is {size[0]}x{size[1]}'
        )


def _rectified(width: int, height: int, p: np.ndarray) -> CameraModel:
    """Make the calibration of rectified images from their projection matrix."""
    if not (np.isfinite(p).all() and p[0, 0] > 0 and p[1, 1] > 0):
        raise DataError(
            'camera_info: expected focal lengths above 0 in P, which holds for rectified images'
        )
    return CameraModel(width, height, p[:, :3], np.zeros(0), p=p)


def _numbers(message: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Read the field d, k, r or p of a camera_info, which ROS 1 writes in capitals."""
    value = getattr(message, name, None)
    numbers = np.array(getattr(message, name.upper()) if value is None else value, np.float64)
    if shape and numbers.size != np.prod(shape):
        raise DataError(
            f'camera_info: expected {np.prod(shape)} numbers in {name}, got {numbers.size}'
        )
    return numbers.reshape(shape or -1)


def is_calibrated(message: Any) -> bool:
    """Tell whether a camera_info holds a calibration; drivers without one leave K and P zero."""
    return any(_numbers(message, name, ()).any() for name in 'kp')


def camera_of_info(message: Any, rectified: bool = False) -> CameraModel:
    """Read the calibration in a ``sensor_msgs/CameraInfo``.

    K and P of the message are those of the whole image; binning and the region of interest of
    the image are applied (REP 104), with pixel (0, 0) of the binned image at (0, 0) of the
    region, as in ROS's ``image_geometry``. Images whose K is zero are taken for rectified ones if
    there is a P.

    Args:
        message: deserialised by rclpy or by ``rosbags``, of ROS 2 or ROS 1.
        rectified: the images are rectified already, so that its P holds for them.

    Raises:
        DataError: if it cannot be that of a camera.
    """
    width, height = int(message.width), int(message.height)
    k, d = _numbers(message, 'k', (3, 3)), _numbers(message, 'd', ())
    r, p = _numbers(message, 'r', (3, 3)), _numbers(message, 'p', (3, 4))
    if rectified or (not k.any() and not d.any() and p.any()):
        camera = _rectified(width, height, p)
    else:
        camera = CameraModel(width, height, k, d, message.distortion_model, r, p)
    return _applied(camera, message)


def _applied(camera: CameraModel, message: Any) -> CameraModel:
    """Apply the binning and the region of interest of a camera_info to its calibration."""
    binning = tuple(max(1, int(getattr(message, name, 0))) for name in ('binning_x', 'binning_y'))
    roi = getattr(message, 'roi', None)
    x, y, width, height = (
        int(getattr(roi, name, 0)) for name in ('x_offset', 'y_offset', 'width', 'height')
    )
    size = (camera.width, camera.height)
    for offset, extent, whole in zip((x, y), (width, height), size, strict=True):
        if whole and offset + max(extent, 1) > whole:
            raise DataError(
                f'camera_info: expected a region of interest inside {size[0]}x{size[1]}, got '
                f'{width}x{height} at ({x}, {y})'
            )
    # A region without a size is the whole image.
    width, height = width or max(0, size[0] - x), height or max(0, size[1] - y)
    if binning == (1, 1) and (x, y) == (0, 0) and (width, height) == size:
        return camera
    for extent, step in zip((width, height), binning, strict=True):
        if extent and step > extent:
            raise DataError(
                f'camera_info: expected a binning below the image of {width}x{height}, got '
                f'{binning[0]}x{binning[1]}'
            )
    shrink = np.diag([1 / binning[0], 1 / binning[1], 1.0])
    crop = np.array([[1.0, 0, -x], [0, 1, -y], [0, 0, 1]])
    with np.errstate(all='ignore'):  # P may hold anything where it is not used
        k, p = (shrink @ crop @ matrix for matrix in (camera.k, camera.p))
    return CameraModel(
        width // binning[0], height // binning[1], k, camera.d, camera.distortion_model, camera.r,
        p, full=camera,
    )


def rectified_by_name(camera: CameraModel, image_topic: str | None, rectified: bool) -> str:
    """Tell if images that are rectified by their topic's name are used with K and D.

    Args:
        camera: the calibration in use.
        image_topic: topic of the images, with or without ``/compressed``.
        rectified: whether P is used in place of K and D.

    Returns:
        A line for the user; empty where nothing is odd.
    """
    name = (image_topic or '').removesuffix('/compressed').rpartition('/')[2]
    if rectified or not camera.d.any() or not _RECTIFIED_NAME.search(name):
        return ''
    return (
        f"'{image_topic}' holds rectified images by its name, but K and D of camera_info are used: "
        'set rectified to use P'
    )

"""The calibrated camera, without ROS."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from mdnet_ros.errors import DataError

#: What ``camera_info`` calls the models that OpenCV's pinhole and fisheye functions implement.
DISTORTION_MODELS = ('plumb_bob', 'rational_polynomial', 'equidistant')


@dataclass(frozen=True)
class CameraModel:
    """Intrinsics of a camera, and how its image is rectified.

    Attributes:
        width: columns, pixels.
        height: rows, pixels.
        k: (3, 3) float64, maps rays to pixels; integer coordinates at pixel centres.
        d: (n,) float64 distortion coefficients in OpenCV's order; empty: none.
        distortion_model: one of :data:`DISTORTION_MODELS`, or empty if there is no distortion.
        r: (3, 3) float64, rotates rays into the rectified camera.
        p: (3, 4) float64, projects points in the frame of the rectified left camera, metres, to
            pixels of the rectified image; zeros: not known.

    Raises:
        DataError: if the intrinsics cannot be those of a camera.
    """

    width: int
    height: int
    k: np.ndarray
    d: np.ndarray
    distortion_model: str = 'plumb_bob'
    r: np.ndarray = field(default_factory=lambda: np.eye(3))
    p: np.ndarray = field(default_factory=lambda: np.zeros((3, 4)))

    def __post_init__(self) -> None:
        if self.k.shape != (3, 3) or not np.isfinite(self.k).all():
            raise DataError('camera_info: expected nine finite numbers in k')
        if self.k[0, 0] <= 0 or self.k[1, 1] <= 0:
            raise DataError(
                f'camera_info: expected focal lengths above 0 in k, '
                f'got {self.k[0, 0]:g} and {self.k[1, 1]:g}'
            )
        if not np.isfinite(self.d).all():
            raise DataError('camera_info: expected finite numbers in d')
        if self.d.any() and self.distortion_model not in DISTORTION_MODELS:
            raise DataError(
                f"camera_info: distortion model '{self.distortion_model}': expected one of "
                f'{", ".join(DISTORTION_MODELS)}'
            )
        counts = (4,) if self.distortion_model == 'equidistant' else (4, 5, 8, 12, 14)
        if self.d.any() and len(self.d) not in counts:
            raise DataError(
                f'camera_info: expected {" or ".join(map(str, counts))} numbers in d for '
                f'{self.distortion_model}, got {len(self.d)}'
            )

    def normalise(self, points: np.ndarray) -> np.ndarray:
        """Rays of pixels, distortion removed.

        Args:
            points: (N, 2) pixels.

        Returns:
            (N, 2) float64, x/z and y/z in the camera's frame (z forward).
        """
        points = np.ascontiguousarray(points, np.float64).reshape(-1, 1, 2)
        if not len(points):
            return points.reshape(0, 2)
        if self.distortion_model == 'equidistant' and self.d.any():
            rays = cv2.fisheye.undistortPoints(points, self.k, self.d[:4])
        else:
            rays = cv2.undistortPoints(points, self.k, self.d if self.d.any() else None)
        return rays.reshape(-1, 2)

    def rectify(self, points: np.ndarray) -> np.ndarray:
        """Rays of pixels in the frame of the rectified camera.

        Args:
            points: (N, 2) pixels.

        Returns:
            (N, 2) float64, x/z and y/z.
        """
        rays = self.normalise(points)
        turned = rays @ self.r[:, :2].T + self.r[:, 2]
        return turned[:, :2] / turned[:, 2:]

    @property
    def has_projection(self) -> bool:
        """Whether ``p`` can be that of a camera."""
        return bool(np.isfinite(self.p).all() and self.p[0, 0] > 0 and self.p[1, 1] > 0)

    def of_rectified_images(self) -> CameraModel:
        """The calibration of the images that rectification gives: ``p``, and no distortion.

        Raises:
            DataError: if ``p`` is not that of a camera.
        """
        if not self.has_projection:
            raise DataError(
                'camera_info: expected focal lengths above 0 in P, which holds for rectified images'
            )
        return CameraModel(self.width, self.height, self.p[:, :3], np.zeros(0), '', p=self.p)


def _numbers(message: Any, name: str) -> np.ndarray:
    """Read the field d, k, r or p of a camera_info, which ROS 1 writes in capitals."""
    value = getattr(message, name, None)
    return np.array(getattr(message, name.upper()) if value is None else value, np.float64)


def is_calibrated(message: Any) -> bool:
    """Tell whether a camera_info holds a calibration; drivers without one leave K at zero."""
    return bool(_numbers(message, 'k').any())


def camera_of_info(message: Any, rectified: bool = False) -> CameraModel:
    """Read the calibration in a ``sensor_msgs/CameraInfo``.

    Args:
        message: deserialised by rclpy or by ``rosbags``, of ROS 2 or ROS 1.
        rectified: the images are rectified already, so that its P holds for them.

    Raises:
        DataError: if it cannot be that of a camera.
    """
    model = CameraModel(
        width=int(message.width),
        height=int(message.height),
        k=_numbers(message, 'k').reshape(3, 3),
        d=_numbers(message, 'd'),
        distortion_model=message.distortion_model,
        r=_numbers(message, 'r').reshape(3, 3),
        p=_numbers(message, 'p').reshape(3, 4),
    )
    return model.of_rectified_images() if rectified else model

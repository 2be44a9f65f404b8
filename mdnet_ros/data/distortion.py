"""Lens distortion models of ``camera_info``: their names, coefficients, and inverses.

All functions work on the image plane at z = 1, before the camera matrix is applied. OpenCV has
the formulas and a first estimate of the inverse; what that estimate misses is solved for here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.polynomial import Polynomial

from mdnet_ros.errors import DataError

PLUMB_BOB = 'plumb_bob'
RATIONAL = 'rational_polynomial'
EQUIDISTANT = 'equidistant'
#: The names ROS has for the models that OpenCV's pinhole and fisheye functions implement.
DISTORTION_MODELS = (PLUMB_BOB, RATIONAL, EQUIDISTANT)

#: Other names that drivers and calibration tools write, in lower case with underscores.
_SYNONYMS = {
    'radtan': PLUMB_BOB,
    'radial_tangential': PLUMB_BOB,
    'brown_conrady': PLUMB_BOB,
    'opencv': PLUMB_BOB,
    'full_opencv': RATIONAL,
    'rational': RATIONAL,
    'thin_prism': RATIONAL,
    'fisheye': EQUIDISTANT,
    'opencv_fisheye': EQUIDISTANT,
    'equi': EQUIDISTANT,
    'pinhole_equi': EQUIDISTANT,
    'kannala_brandt': EQUIDISTANT,
    'kannala_brandt4': EQUIDISTANT,
    'kannala_brandt_4': EQUIDISTANT,
    'kannalabrandt': EQUIDISTANT,
    'kannalabrandt4': EQUIDISTANT,
    'kb': EQUIDISTANT,
    'kb4': EQUIDISTANT,
}
#: Names that drivers write where there is no distortion; coefficients under them mean something
#: that is not known here.
_WITHOUT_COEFFICIENTS = (
    '', 'none', 'null', 'no_distortion', 'undistorted', 'rectified', 'pinhole', 'perspective',
    'inverse_brown_conrady', 'modified_brown_conrady',
)  # fmt: skip
#: How many coefficients OpenCV takes.
_COUNTS = {PLUMB_BOB: (4, 5, 8, 12, 14), RATIONAL: (4, 5, 8, 12, 14), EQUIDISTANT: (4,)}

#: No lens has larger coefficients; their powers must not overflow.
_LARGEST = 1e6

#: Iterations of OpenCV's fixed-point inverse. Most lenses need fewer.
_FIXED_POINT = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 1e-9)
_NEWTON_STEPS = 20
#: Newton's method ends when all points are this share of the tolerance off.
_NEWTON_ENDS = 0.01
_BISECTIONS = 60


def canonical_distortion(model: str, coefficients: np.ndarray) -> tuple[str, np.ndarray]:
    """Check a distortion model and bring its name and coefficients into one form.

    Args:
        model: as ``camera_info`` names it.
        coefficients: (n,) in OpenCV's order.

    Returns:
        One of :data:`DISTORTION_MODELS`, and as many coefficients as it can have: zeros that a
        driver appended are dropped.

    Raises:
        DataError: if the model is not known, or the coefficients do not go with it.
    """
    d = np.array(coefficients, np.float64).reshape(-1)
    if not (np.abs(d) < _LARGEST).all():  # NaN is not, either
        raise DataError(f'camera_info: expected finite numbers below {_LARGEST:g} in d')
    name = '_'.join(model.lower().replace('-', ' ').replace('_', ' ').split())
    name = _SYNONYMS.get(name, name)
    if name in _WITHOUT_COEFFICIENTS and not d.any():
        return PLUMB_BOB, np.zeros(0)
    if name not in DISTORTION_MODELS:
        raise DataError(
            f"camera_info: distortion model '{model}': expected one of "
            f'{", ".join(DISTORTION_MODELS)}'
        )
    counts = _COUNTS[name]
    kept = max((count for count in counts if count <= len(d)), default=0)
    if d[kept:].any():
        raise DataError(
            f'camera_info: expected {" or ".join(map(str, counts))} numbers in d for {name}, '
            f'got {len(d)}'
        )
    return name, d[:kept]


@dataclass(frozen=True)
class LensDistortion:
    """Where a lens moves the points of the image plane, and back.

    Attributes:
        model: one of :data:`DISTORTION_MODELS`.
        d: (n,) float64 coefficients, from :func:`canonical_distortion`.
    """

    model: str
    d: np.ndarray

    @cached_property
    def limit(self) -> float:
        """Where the model ends: the radius (fisheye: the angle in radians) up to which it grows.

        A calibration is fitted inside the image. Beyond the first extremum or pole of its
        polynomial it folds back, so that pixels would have a second, wrong ray.
        """
        k = np.zeros(8)
        k[: min(8, len(self.d))] = self.d[:8]
        if self.model == EQUIDISTANT:
            slope = Polynomial([1, 0, 3 * k[0], 0, 5 * k[1], 0, 7 * k[2], 0, 9 * k[3]])
            return min(np.pi / 2, _first_root(slope))
        # OpenCV's order: k1, k2, p1, p2, k3, k4, k5, k6.
        above = Polynomial([0, 1, 0, k[0], 0, k[1], 0, k[4]])
        below = Polynomial([1, 0, k[5], 0, k[6], 0, k[7]])
        slope = above.deriv() * below - above * below.deriv()
        return min(_first_root(slope), _first_root(below))

    def distort(self, rays: np.ndarray) -> np.ndarray:
        """Apply the distortion.

        Args:
            rays: (N, 2) float64, x/z and y/z.

        Returns:
            (N, 2) float64 on the image plane; NaN where the model is not defined.
        """
        radius = np.linalg.norm(rays, axis=1)
        inside = (np.arctan(radius) if self.model == EQUIDISTANT else radius) <= self.limit
        plane = np.full(rays.shape, np.nan)
        if inside.any():
            plane[inside] = self._forward(rays[inside])
        return plane

    def undistort(self, plane: np.ndarray, tolerance: float) -> np.ndarray:
        """Remove the distortion.

        Args:
            plane: (N, 2) float64 on the image plane.
            tolerance: distance on the image plane that a ray may miss its point by when it is
                distorted again.

        Returns:
            (N, 2) float64, x/z and y/z; NaN where no ray comes that near.
        """
        if not len(plane):
            return np.zeros((0, 2))
        fisheye = self.model == EQUIDISTANT
        if not fisheye and not self.d.any():
            return plane.copy()
        points = np.ascontiguousarray(plane).reshape(-1, 1, 2)
        if fisheye:
            rays = cv2.fisheye.undistortPoints(points, np.eye(3), self._four).reshape(-1, 2)
        else:
            rays = cv2.undistortPointsIter(
                points, np.eye(3), self.d, np.eye(3), np.eye(3), _FIXED_POINT
            ).reshape(-1, 2)
        # Points far outside the image may overflow; they end as NaN.
        with np.errstate(all='ignore'):
            missed = np.nonzero(~self._agrees(rays, plane, tolerance))[0]
            if len(missed):
                again = (
                    self._solve_angle(plane[missed]) if fisheye
                    else self._solve_newton(plane[missed], rays[missed], tolerance)
                )
                again[~self._agrees(again, plane[missed], tolerance)] = np.nan
                rays[missed] = again
        return rays

    @property
    def _four(self) -> np.ndarray:
        """The coefficients as OpenCV's fisheye functions want them: exactly four."""
        return self.d if len(self.d) else np.zeros(4)

    def _forward(self, rays: np.ndarray) -> np.ndarray:
        points = np.column_stack([rays, np.ones(len(rays))]).reshape(-1, 1, 3)
        zero = np.zeros(3)
        if self.model == EQUIDISTANT:
            found = cv2.fisheye.projectPoints(points, zero, zero, np.eye(3), self._four)[0]
        else:
            found = cv2.projectPoints(points, zero, zero, np.eye(3), self.d)[0]
        return found.reshape(-1, 2)

    def _agrees(self, rays: np.ndarray, plane: np.ndarray, tolerance: float) -> np.ndarray:
        """(N,) bool: whether rays are distorted to where they should be; NaN does not."""
        return np.linalg.norm(self.distort(rays) - plane, axis=1) <= tolerance

    def _solve_newton(self, plane: np.ndarray, start: np.ndarray, tolerance: float) -> np.ndarray:
        """Invert the pinhole models by Newton's method inside the model's limit."""
        rays = self._clipped(np.where(np.isfinite(start), start, plane))
        zero = np.zeros(3)
        for _ in range(_NEWTON_STEPS):
            points = np.column_stack([rays, np.ones(len(rays))]).reshape(-1, 1, 3)
            found, jacobian = cv2.projectPoints(points, zero, zero, np.eye(3), self.d)
            error = plane - found.reshape(-1, 2)
            if np.linalg.norm(error, axis=1).max() < _NEWTON_ENDS * tolerance:
                break
            # At z = 1 the derivative by the translation's x and y is that by the ray's.
            slope = jacobian[:, 3:5].reshape(-1, 2, 2)
            regular = np.isfinite(slope).all(axis=(1, 2))
            regular[regular] = np.abs(np.linalg.det(slope[regular])) > 1e-9
            slope[~regular] = np.eye(2)
            rays = self._clipped(rays + np.linalg.solve(slope, error[..., None])[..., 0])
        return rays

    def _clipped(self, rays: np.ndarray) -> np.ndarray:
        """Shorten rays that are longer than the model allows."""
        bound = self.limit * (1 - 1e-9)
        radius = np.linalg.norm(rays, axis=1, keepdims=True)
        return rays * np.minimum(1.0, bound / np.maximum(radius, 1e-12))

    def _solve_angle(self, plane: np.ndarray) -> np.ndarray:
        """Invert the fisheye model by bisection of the angle, which its radius grows with."""
        k1, k2, k3, k4 = self._four
        radius = np.linalg.norm(plane, axis=1)
        low, high = np.zeros(len(plane)), np.full(len(plane), self.limit)
        for _ in range(_BISECTIONS):
            angle = (low + high) / 2
            s = angle * angle
            short = angle * (1 + s * (k1 + s * (k2 + s * (k3 + s * k4)))) < radius
            low, high = np.where(short, angle, low), np.where(short, high, angle)
        scale = np.tan(low) / np.maximum(radius, 1e-300)
        return plane * scale[:, None]


def _first_root(polynomial: Polynomial) -> float:
    """Return the smallest positive real root of a polynomial, or infinity."""
    roots = polynomial.trim(1e-12).roots()
    real = roots[np.abs(roots.imag) < 1e-9].real
    return float(min((root for root in real if root > 0), default=np.inf))

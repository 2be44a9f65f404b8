"""Camera poses from matches, and their errors.

``b_from_a`` takes points of camera a's frame to camera b's, ``world_to_camera`` those of the
world: X_b = R X_a + t. Camera frames have x right, y down, z forward.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mdnet_ros.data.poses import Pose
from mdnet_ros.errors import MissingDependencyError
from mdnet_ros.evaluation.essential import estimate_by_opencv

try:
    import poselib
except ImportError:  # OpenCV does its work
    poselib = None

#: Fewer matches than this give no essential matrix that can be trusted.
MIN_MATCHES = 6
#: Error counted where no pose was found, degrees: the largest there is.
WORST_ERROR = 180.0


@dataclass(frozen=True)
class RelativePose:
    """Relative pose of two views from a robust fit.

    Attributes:
        b_from_a: the translation has unit length, its scale is not observable.
        inliers: (M,) bool, which matches agree.
    """

    b_from_a: Pose
    inliers: np.ndarray


def solver_name() -> str:
    """Name the library that estimates poses: ``poselib`` or ``OpenCV USAC``."""
    return 'poselib' if poselib is not None else 'OpenCV USAC'


def poselib_camera(intrinsics: np.ndarray, image_size: tuple[int, int]) -> dict[str, object]:
    """Describe a camera to poselib, from its (3, 3) intrinsic matrix and (width, height)."""
    k = intrinsics
    return {
        'model': 'PINHOLE',
        'width': int(image_size[0]),
        'height': int(image_size[1]),
        'params': [float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])],
    }


def estimate_relative_pose(
    points_a: np.ndarray,
    points_b: np.ndarray,
    intrinsics_a: np.ndarray,
    intrinsics_b: np.ndarray,
    max_error: float,
    seed: int = 0,
) -> RelativePose | None:
    """Fit an essential matrix robustly, by poselib's LO-RANSAC, else by OpenCV's USAC (MAGSAC++).

    Args:
        points_a, points_b: (M, 2) matched pixels.
        intrinsics_a, intrinsics_b: (3, 3) pinhole matrices.
        max_error: epipolar (Sampson) distance up to which a match agrees, pixels.
        seed: seed of the random sampling.

    Returns:
        The pose, or None with fewer than ``MIN_MATCHES`` matches or inliers.
    """
    if len(points_a) < MIN_MATCHES:
        return None
    a, b = (np.ascontiguousarray(p, np.float64) for p in (points_a, points_b))
    fit = _fit_poselib if poselib is not None else _fit_opencv
    found = fit(a, b, intrinsics_a, intrinsics_b, max_error, seed)
    if found is None or found.inliers.sum() < MIN_MATCHES:
        return None
    return found


def _fit_poselib(
    a: np.ndarray, b: np.ndarray, k_a: np.ndarray, k_b: np.ndarray, max_error: float, seed: int
) -> RelativePose | None:
    pose, info = poselib.estimate_relative_pose(
        a,
        b,
        poselib_camera(k_a, (0, 0)),
        poselib_camera(k_b, (0, 0)),
        {'max_epipolar_error': max_error, 'max_iterations': 10000, 'seed': seed},
        {},
    )
    length = np.linalg.norm(pose.t)
    if not np.isfinite(length) or length == 0.0:
        return None
    found = Pose(np.asarray(pose.R), np.asarray(pose.t) / length)
    return RelativePose(found, np.asarray(info['inliers'], bool))


def _fit_opencv(
    a: np.ndarray, b: np.ndarray, k_a: np.ndarray, k_b: np.ndarray, max_error: float, seed: int
) -> RelativePose | None:
    rays = [cv2.undistortPoints(p[:, None], k, None)[:, 0] for p, k in ((a, k_a), (b, k_b))]
    # Poselib scales its threshold by the mean of the inverse focal lengths, too.
    focal = 2 / sum(2 / (k[0, 0] + k[1, 1]) for k in (k_a, k_b))
    found = estimate_by_opencv(rays[0], rays[1], focal, max_error, seed)
    return None if found is None else RelativePose(*found)


@dataclass(frozen=True)
class AbsolutePose:
    """Pose of one view of known points from a robust fit.

    Attributes:
        camera_to_world: in the world of the points.
        inliers: (N,) bool, which points agree.
    """

    camera_to_world: Pose
    inliers: np.ndarray


def estimate_absolute_pose(
    rays: np.ndarray,
    points: np.ndarray,
    intrinsics: np.ndarray,
    max_error: float,
    min_inliers: int,
    seed: int = 0,
) -> AbsolutePose | None:
    """Fit a camera's pose to points it sees (PnP), robustly, by poselib's LO-RANSAC.

    Args:
        rays: (N, 3) rays on which the points are seen, z = 1.
        points: (N, 3) in the world.
        intrinsics: (3, 3) pinhole matrix, to weigh errors in pixels.
        max_error: reprojection error up to which a point agrees, pixels.
        min_inliers: with fewer there is no pose.
        seed: seed of the random sampling.

    Raises:
        MissingDependencyError: without poselib.
    """
    if poselib is None:
        raise MissingDependencyError('poselib', 'evaluate', 'visual odometry')
    if len(rays) < min_inliers:
        return None
    found, info = poselib.estimate_absolute_pose(
        (rays @ intrinsics.T)[:, :2],
        points,
        poselib_camera(intrinsics, (0, 0)),
        {'max_reproj_error': max_error, 'seed': seed},
        {},
    )
    inliers = np.asarray(info['inliers'], bool)
    if inliers.sum() < min_inliers or not np.isfinite(found.t).all():
        return None
    return AbsolutePose(Pose(np.asarray(found.R), np.asarray(found.t)).inverse(), inliers)


def rotation_error_deg(truth: np.ndarray, estimate: np.ndarray) -> float:
    """Compute the angle between two (3, 3) rotations, degrees in [0, 180]."""
    residual = truth.T @ estimate
    # atan2 keeps its precision near 0 and 180 degrees, where arccos loses half the digits.
    sine = np.linalg.norm(
        [
            residual[2, 1] - residual[1, 2],
            residual[0, 2] - residual[2, 0],
            residual[1, 0] - residual[0, 1],
        ]
    )
    return float(np.degrees(np.arctan2(sine, np.trace(residual) - 1.0)))


def direction_error_deg(truth: np.ndarray, estimate: np.ndarray, signed: bool = False) -> float:
    """Compute the angle between two translation directions, degrees.

    Args:
        truth: 3 numbers, any length.
        estimate: 3 numbers, any length.
        signed: distinguish a direction from its opposite. The Image Matching Benchmark does not.

    Returns:
        In [0, 180], or [0, 90] if not signed. 0 where the true translation vanishes, because
        it then has no direction to miss; the largest where only the estimate vanishes.
    """
    truth, estimate = np.ravel(truth), np.ravel(estimate)
    if np.linalg.norm(truth) == 0.0:
        return 0.0
    if np.linalg.norm(estimate) == 0.0:
        return 180.0 if signed else 90.0
    sine = np.linalg.norm(np.cross(truth, estimate))
    cosine = float(truth @ estimate)
    return float(np.degrees(np.arctan2(sine, cosine if signed else abs(cosine))))


def pose_errors(
    truth: Pose, estimate: Pose | None, signed: bool = False
) -> tuple[float, float]:
    """Compute the errors of a relative pose in rotation and translation direction, degrees.

    Args:
        truth: b_from_a.
        estimate: the same, or None where none was found: ``WORST_ERROR`` twice.
        signed: as in :func:`direction_error_deg`.
    """
    if estimate is None:
        return WORST_ERROR, WORST_ERROR
    return (
        rotation_error_deg(truth.rotation, estimate.rotation),
        direction_error_deg(truth.translation, estimate.translation, signed),
    )


def mean_average_accuracy(errors: np.ndarray, max_degrees: int = 10) -> float:
    """Compute the mean, over the thresholds 1 … ``max_degrees``, of the share of errors below each.

    Jin et al., Image Matching across Wide Baselines (IJCV 2021), with the larger of rotation
    and translation-direction error of every pair.

    Args:
        errors: (P,) degrees; pairs without a pose count as ``WORST_ERROR``.
        max_degrees: the last threshold.

    Returns:
        In [0, 1]; 0 without a pair.
    """
    errors = np.asarray(errors, np.float64)
    if not len(errors):
        return 0.0
    thresholds = np.arange(1, max_degrees + 1)
    return float(np.mean(errors[:, None] < thresholds[None]))

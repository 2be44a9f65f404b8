"""Relative pose of two views by OpenCV, where poselib is not installed.

OpenCV samples essential matrices; the pose is then refined on the matches that agree with it, as
poselib's LO-RANSAC does.
"""

from __future__ import annotations

import cv2
import numpy as np

from mdnet_ros.data.poses import Pose

#: Iterations of the sampling, as many as poselib is given.
_MAX_ITERATIONS = 10_000
_CONFIDENCE = 0.9999
_REFINEMENTS = 10
#: Step of the numeric derivative, radians.
_STEP = 1e-6


def estimate_by_opencv(
    rays_a: np.ndarray, rays_b: np.ndarray, focal: float, max_error: float, seed: int
) -> tuple[Pose, np.ndarray] | None:
    """Fit a relative pose by OpenCV's USAC with MAGSAC++ weights, and refine it.

    Args:
        rays_a, rays_b: (M, 2) x/z and y/z of the matches.
        focal: focal length of the images, pixels; the sampler's tables of errors are made for
            pixels, so it is not given rays.
        max_error: Sampson distance up to which a match agrees, pixels.
        seed: seed of the random sampling.

    Returns:
        ``b_from_a`` with a translation of length 1 and (M,) bool, which matches agree; None if no
        essential matrix was found.
    """
    # OpenCV's USAC always draws the same rows: the seed shuffles them.
    order = np.random.default_rng(seed).permutation(len(rays_a))
    drawn_a, drawn_b = rays_a[order], rays_b[order]
    try:
        essential, mask = cv2.findEssentialMat(
            drawn_a * focal, drawn_b * focal, np.diag([focal, focal, 1.0]),
            method=cv2.USAC_MAGSAC, prob=_CONFIDENCE, threshold=max_error,
            maxIters=_MAX_ITERATIONS,
        )
        if essential is None or essential.shape != (3, 3):
            return None
        _, rotation, direction, _ = cv2.recoverPose(
            essential, drawn_a, drawn_b, np.eye(3), mask=mask.copy()
        )
    except cv2.error:
        return None
    a, b = (np.column_stack([rays, np.ones(len(rays))]) for rays in (rays_a, rays_b))
    limit = max_error / focal
    pose = _refine(Pose(rotation, direction.ravel()), a, b, limit)
    return pose, np.abs(sampson_distances(pose, a, b)) < limit


def sampson_distances(b_from_a: Pose, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute the signed Sampson distances of matches from a relative pose.

    Hartley and Zisserman, Multiple View Geometry, 2nd edition, equation 11.9.

    Args:
        b_from_a: the relative pose.
        a, b: (M, 3) rays with z = 1.

    Returns:
        (M,) in units of the image plane at z = 1; NaN at an epipole.
    """
    x, y, z = b_from_a.translation
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ b_from_a.rotation
    lines_b, lines_a = a @ essential.T, b @ essential
    slope = np.linalg.norm(np.column_stack([lines_b[:, :2], lines_a[:, :2]]), axis=1)
    return (b * lines_b).sum(axis=1) / np.where(slope > 0, slope, np.nan)


def _refine(pose: Pose, a: np.ndarray, b: np.ndarray, limit: float) -> Pose:
    """Minimise the truncated squared Sampson distances by Gauss-Newton steps."""

    def cost(candidate: Pose) -> float:
        distances = sampson_distances(candidate, a, b)
        return float(np.nansum(np.minimum(distances**2, limit**2)))

    least = cost(pose)
    for _ in range(_REFINEMENTS):
        distances = sampson_distances(pose, a, b)
        agree = np.abs(distances) < limit
        if agree.sum() < 5:
            break
        residuals = distances[agree]
        jacobian = np.column_stack([
            (sampson_distances(_moved(pose, step), a[agree], b[agree]) - residuals) / _STEP
            for step in np.eye(5) * _STEP
        ])
        if not np.isfinite(jacobian).all():
            break
        candidate = _moved(pose, np.linalg.lstsq(jacobian, -residuals, rcond=None)[0])
        found = cost(candidate)
        if not found < least:
            break
        pose, least = candidate, found
    return pose


def _moved(pose: Pose, step: np.ndarray) -> Pose:
    """Turn a pose by three angles and its translation's direction by two."""
    across = np.linalg.svd(pose.translation[None])[2][1:]
    direction = pose.translation + step[3:] @ across
    return Pose(
        cv2.Rodrigues(step[:3])[0] @ pose.rotation, direction / np.linalg.norm(direction)
    )

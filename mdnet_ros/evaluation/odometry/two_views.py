"""Motion between two views by the essential matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mdnet_ros.data.poses import Pose
from mdnet_ros.evaluation.odometry.triangulation import angles_between
from mdnet_ros.evaluation.odometry.views import View, common_rows
from mdnet_ros.evaluation.pose import estimate_relative_pose

#: Share of the mean parallax that no rotation may explain; below it the motion is ambiguous.
_CERTAIN = 0.3
#: Rounds of reweighting by which a rotation is fitted.
_ROUNDS = 10


@dataclass(frozen=True)
class TwoViewMotion:
    """Motion from an earlier view to a later one.

    Attributes:
        earlier_from_later: pose of the later camera in the earlier one; its translation has
            unit length.
        rows: (M,) int64, rows of the later view whose observations agree with the motion.
        parallax: (M,) float64, angle between the two rays of each of these observations after
            the rotation of the motion is taken out, radians.
        certain_parallax: (M,) float64, the same after the rotation that aligns the rays best: no
            camera that only turns explains it.
    """

    earlier_from_later: Pose
    rows: np.ndarray
    parallax: np.ndarray
    certain_parallax: np.ndarray

    @property
    def is_ambiguous(self) -> bool:
        """Whether a rotation may have been taken for a translation.

        In a narrow field of view, a small turn and a small step to the side look alike; only the
        differences in depth tell them apart. A motion is doubtful if nearly all of its parallax
        disappears once the views are aligned by a rotation.
        """
        return bool(self.certain_parallax.mean() < _CERTAIN * self.parallax.mean())


def estimate_motion(
    earlier: View, later: View, focal: float, max_error: float, seed: int
) -> TwoViewMotion | None:
    """Estimate the motion between two views from the landmarks that both observe.

    Args:
        earlier: the first view.
        later: the second view.
        focal: focal length that turns errors on the plane z = 1 into pixels.
        max_error: largest epipolar error of an inlier, pixels.
        seed: seed of the random sampling.

    Returns:
        The motion, or None if none is found.
    """
    rows_a, rows_b = common_rows(earlier, later)
    a, b = earlier.rays[rows_a], later.rays[rows_b]
    k = np.diag([focal, focal, 1.0])
    fit = estimate_relative_pose(focal * a[:, :2], focal * b[:, :2], k, k, max_error, seed)
    if fit is None:
        return None
    a, b = a[fit.inliers], b[fit.inliers]
    parallax = angles_between(a @ fit.b_from_a.rotation.T, b)
    return TwoViewMotion(
        fit.b_from_a.inverse(), rows_b[fit.inliers], parallax, certain_parallax(a, b, focal)
    )


def certain_parallax(a: np.ndarray, b: np.ndarray, focal: float) -> np.ndarray:
    """Return the (M,) angles that are left between rays after the rotation that aligns them best.

    Args:
        a: (M, 3) directions of any length.
        b: (M, 3) row by row the directions to the same points in another view.
        focal: focal length, pixels; residuals below half a pixel count as equal.

    Returns:
        (M,) float64, radians: no camera that only turns explains them.
    """
    return angles_between(a @ align_rotation(a, b, 0.5 / focal).T, b)


def align_rotation(a: np.ndarray, b: np.ndarray, precision: float) -> np.ndarray:
    """Fit the rotation that takes directions to others with the smallest sum of angles.

    Kabsch's solution by singular values (Kabsch, Acta Crystallographica A 32, 1976), iteratively
    reweighted by the inverse residuals, so that outliers and near points count less.

    Args:
        a: (M, 3) directions of any length.
        b: (M, 3) row by row the same directions after the rotation.
        precision: residuals below this count as equal, radians.

    Returns:
        (3, 3) rotation R, b = R a.
    """
    a = a / np.linalg.norm(a, axis=1, keepdims=True)
    b = b / np.linalg.norm(b, axis=1, keepdims=True)
    weight = np.ones(len(a))
    rotation = np.eye(3)
    for _ in range(_ROUNDS):
        u, _, v = np.linalg.svd((weight[:, None] * b).T @ a)
        rotation = u @ np.diag([1.0, 1.0, np.linalg.det(u @ v)]) @ v
        weight = 1 / np.maximum(angles_between(a @ rotation.T, b), precision)
    return rotation


def step_length(
    later: View, rows: np.ndarray, points: Mapping[int, np.ndarray], start: Pose, motion: Pose
) -> float | None:
    """Estimate how far the camera moved, from known points that the later view observes.

    Each point gives the length for which it lies on its ray. The weighted median of the lengths
    is taken; a weight is the sine by which a unit step turns the ray.

    Args:
        later: the view after the step.
        rows: (M,) its observations that agree with the motion.
        points: id to (3,) point in the map.
        start: pose of the camera before the step, camera to map.
        motion: pose of the later camera in the earlier one, with a translation of unit length.

    Returns:
        The length in the unit of the map, or None if fewer than three of the points are known
        or they ask for a step backwards.
    """
    known = [row for row in rows.tolist() if int(later.ids[row]) in points]
    if len(known) < 3:
        return None
    positions = np.stack([points[int(later.ids[row])] for row in known]) - start.translation
    direction = start.rotation @ motion.translation
    rays = later.rays[known] @ (start.rotation @ motion.rotation).T
    # The point minus length · direction is parallel to the ray: their cross product vanishes.
    constant, slope = np.cross(positions, rays), np.cross(direction, rays)
    square = (slope * slope).sum(axis=1)
    lengths = (constant * slope).sum(axis=1) / np.maximum(square, 1e-12)
    order = np.argsort(lengths)
    weight = np.cumsum(np.sqrt(square[order]))
    length = float(lengths[order][np.searchsorted(weight, weight[-1] / 2)])
    return length if length > 0 else None

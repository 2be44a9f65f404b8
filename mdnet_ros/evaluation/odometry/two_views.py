"""Motion between two views by the essential matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mdnet_ros.data.poses import Pose
from mdnet_ros.evaluation.odometry.triangulation import angles_between
from mdnet_ros.evaluation.odometry.views import View, common_rows
from mdnet_ros.evaluation.pose import estimate_relative_pose


@dataclass(frozen=True)
class TwoViewMotion:
    """Motion from an earlier view to a later one.

    Attributes:
        earlier_from_later: pose of the later camera in the earlier one; its translation has
            unit length.
        rows: (M,) int64, rows of the later view whose observations agree with the motion.
        parallax: (M,) float64, angle between the two rays of each of these observations after
            the rotation is taken out, radians.
    """

    earlier_from_later: Pose
    rows: np.ndarray
    parallax: np.ndarray


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
    turned = a[fit.inliers] @ fit.b_from_a.rotation.T
    parallax = angles_between(turned, b[fit.inliers])
    return TwoViewMotion(fit.b_from_a.inverse(), rows_b[fit.inliers], parallax)


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

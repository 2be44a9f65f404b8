"""Bundle adjustment of a short window of frames: Levenberg-Marquardt on the Schur complement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from mdnet_ros.data.poses import Pose

#: Points nearer than this along the optical axis, or behind, are treated as if this near.
_MIN_DEPTH = 1e-6


@dataclass(frozen=True)
class Observations:
    """Which point is seen where.

    Attributes:
        frame: (M,) int, row of the frame's pose.
        point: (M,) int, row of the point; a frame sees a point once.
        plane: (M, 2) where, on the plane z = 1 of the camera.
    """

    frame: np.ndarray
    point: np.ndarray
    plane: np.ndarray


@dataclass(frozen=True)
class _Bundle:
    """Poses (world to camera) and points."""

    rotations: np.ndarray
    translations: np.ndarray
    points: np.ndarray

    @staticmethod
    def of(poses: Sequence[Pose], points: np.ndarray) -> _Bundle:
        """Of poses and (P, 3) points."""
        return _Bundle(
            np.stack([pose.rotation for pose in poses]),
            np.stack([pose.translation for pose in poses]),
            np.asarray(points, np.float64),
        )

    def moved(self, poses: np.ndarray, points: np.ndarray) -> _Bundle:
        """After steps (F, 6), turn and shift of each pose, and (P, 3) of the points."""
        turns = np.stack([cv2.Rodrigues(step[:3])[0] for step in poses])
        return _Bundle(
            turns @ self.rotations, self.translations + poses[:, 3:], self.points + points
        )


def adjust(
    poses: Sequence[Pose],
    points: np.ndarray,
    seen: Observations,
    fixed: int,
    focal: float,
    max_error: float,
    iterations: int = 10,
) -> tuple[list[Pose], np.ndarray]:
    """Poses and points with the least (Huber) reprojection error.

    Args:
        poses: world to camera.
        points: (P, 3) in the world, in front of the cameras that see them.
        seen: at least one of each point.
        fixed: how many of the first poses stay as they are; two of them hold the scale.
        focal: length, to weigh errors in pixels.
        max_error: from which on errors count linearly, pixels.
        iterations: at most.

    Returns:
        As given, adjusted.
    """
    bundle = _Bundle.of(poses, points)
    damping = 1e-3
    errors, turned = _errors(bundle, seen, focal)
    cost = _cost(errors, max_error)
    for _ in range(iterations):
        step = _step(bundle, seen, errors, turned, fixed, focal, max_error, damping)
        if step is None:
            break
        candidate = bundle.moved(*step)
        new_errors, new_turned = _errors(candidate, seen, focal)
        new_cost = _cost(new_errors, max_error)
        if not new_cost < cost:
            damping *= 10
            if damping > 1e4:
                break
            continue
        converged = cost - new_cost < 1e-4 * cost
        bundle, errors, turned, cost = candidate, new_errors, new_turned, new_cost
        damping = max(damping / 5, 1e-8)
        if converged:
            break
    return [
        Pose(r, t) for r, t in zip(bundle.rotations, bundle.translations, strict=True)
    ], bundle.points


def reprojection(
    poses: Sequence[Pose], points: np.ndarray, seen: Observations, focal: float
) -> tuple[np.ndarray, np.ndarray]:
    """(M, 2) errors in pixels and (M,) depths of observations; arguments as in :func:`adjust`."""
    bundle = _Bundle.of(poses, points)
    errors, turned = _errors(bundle, seen, focal)
    return errors, turned[:, 2] + bundle.translations[seen.frame, 2]


def _errors(
    bundle: _Bundle, seen: Observations, focal: float
) -> tuple[np.ndarray, np.ndarray]:
    """(M, 2) reprojection errors in pixels and (M, 3) points, turned into the camera's axes."""
    turned = np.einsum('mij,mj->mi', bundle.rotations[seen.frame], bundle.points[seen.point])
    camera = turned + bundle.translations[seen.frame]
    depth = np.maximum(camera[:, 2:], _MIN_DEPTH)
    return focal * (camera[:, :2] / depth - seen.plane), turned


def _cost(errors: np.ndarray, max_error: float) -> float:
    """Sum of Huber losses."""
    length = np.linalg.norm(errors, axis=1)
    linear = 2 * max_error * length - max_error**2
    return float(np.where(length <= max_error, length**2, linear).sum())


def _step(
    bundle: _Bundle,
    seen: Observations,
    errors: np.ndarray,
    turned: np.ndarray,
    fixed: int,
    focal: float,
    max_error: float,
    damping: float,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Steps of the poses (F, 6) and points (P, 3); None where the equations have no solution.

    The points are eliminated from the damped normal equations (Triggs et al., "Bundle
    Adjustment: A Modern Synthesis", 1999).
    """
    count, frames = len(bundle.points), len(bundle.rotations)
    x, y, z = (turned + bundle.translations[seen.frame]).T
    z = np.maximum(z, _MIN_DEPTH)
    project = np.zeros((len(z), 2, 3))
    project[:, 0, 0] = project[:, 1, 1] = focal / z
    project[:, 0, 2], project[:, 1, 2] = -focal * x / z**2, -focal * y / z**2
    root = np.sqrt(np.minimum(1, max_error / np.maximum(np.linalg.norm(errors, axis=1), 1e-12)))
    project *= root[:, None, None]
    weighted = errors * root[:, None]
    by_pose = np.concatenate([project @ -_cross(turned), project], axis=2)
    by_point = project @ bundle.rotations[seen.frame]
    # One slot for each frame and point, 0 where it is not seen: sums become matrix products.
    of_pose, of_point = np.zeros((frames, count, 2, 6)), np.zeros((frames, count, 2, 3))
    off = np.zeros((frames, count, 2))
    at = seen.frame, seen.point
    of_pose[at], of_point[at], off[at] = by_pose, by_point, weighted
    rows = of_pose.reshape(frames, 2 * count, 6)
    pose_pose = rows.transpose(0, 2, 1) @ rows
    pose_side = (rows.transpose(0, 2, 1) @ off.reshape(frames, 2 * count, 1))[:, :, 0]
    columns = of_point.transpose(1, 0, 2, 3).reshape(count, 2 * frames, 3)
    point_point = columns.transpose(0, 2, 1) @ columns
    point_side = (
        columns.transpose(0, 2, 1) @ off.transpose(1, 0, 2).reshape(count, 2 * frames, 1)
    )[:, :, 0]
    both = of_pose.transpose(0, 1, 3, 2) @ of_point
    free = slice(fixed, frames)
    size = 6 * (frames - fixed)
    for blocks in (pose_pose, point_point):
        diagonal = np.einsum('nii->ni', blocks)  # a view
        diagonal *= 1 + damping
        diagonal += 1e-9
    try:
        inverse = np.linalg.inv(point_point)
        mixed = both[free].transpose(0, 2, 1, 3).reshape(size, 3 * count)
        reduced = both[free] @ inverse
        reduced = reduced.transpose(0, 2, 1, 3).reshape(size, 3 * count)
        system = -reduced @ mixed.T
        for i in range(frames - fixed):
            part = slice(6 * i, 6 * i + 6)
            system[part, part] += pose_pose[fixed + i]
        side = pose_side[free].ravel() - reduced @ point_side.ravel()
        of_poses = -np.linalg.solve(system, side) if size else np.zeros(0)
    except np.linalg.LinAlgError:
        return None
    rest = point_side + (mixed.T @ of_poses).reshape(count, 3)
    of_points = -np.einsum('nij,nj->ni', inverse, rest)
    if not (np.isfinite(of_poses).all() and np.isfinite(of_points).all()):
        return None
    poses = np.zeros((frames, 6))
    poses[free] = of_poses.reshape(-1, 6)
    return poses, of_points


def _cross(vectors: np.ndarray) -> np.ndarray:
    """(N, 3, 3) matrices of the cross products with (N, 3) vectors."""
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)

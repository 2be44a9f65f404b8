"""Bundle adjustment of a short window of frames, by SciPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from mdnet_ros.errors import MissingDependencyError
from mdnet_ros.poses import Pose

try:
    from scipy.optimize import least_squares
    from scipy.sparse import coo_matrix
except ImportError:
    least_squares = None


@dataclass(frozen=True)
class Observations:
    """Which point is seen where.

    Attributes:
        frame: (M,) int, row of the frame's pose.
        point: (M,) int, row of the point.
        plane: (M, 2) where, on the plane z = 1 of the camera.
    """

    frame: np.ndarray
    point: np.ndarray
    plane: np.ndarray


def adjust(
    poses: Sequence[Pose],
    points: np.ndarray,
    seen: Observations,
    fixed: int,
    focal: float,
    max_error: float,
) -> tuple[list[Pose], np.ndarray]:
    """Poses and points with the least (Huber) reprojection error.

    Args:
        poses: world to camera.
        points: (P, 3) in the world, in front of the cameras that see them.
        seen: at least one of each point.
        fixed: how many of the first poses stay as they are; two of them hold the scale.
        focal: length, to weigh errors in pixels.
        max_error: from which on errors count linearly, pixels.

    Returns:
        As given, adjusted.

    Raises:
        MissingDependencyError: without SciPy.
    """
    if least_squares is None:
        raise MissingDependencyError('scipy', 'evaluate', 'visual odometry')
    count, free = len(points), len(poses) - fixed
    rotations = np.stack([pose.rotation for pose in poses])
    translations = np.stack([pose.translation for pose in poses])

    def unpack(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        steps = x[: 6 * free].reshape(free, 6)
        r, t = rotations.copy(), translations.copy()
        for i, step in enumerate(steps, start=fixed):
            r[i] = cv2.Rodrigues(step[:3])[0] @ rotations[i]
            t[i] = translations[i] + step[3:]
        return r, t, x[6 * free :].reshape(count, 3)

    def residuals(x: np.ndarray) -> np.ndarray:
        r, t, xyz = unpack(x)
        camera = np.einsum('mij,mj->mi', r[seen.frame], xyz[seen.point]) + t[seen.frame]
        depth = np.maximum(camera[:, 2:], 1e-6)
        return (focal * (camera[:, :2] / depth - seen.plane)).ravel()

    start = np.concatenate([np.zeros(6 * free), points.ravel()])
    solved = least_squares(
        residuals, start, jac_sparsity=_sparsity(seen, count, fixed, free), x_scale='jac',
        loss='huber', f_scale=max_error, max_nfev=8, ftol=1e-4,
    )
    r, t, xyz = unpack(solved.x)
    return [Pose(*pose) for pose in zip(r, t, strict=True)], xyz


def _sparsity(seen: Observations, count: int, fixed: int, free: int) -> coo_matrix:
    """Which parameter moves which residual."""
    rows = np.arange(2 * len(seen.frame)).reshape(-1, 2)
    moves = seen.frame >= fixed
    of_pose = 6 * (seen.frame[moves] - fixed)[:, None] + np.arange(6)
    of_point = 6 * free + 3 * seen.point[:, None] + np.arange(3)
    pairs = [
        (np.repeat(rows[moves, axis], columns.shape[1]), columns.ravel())
        if columns is of_pose
        else (np.repeat(rows[:, axis], 3), columns.ravel())
        for axis in (0, 1)
        for columns in (of_pose, of_point)
    ]
    i, j = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return coo_matrix((np.ones(len(i)), (i, j)), shape=(rows.size, 6 * free + 3 * count))

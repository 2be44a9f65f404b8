"""Geometry of points in images: homographies, distances to points and to epipolar lines."""

from __future__ import annotations

import numpy as np

from mdnet_ros.data.camera import CameraModel

#: Rows of the distance matrix held at a time.
_CHUNK = 512


def project(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points by a homography.

    Args:
        homography: (3, 3).
        points: (N, 2) x and y, pixels.

    Returns:
        (N, 2) float64; infinite for points that map to infinity or lie behind the camera.
    """
    points = np.asarray(points, np.float64).reshape(-1, 2)
    mapped = np.column_stack([points, np.ones(len(points))]) @ np.asarray(homography, np.float64).T
    depth = mapped[:, 2:]
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.where(depth > 0, mapped[:, :2] / depth, np.inf)


def inside(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (N,) bool: which points lie on a pixel of an image of ``size`` (width, height)."""
    width, height = size
    x, y = points[:, 0], points[:, 1]
    return (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)


def nearest_distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return (N,) distances of points to the nearest of ``others``; infinite if there is none."""
    nearest = np.full(len(points), np.inf)
    if not len(others):
        return nearest
    squared_norm = (others**2).sum(axis=1)
    for start in range(0, len(points), _CHUNK):
        part = points[start : start + _CHUNK]
        # Which one is nearest comes from a matrix product; how far it is, from the difference.
        index = (squared_norm - 2.0 * part @ others.T).argmin(axis=1)
        nearest[start : start + _CHUNK] = np.linalg.norm(part - others[index], axis=1)
    return nearest


def epipolar_distance(
    camera: CameraModel,
    rotation: np.ndarray,
    translation: np.ndarray,
    points_a: np.ndarray,
    points_b: np.ndarray,
) -> np.ndarray:
    """Compute the distance of points to the epipolar lines of their partners.

    The distance is |xᵦᵀ F xₐ| / ‖(F xₐ)₁₂‖ (Hartley and Zisserman, Multiple View Geometry,
    2nd edition, section 11.4).

    Args:
        camera: the one that took both images.
        rotation: (3, 3), X_b = rotation · X_a + translation.
        translation: (3,), not zero.
        points_a: (M, 2) pixels in image a.
        points_b: (M, 2) pixels in image b.

    Returns:
        (M,) pixels of the undistorted image b; NaN where a point has no ray.
    """
    tx, ty, tz = translation / np.linalg.norm(translation)
    essential = np.array([[0, -tz, ty], [tz, 0, -tx], [-ty, tx, 0]]) @ rotation
    rays_a, rays_b = (
        np.column_stack([camera.normalise(p), np.ones(len(p))]) for p in (points_a, points_b)
    )
    lines = rays_a @ essential.T @ np.linalg.inv(camera.k)
    pixels = rays_b @ camera.k.T
    return np.abs((lines * pixels).sum(axis=1)) / np.linalg.norm(lines[:, :2], axis=1)

"""Geometry of rays from two places."""

from __future__ import annotations

import numpy as np

from mdnet_ros.data.poses import Pose


def angles_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N,) radians between the rows of two (N, 3) arrays."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(axis=1) / np.maximum(lengths, 1e-300)
    return np.arccos(np.clip(cosine, -1.0, 1.0))


def midpoints(
    centres_a: np.ndarray, rays_a: np.ndarray, centre_b: np.ndarray, rays_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points halfway between pairs of rays where these come closest.

    Args:
        centres_a: (N, 3) where the first rays start.
        rays_a: (N, 3) their directions, any length.
        centre_b: (3,) or (N, 3), where the second rays start.
        rays_b: (N, 3) their directions, any length.

    Returns:
        (N, 3) points, and (N,) twice how far along the two rays they lie, in lengths of these;
        far behind where two rays are parallel.
    """
    baseline = centre_b - centres_a
    aa, bb, ab = ((p * q).sum(axis=1) for p, q in
                  ((rays_a, rays_a), (rays_b, rays_b), (rays_a, rays_b)))
    da, db = (baseline * rays_a).sum(axis=1), (baseline * rays_b).sum(axis=1)
    determinant = aa * bb - ab * ab
    parallel = determinant <= 1e-12 * aa * bb
    determinant = np.where(parallel, 1.0, determinant)
    along_a = np.where(parallel, -1.0, (bb * da - ab * db) / determinant)
    along_b = np.where(parallel, -1.0, (ab * da - aa * db) / determinant)
    first = centres_a + along_a[:, None] * rays_a
    second = centre_b + along_b[:, None] * rays_b
    return (first + second) / 2, along_a, along_b


def epipolar_errors(motion: Pose, then: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Sampson distances of rays to the epipolar geometry of a motion.

    Args:
        motion: X_now = rotation · X_then + translation.
        then: (N, 3) rays, z = 1.
        now: (N, 3) rays, z = 1.

    Returns:
        (N,) distances on the plane z = 1; times the focal length: pixels.
    """
    x, y, z = motion.translation / max(float(np.linalg.norm(motion.translation)), 1e-12)
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ motion.rotation
    lines_now, lines_then = then @ essential.T, now @ essential
    slope = (lines_now[:, :2] ** 2).sum(axis=1) + (lines_then[:, :2] ** 2).sum(axis=1)
    return np.abs((lines_now * now).sum(axis=1)) / np.sqrt(np.maximum(slope, 1e-18))


def step_length(points: np.ndarray, rays: np.ndarray, direction: np.ndarray) -> float | None:
    """How far a camera moved, by known points that it sees from the new place.

    Each point tells a length; the median counts, weighted with how well each can tell.

    Args:
        points: (N, 3) as seen from the old place.
        rays: (N, 3) from the new place, in the same axes.
        direction: (3,) of the step, unit length.

    Returns:
        The length, or None where fewer than three points tell, or they tell a step back.
    """
    if len(points) < 3:
        return None
    # (point - length · direction) is parallel to the ray.
    there, moved = np.cross(points, rays), np.cross(direction, rays)
    square = (moved * moved).sum(axis=1)
    lengths = (there * moved).sum(axis=1) / np.maximum(square, 1e-12)
    order = np.argsort(lengths)
    weight = np.cumsum(np.sqrt(square[order]))
    length = float(lengths[order][np.searchsorted(weight, weight[-1] / 2)])
    return length if length > 0 else None

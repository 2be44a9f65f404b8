"""Triangulation of landmarks from all views that observe them, by pycolmap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdnet_ros.errors import MissingDependencyError
from mdnet_ros.evaluation.odometry.views import View, observations

try:
    import pycolmap
except ImportError:
    pycolmap = None  # type: ignore[assignment]


def angles_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the (N,) angles between the rows of two (N, 3) arrays, radians."""
    sine = np.linalg.norm(np.cross(a, b), axis=1)
    return np.arctan2(sine, (a * b).sum(axis=1))


def triangulate(
    views: Sequence[View], ids: np.ndarray, min_angle: float, max_error: float
) -> dict[int, np.ndarray]:
    """Triangulate landmarks from two or more views.

    A landmark is left out if its parallax is too small, if it would lie behind a camera, or if
    one of its observations disagrees.

    Args:
        views: the views, in the order of time, with poses.
        ids: (K,) the landmarks.
        min_angle: smallest angle between the first and the last ray, degrees.
        max_error: largest reprojection error, in normalised image coordinates.

    Returns:
        Id to (3,) point in the map.

    Raises:
        MissingDependencyError: if pycolmap is not installed.
    """
    if pycolmap is None:
        raise MissingDependencyError('pycolmap', 'evaluate', 'visual odometry')
    seen = observations(views, ids)
    inverse = [view.pose.inverse() for view in views if view.pose is not None]
    rotations = np.stack([pose.rotation for pose in inverse])
    translations = np.stack([pose.translation for pose in inverse])
    matrices = list(np.concatenate([rotations, translations[:, :, None]], axis=2))
    world = np.einsum('nji,nj->ni', rotations[seen.views], seen.rays)
    unit = seen.rays / np.linalg.norm(seen.rays, axis=1, keepdims=True)
    first, last = seen.starts[:-1], seen.starts[1:] - 1
    wide = angles_between(world[first], world[last]) > np.radians(min_angle)
    points = np.full((len(seen.ids), 3), np.nan)
    starts, where = seen.starts.tolist(), seen.views.tolist()
    for landmark in np.nonzero(wide)[0].tolist():
        begin, end = starts[landmark], starts[landmark + 1]
        point = pycolmap.triangulate_multi_view_point(
            [matrices[i] for i in where[begin:end]], unit[begin:end]
        )
        if point is not None:
            points[landmark] = point
    errors = seen.largest_errors(points, rotations, translations)
    good = np.nonzero(errors < max_error)[0].tolist()  # NaN and infinity are not
    return {int(seen.ids[landmark]): points[landmark] for landmark in good}

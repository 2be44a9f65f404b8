"""Camera views of a visual odometry and the landmarks that they observe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mdnet_ros.data.poses import Pose


@dataclass
class View:
    """The observations of one frame, and its pose once that is known.

    Attributes:
        stamp_ns: stamp of the frame, nanoseconds.
        ids: (N,) int64, the landmarks observed, in ascending order, each once.
        track_ids: (N,) int64, the tracks that observe them.
        rays: (N, 3) float64, directions in the camera's frame, z = 1.
        pose: camera to map; None while it is unknown.
    """

    stamp_ns: int
    ids: np.ndarray
    track_ids: np.ndarray
    rays: np.ndarray
    pose: Pose | None = None

    def rename(self, rows: np.ndarray, ids: np.ndarray) -> None:
        """Let observations belong to other landmarks.

        Args:
            rows: (M,) rows of the observations; their order changes.
            ids: (M,) landmarks that this view does not observe yet.
        """
        self.ids[rows] = ids
        order = np.argsort(self.ids)
        self.ids, self.track_ids = self.ids[order], self.track_ids[order]
        self.rays = self.rays[order]


def common_rows(a: View, b: View) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of two views that observe the same landmarks, (M,) int64 each."""
    _, rows_a, rows_b = np.intersect1d(a.ids, b.ids, assume_unique=True, return_indices=True)
    return rows_a, rows_b


@dataclass(frozen=True)
class Observations:
    """Observations of several views, grouped by landmark.

    Attributes:
        ids: (L,) int64, the landmarks in ascending order.
        starts: (L + 1,) int64; landmark i has the observations from ``starts[i]`` up to, and
            without, ``starts[i + 1]``, in the order of the views.
        views: (M,) int64, the view of each observation.
        rows: (M,) int64, its row in that view.
        rays: (M, 3) its direction, z = 1.
    """

    ids: np.ndarray
    starts: np.ndarray
    views: np.ndarray
    rows: np.ndarray
    rays: np.ndarray

    def largest_errors(
        self, points: np.ndarray, rotations: np.ndarray, translations: np.ndarray
    ) -> np.ndarray:
        """Return the largest reprojection error of each landmark, on the plane z = 1.

        Args:
            points: (L, 3) points of the landmarks in the map; NaN where there is none.
            rotations: (V, 3, 3) rotations of the views, map to camera.
            translations: (V, 3) translations of the views, map to camera.

        Returns:
            (L,) float64; infinite for points behind a camera, NaN for those that are not there.
        """
        if not len(self.ids):
            return np.zeros(0)
        mine = np.repeat(points, np.diff(self.starts), axis=0)
        camera = np.einsum('nij,nj->ni', rotations[self.views], mine) + translations[self.views]
        behind = camera[:, 2] <= 0
        plane = camera[:, :2] / np.where(behind, 1.0, camera[:, 2])[:, None]
        errors = np.linalg.norm(plane - self.rays[:, :2], axis=1)
        errors[behind] = np.inf
        return np.maximum.reduceat(errors, self.starts[:-1])


def observations(views: Sequence[View], ids: np.ndarray, at_least: int = 2) -> Observations:
    """Collect the observations of landmarks.

    Args:
        views: the views to look through.
        ids: (K,) landmarks to look for.
        at_least: leave out landmarks with fewer observations.
    """
    every = np.concatenate([np.zeros(0, np.int64), *(view.ids for view in views)])
    sizes = [len(view.ids) for view in views]
    wanted = np.isin(every, ids)
    _, which, counts = np.unique(every[wanted], return_inverse=True, return_counts=True)
    wanted[wanted] = counts[which] >= at_least
    chosen = np.nonzero(wanted)[0]
    chosen = chosen[np.argsort(every[chosen], kind='stable')]
    rows = np.concatenate([np.zeros(0, np.int64), *(np.arange(size) for size in sizes)])
    rays = np.concatenate([np.zeros((0, 3)), *(view.rays for view in views)])
    found, starts = np.unique(every[chosen], return_index=True)
    return Observations(
        found,
        np.append(starts, len(chosen)),
        np.repeat(np.arange(len(views)), sizes)[chosen],
        rows[chosen],
        rays[chosen],
    )

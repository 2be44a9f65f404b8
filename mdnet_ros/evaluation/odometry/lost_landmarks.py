"""Landmarks that a frame's tracks have lost, found in it again by their descriptors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mdnet_ros.evaluation.odometry.landmarks import Landmarks
from mdnet_ros.features.types import Features


@dataclass(frozen=True)
class Seen:
    """What one frame shows.

    Attributes:
        index: of the frame.
        track_ids: (N,) int64, of its keypoints.
        rows: (N,) int64, the landmark that each keypoint shows; each at most once. Changes
            where a keypoint turns out to show another one.
        rays: (N, 3) directions in the camera, z = 1.
        features: of the frame.
    """

    index: int
    track_ids: np.ndarray
    rows: np.ndarray
    rays: np.ndarray
    features: Features


@dataclass(frozen=True)
class LostLandmarks:
    """Triangulated landmarks that were seen lately but not in the present frame.

    Attributes:
        rows: (L,) int64, landmarks.
        sets: (L,) int32, keypoint set of the last sighting.
        descriptors: (L, D) of the last sighting.
    """

    rows: np.ndarray
    sets: np.ndarray
    descriptors: np.ndarray

    @staticmethod
    def of(frames: Iterable[Seen], now: Seen, landmarks: Landmarks) -> LostLandmarks:
        """Those of the last frames that ``now`` lacks."""
        rows, sets = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
        descriptors = [np.zeros((0, now.features.descriptors.shape[1]), np.float32)]
        for seen in frames:
            last = landmarks.last[seen.rows] == seen.index
            here = np.nonzero(last & landmarks.has_point(seen.rows))[0]
            here = here[~np.isin(seen.rows[here], now.rows)]
            rows.append(seen.rows[here])
            sets.append(seen.features.sets[here])
            descriptors.append(seen.features.descriptors[here])
        return LostLandmarks(*(np.concatenate(part) for part in (rows, sets, descriptors)))

    def matches(
        self,
        features: Features,
        free: np.ndarray,
        allowed: np.ndarray | None = None,
        least: float = -1.0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mutual nearest neighbours inside each keypoint set.

        Args:
            features: of the present frame.
            free: (F,) rows of them that show no triangulated landmark.
            allowed: (F, L) bool, pairs that may match; None: all.
            least: similarity from which two match.

        Returns:
            (M,) rows of ``features`` and (M,) places in :attr:`rows`.
        """
        if not len(free) or not len(self.rows):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        similarity = features.descriptors[free] @ self.descriptors.T
        possible = features.sets[free][:, None] == self.sets[None]
        if allowed is not None:
            possible &= allowed
        similarity[~possible] = -np.inf
        best = similarity.argmax(axis=1)
        mutual = similarity.argmax(axis=0)[best] == np.arange(len(free))
        mutual &= similarity[np.arange(len(free)), best] >= least
        return free[mutual], best[mutual]

    def matches_near(
        self, seen: Seen, free: np.ndarray, points: np.ndarray, radius: float, least: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Matches close to where the landmarks should be seen.

        Args:
            seen: the present frame.
            free: (F,) its keypoints that show no triangulated landmark.
            points: (L, 3) the landmarks in the camera's frame.
            radius: on the plane z = 1, within which keypoints compete; a match counts within a
                third of it.
            least: similarity from which two match.

        Returns:
            As :meth:`matches`.
        """
        ahead = points[:, 2] > 0
        place = points[:, :2] / np.where(ahead, points[:, 2], 1.0)[:, None]
        near = np.tile(ahead, (len(free), 1))
        for axis in (0, 1):
            near &= np.abs(seen.rays[free, axis][:, None] - place[:, axis]) < radius
        found, places = self.matches(seen.features, free, near, least)
        good = np.linalg.norm(seen.rays[found, :2] - place[places], axis=1) < radius / 3
        return found[good], places[good]

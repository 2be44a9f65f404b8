"""What a visual odometry knows of the things it tracks."""

from __future__ import annotations

import numpy as np


class Landmarks:
    """One row for each landmark; rows are added as tracks come and never reused.

    Attributes:
        anchor: (N,) int64, frame of the first sighting; -1: none.
        ray: (N, 3) direction of the first sighting, in that camera.
        point: (N, 3) in the map; NaN: not triangulated.
        angle: (N,) parallax it was triangulated with, radians.
        last: (N,) int64, frame of the last sighting.
    """

    def __init__(self) -> None:
        self.anchor = np.zeros(0, np.int64)
        self.ray = np.zeros((0, 3))
        self.point = np.zeros((0, 3))
        self.angle = np.zeros(0)
        self.last = np.zeros(0, np.int64)
        self._count = 0
        self._of_track = np.zeros(0, np.int64)

    def new(self, count: int) -> np.ndarray:
        """(count,) rows of landmarks of which nothing is known yet."""
        rows = np.arange(self._count, self._count + count)
        self._count += count
        if self._count > len(self.anchor):
            more = max(self._count, 2 * len(self.anchor)) - len(self.anchor)
            self.anchor = np.append(self.anchor, np.full(more, -1))
            self.ray = np.append(self.ray, np.zeros((more, 3)), axis=0)
            self.point = np.append(self.point, np.full((more, 3), np.nan), axis=0)
            self.angle = np.append(self.angle, np.zeros(more))
            self.last = np.append(self.last, np.full(more, -1))
        return rows

    def of_tracks(self, ids: np.ndarray) -> np.ndarray:
        """(N,) the landmark of each track; a new one where a track is new."""
        most = int(ids.max()) + 1 if len(ids) else 0
        if most > len(self._of_track):
            more = max(most, 2 * len(self._of_track)) - len(self._of_track)
            self._of_track = np.append(self._of_track, np.full(more, -1))
        unknown = self._of_track[ids] < 0
        self._of_track[ids[unknown]] = self.new(int(unknown.sum()))
        return self._of_track[ids]

    def assign(self, ids: np.ndarray, rows: np.ndarray) -> None:
        """Tracks show these landmarks from now on."""
        self._of_track[ids] = rows

    def sight(self, rows: np.ndarray, rays: np.ndarray, frame: int) -> None:
        """Note that landmarks were seen along (N, 3) rays of a frame."""
        self.last[rows] = frame
        first = self.anchor[rows] < 0
        self.anchor[rows[first]], self.ray[rows[first]] = frame, rays[first]

    def has_point(self, rows: np.ndarray) -> np.ndarray:
        """(N,) bool, which of some landmarks are triangulated."""
        return ~np.isnan(self.point[rows, 0])

    def drop_points(self, rows: np.ndarray) -> None:
        """Forget where landmarks are; their first sightings stay."""
        self.point[rows], self.angle[rows] = np.nan, 0.0

    def forget_all(self) -> None:
        """Forget all points and first sightings."""
        self.anchor[:] = -1
        self.drop_points(np.arange(len(self.anchor)))

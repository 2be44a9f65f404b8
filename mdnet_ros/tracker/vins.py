"""Tracks as VINS-Mono and VINS-Fusion expect them from their own feature trackers.

Both read a ``sensor_msgs/PointCloud``: the points are normalised image coordinates with z = 1,
the channels float32:

=========== ============================================================================
VINS-Mono   id, u, v, vx, vy
VINS-Fusion feature_id, camera_id, u, v, vx, vy, gx, gy, gz (no ground truth here: zeros)
=========== ============================================================================

u and v are pixels, vx and vy normalised coordinates per second. A track is published from its
second sighting on, the first frame after a start is not published at all, and observations that
the geometric verification rejects are left out.

Their estimators take the observations of an id as being of consecutive frames. A track that was
missing from a message therefore goes on under a new id: an id that disappeared never returns.
The id is the ``track_id`` for a track that was in every message since its second sighting; new
ids of interrupted ones are handed out from the top of the range downwards. Float32 holds integers
up to 2**24 exactly, so both wrap there: an id may come again after that many other tracks, long
after the estimators' window of some ten frames has forgotten it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.features.types import TrackedFrame
from mdnet_ros.tracker.stereo import StereoMatches

VinsLayout = Literal['none', 'mono', 'fusion']
VINS_LAYOUTS: tuple[str, ...] = get_args(VinsLayout)
#: Ids are distinct below this, the largest count float32 holds exactly.
ID_RANGE = 2**24
#: x/z or y/z of a ray that no camera sees; far below where float32 ends.
_FARTHEST = 1e6
_CHANNELS = {
    'mono': ('id_of_point', 'u_of_point', 'v_of_point', 'velocity_x_of_point',
             'velocity_y_of_point'),
    'fusion': ('feature_id', 'camera_id', 'p_u', 'p_v', 'velocity_x', 'velocity_y',
               'gx', 'gy', 'gz'),
}


@dataclass(frozen=True)
class VinsTracks:
    """The tracks of one frame that a VINS estimator may use.

    Attributes:
        ids: (N,) int64 below ``ID_RANGE``.
        normalised: (N, 2) float64, x/z and y/z, distortion removed.
        pixels: (N, 2) float32, u and v as observed.
        velocity: (N, 2) float64, of ``normalised``, per second.
        stamp_ns: of the frame.
        indices: (N,) int64, row of each in the frame's features.
        without_ray: how many more tracks there are whose pixel has no ray in the calibration.
    """

    ids: np.ndarray
    normalised: np.ndarray
    pixels: np.ndarray
    velocity: np.ndarray
    stamp_ns: int
    indices: np.ndarray
    without_ray: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def points(self) -> np.ndarray:
        """(N, 3) float32 with z = 1."""
        ones = np.ones((len(self), 1))
        return np.concatenate([self.normalised, ones], axis=1).astype(np.float32)

    def channels(self, layout: VinsLayout, camera_id: int = 0) -> list[tuple[str, np.ndarray]]:
        """Names and (N,) float32 values of the channels, in order.

        Args:
            layout: ``mono`` or ``fusion``.
            camera_id: 0 left, 1 right (``fusion`` only).

        Raises:
            ValueError: for another layout.
        """
        if layout not in _CHANNELS:
            raise ValueError(f"layout '{layout}': expected mono or fusion")
        none = np.zeros(len(self))
        values = [self.ids, *self.pixels.T, *self.velocity.T]
        if layout == 'fusion':
            values = [values[0], none + camera_id, *values[1:], none, none, none]
        names = _CHANNELS[layout]
        return [(name, v.astype(np.float32)) for name, v in zip(names, values, strict=True)]


class VinsTracker:
    """Turns tracked frames into what VINS expects; remembers which ids the last frame had."""

    def __init__(self) -> None:
        self._fresh_ids = 0
        self.restart()

    def restart(self) -> None:
        """Begin anew: the next frame is not published, no id goes on."""
        self._skip_next = True
        self._track_ids = np.zeros(0, np.int64)  # sorted, with the id of each below
        self._ids = np.zeros(0, np.int64)

    def update(self, frame: TrackedFrame, camera: CameraModel) -> VinsTracks | None:
        """Take the next frame.

        Returns:
            Its tracks, or None for the first frame after a start.
        """
        if self._skip_next:
            self._skip_next = False
            return None
        links = frame.correspondences
        rows = np.nonzero(links.inlier & (links.stamps_prev < frame.stamp_ns))[0]
        rows = rows[np.argsort(links.indices[rows])]  # in the order of the keypoints
        now = links.indices[rows]
        here = camera.normalise(frame.features.keypoints[now])
        there = camera.normalise(links.keypoints_prev[rows])
        # NaN, which stands for "no ray", compares as false.
        finite = (np.abs(here) < _FARTHEST).all(axis=1) & (np.abs(there) < _FARTHEST).all(axis=1)
        rows, now, here, there = rows[finite], now[finite], here[finite], there[finite]
        seconds = (frame.stamp_ns - links.stamps_prev[rows]) * 1e-9
        ids = self._ids_for(frame, now)
        return VinsTracks(
            ids,
            here,
            frame.features.keypoints[now],
            (here - there) / seconds[:, None],
            frame.stamp_ns,
            now,
            int((~finite).sum()),
        )

    def _ids_for(self, frame: TrackedFrame, rows: np.ndarray) -> np.ndarray:
        """The published id of some keypoints, and remember them for the next frame."""
        track_ids = frame.track_ids[rows]
        ids = track_ids % ID_RANGE
        place = np.searchsorted(self._track_ids, track_ids).clip(max=len(self._track_ids) - 1)
        if len(self._track_ids):
            known = self._track_ids[place] == track_ids
            ids[known] = self._ids[place[known]]
        else:
            known = np.zeros(len(rows), bool)
        # Age 1 is the first time a track can be published; an older one that the last message
        # did not have was interrupted.
        resumed = np.nonzero(~known & (frame.ages[rows] > 1))[0]
        steps = self._fresh_ids + np.arange(len(resumed))
        ids[resumed] = ID_RANGE - 1 - steps % ID_RANGE
        self._fresh_ids += len(resumed)
        order = np.argsort(track_ids)
        self._track_ids, self._ids = track_ids[order], ids[order]
        return ids


class StereoVinsTracker:
    """The right camera's observations of the left one's tracks, as VINS-Fusion expects them.

    An id that the right image had in the message before has a velocity, another one has zero.
    """

    def __init__(self) -> None:
        self._last: VinsTracks | None = None

    def restart(self) -> None:
        """Begin anew: no observation has a velocity in the next frame."""
        self._last = None

    def update(
        self, left: VinsTracks, right: TrackedFrame, matches: StereoMatches, camera: CameraModel
    ) -> VinsTracks:
        """Take the next pair.

        Args:
            left: what is published of the left image.
            right: the right image's frame.
            matches: between the two; inliers alone are taken.
            camera: the right one.

        Returns:
            Observations in the right image under the ids of ``left``, sorted by id.
        """
        order = np.argsort(left.indices)
        rows = matches.indices[matches.inlier]
        place = np.searchsorted(left.indices[order], rows).clip(max=max(0, len(left) - 1))
        seen = np.zeros(len(rows), bool)
        if len(left):
            seen = left.indices[order][place] == rows
        ids = left.ids[order][place[seen]]
        now = matches.indices_right[matches.inlier][seen]
        rays = camera.normalise(right.features.keypoints[now])
        keep = np.nonzero((np.abs(rays) < _FARTHEST).all(axis=1))[0]
        keep = keep[np.argsort(ids[keep])]
        tracks = VinsTracks(
            ids[keep], rays[keep], right.features.keypoints[now[keep]],
            np.zeros((len(keep), 2)), right.stamp_ns, now[keep], len(now) - len(keep),
        )
        last, self._last = self._last, tracks
        if last is not None and right.stamp_ns > last.stamp_ns:
            _, here, there = np.intersect1d(
                tracks.ids, last.ids, assume_unique=True, return_indices=True
            )
            seconds = (right.stamp_ns - last.stamp_ns) * 1e-9
            moved = tracks.normalised[here] - last.normalised[there]
            tracks.velocity[here] = moved / seconds
        return tracks

"""Tracks in the layout that VINS-Mono and VINS-Fusion read from their own feature trackers.

Both read a ``sensor_msgs/PointCloud``: the points are normalised image coordinates with z = 1,
the channels float32:

=========== ============================================================================
VINS-Mono   id, u, v, vx, vy
VINS-Fusion feature_id, camera_id, u, v, vx, vy, gx, gy, gz (ground truth, which is zero)
=========== ============================================================================

u and v are pixels, vx and vy normalised coordinates per second. A track is published from its
second observation on, the first frame after a restart is not published, and outliers of the
geometric verification are left out.

The estimators assume that the observations of an id are from consecutive frames. A track that was
missing in a message therefore gets a new id: an id that disappeared never returns. The id equals
the ``track_id`` if the track was in every message since its second observation; interrupted tracks
get new ids from the top of the range downwards. Float32 holds integers up to 2**24 exactly, so both
wrap there: an id may be used again after that many other tracks, long after it left the
estimators' window of some ten frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.features.spread import spread_evenly
from mdnet_ros.features.types import TrackedFrame
from mdnet_ros.tracker.stereo import StereoMatches

VinsLayout = Literal['none', 'mono', 'fusion']
VINS_LAYOUTS: tuple[str, ...] = get_args(VinsLayout)
#: Ids are below this; float32 holds integers up to it exactly.
ID_RANGE = 2**24
#: Larger x/z or y/z belong to no real camera; far below the largest float32.
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
        velocity: (N, 2) float64, change of ``normalised`` per second.
        stamp_ns: stamp of the frame in nanoseconds.
        indices: (N,) int64, row of each track in the frame's features.
        without_ray: number of further tracks whose pixel has no ray in the calibration.
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
        """Return the (N, 3) float32 points with z = 1."""
        ones = np.ones((len(self), 1))
        return np.concatenate([self.normalised, ones], axis=1).astype(np.float32)

    def channels(self, layout: VinsLayout, camera_id: int = 0) -> list[tuple[str, np.ndarray]]:
        """Return names and (N,) float32 values of the channels, in order.

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
    """Turns tracked frames into tracks for VINS; remembers the ids of the last frame."""

    def __init__(self) -> None:
        self._fresh_ids = 0
        self.restart()

    def restart(self) -> None:
        """Restart: the next frame is not published, and no id is continued."""
        self._skip_next = True
        self._track_ids = np.zeros(0, np.int64)  # sorted; the same rows as the published ids below
        self._ids = np.zeros(0, np.int64)

    def update(
        self, frame: TrackedFrame, camera: CameraModel, max_tracks: int = 0
    ) -> VinsTracks | None:
        """Convert the next frame.

        Args:
            frame: the tracked frame.
            camera: calibration of the camera.
            max_tracks: the most tracks to publish, spread evenly over the image, the oldest
                first (with refinement, tracks of the last message and tracks refined now before
                the others); 0: all.

        Returns:
            Its tracks, or None for the first frame after a restart.
        """
        if self._skip_next:
            self._skip_next = False
            return None
        matches = frame.correspondences
        rows = np.nonzero(matches.inlier & (matches.stamps_prev < frame.stamp_ns))[0]
        rows = rows[np.argsort(matches.indices[rows])]  # order of the keypoints
        indices = matches.indices[rows]
        rays = camera.normalise(frame.features.keypoints[indices])
        rays_prev = camera.normalise(matches.keypoints_prev[rows])
        # NaN, which stands for a pixel without a ray, compares as false.
        finite = (np.abs([rays, rays_prev]) < _FARTHEST).all(axis=(0, 2))
        rows, indices = rows[finite], indices[finite]
        rays, rays_prev = rays[finite], rays_prev[finite]
        if 0 < max_tracks < len(rows):
            chosen = spread_evenly(
                frame.features.keypoints[indices], self._priority(frame)[indices], max_tracks,
                frame.features.image_size,
            )
            rows, indices = rows[chosen], indices[chosen]
            rays, rays_prev = rays[chosen], rays_prev[chosen]
        seconds = (frame.stamp_ns - matches.stamps_prev[rows]) * 1e-9
        ids = self._ids_for(frame, indices)
        return VinsTracks(
            ids,
            rays,
            frame.features.keypoints[indices],
            (rays - rays_prev) / seconds[:, None],
            frame.stamp_ns,
            indices,
            int((~finite).sum()),
        )

    def _priority(self, frame: TrackedFrame) -> np.ndarray:
        """Return the (N,) int64 priority of each keypoint: the age of its track.

        With refinement, tracks that were in the last message and tracks refined now come before all
        others: an estimator needs precise observations, but even more an id that goes on.
        """
        ages = frame.ages.astype(np.int64)
        if frame.refined is None or not len(ages):
            return ages
        first = frame.refined | np.isin(frame.track_ids, self._track_ids)
        return ages + first * (ages.max() + 1)

    def _ids_for(self, frame: TrackedFrame, rows: np.ndarray) -> np.ndarray:
        """Return the published ids of some keypoints, and remember them for the next frame."""
        track_ids = frame.track_ids[rows]
        ids = track_ids % ID_RANGE
        row = np.searchsorted(self._track_ids, track_ids).clip(max=len(self._track_ids) - 1)
        if len(self._track_ids):
            known = self._track_ids[row] == track_ids
            ids[known] = self._ids[row[known]]
        else:
            known = np.zeros(len(rows), bool)
        # A track can be published from age 1 on; an older one that was not in the last message was
        # interrupted.
        resumed = np.nonzero(~known & (frame.ages[rows] > 1))[0]
        steps = self._fresh_ids + np.arange(len(resumed))
        ids[resumed] = ID_RANGE - 1 - steps % ID_RANGE
        self._fresh_ids += len(resumed)
        order = np.argsort(track_ids)
        self._track_ids, self._ids = track_ids[order], ids[order]
        return ids


class StereoVinsTracker:
    """Finds the right camera's observations of the left camera's tracks, for VINS-Fusion.

    An observation has a velocity if the right image had the same id in the last message; otherwise
    its velocity is zero.
    """

    def __init__(self) -> None:
        self._last: VinsTracks | None = None

    def restart(self) -> None:
        """Restart: no observation has a velocity in the next frame."""
        self._last = None

    def update(
        self, left: VinsTracks, right: TrackedFrame, matches: StereoMatches, camera: CameraModel
    ) -> VinsTracks:
        """Convert the next pair.

        Args:
            left: published tracks of the left image.
            right: tracked frame of the right image.
            matches: matches between the two images; outliers are ignored.
            camera: calibration of the right camera.

        Returns:
            Observations in the right image under the ids of ``left``, sorted by id.
        """
        order = np.argsort(left.indices)
        rows = matches.indices[matches.inlier]
        row = np.searchsorted(left.indices[order], rows).clip(max=max(0, len(left) - 1))
        seen = np.zeros(len(rows), bool)
        if len(left):
            seen = left.indices[order][row] == rows
        ids = left.ids[order][row[seen]]
        indices = matches.indices_right[matches.inlier][seen]
        rays = camera.normalise(right.features.keypoints[indices])
        keep = np.nonzero((np.abs(rays) < _FARTHEST).all(axis=1))[0]
        keep = keep[np.argsort(ids[keep])]
        tracks = VinsTracks(
            ids[keep], rays[keep], right.features.keypoints[indices[keep]],
            np.zeros((len(keep), 2)), right.stamp_ns, indices[keep], len(indices) - len(keep),
        )
        last, self._last = self._last, tracks
        if last is not None and right.stamp_ns > last.stamp_ns:
            _, rows_now, rows_last = np.intersect1d(
                tracks.ids, last.ids, assume_unique=True, return_indices=True
            )
            seconds = (right.stamp_ns - last.stamp_ns) * 1e-9
            moved = tracks.normalised[rows_now] - last.normalised[rows_last]
            tracks.velocity[rows_now] = moved / seconds
        return tracks

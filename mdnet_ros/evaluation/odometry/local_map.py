"""The part of a visual odometry's map that the last frames see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mdnet_ros.data.poses import Pose
from mdnet_ros.evaluation.odometry.bundle import Observations, adjust, reprojection
from mdnet_ros.evaluation.odometry.landmarks import Landmarks
from mdnet_ros.evaluation.odometry.lost_landmarks import Seen
from mdnet_ros.evaluation.odometry.triangulation import angles_between, midpoints

#: A point is triangulated anew when its parallax has grown by this factor.
_GROWTH = 1.5
#: A point this much further off than the reprojection error that a pose allows is dropped.
_CULL = 1.5


class LocalMap:
    """Triangulates and adjusts landmarks.

    Args:
        landmarks: of the odometry; changed in place.
        poses: camera to map of each frame, None where it is not known; changed in place.
        focal: length, pixels.
    """

    def __init__(self, landmarks: Landmarks, poses: list[Pose | None], focal: float) -> None:
        self._landmarks = landmarks
        self._poses = poses
        self._focal = focal

    def triangulate(self, seen: Seen, min_angle: float, max_error: float) -> None:
        """Points for landmarks whose parallax allows it, better ones where it has grown.

        Args:
            seen: a frame with a pose.
            min_angle: parallax from which a point is triangulated, degrees.
            max_error: reprojection error up to which it is taken, pixels.
        """
        pose = self._poses[seen.index]
        assert pose is not None
        landmarks = self._landmarks
        anchors = landmarks.anchor[seen.rows]
        located = np.array([known is not None for known in self._poses])
        adrift = (anchors >= 0) & ~located[anchors]
        landmarks.anchor[seen.rows[adrift]] = seen.index
        landmarks.ray[seen.rows[adrift]] = seen.rays[adrift]
        which = np.nonzero((anchors >= 0) & ~adrift)[0]
        if not len(which):
            return
        chosen = seen.rows[which]
        first = [known for a in anchors[which] if (known := self._poses[a]) is not None]
        centres = np.stack([known.translation for known in first])
        rotations = np.stack([known.rotation for known in first])
        a = np.einsum('nij,nj->ni', rotations, landmarks.ray[chosen])
        b = seen.rays[which] @ pose.rotation.T
        angles = angles_between(a, b)
        better = angles > np.maximum(np.radians(min_angle), _GROWTH * landmarks.angle[chosen])
        points, depth_a, depth_b = midpoints(centres, a, pose.translation, b)
        off = np.maximum(
            angles_between(points - centres, a), angles_between(points - pose.translation, b)
        )
        good = better & (depth_a > 0) & (depth_b > 0)
        good &= self._focal * np.tan(np.minimum(off, 1.5)) < max_error
        landmarks.point[chosen[good]] = points[good]
        landmarks.angle[chosen[good]] = angles[good]

    def adjust(
        self,
        frames: Sequence[Seen],
        max_points: int,
        min_points: int,
        max_error: float,
        max_move: float,
    ) -> None:
        """Bring frames and the points they see together; drop points that do not fit.

        The first two frames stay as they are: they hold the scale.

        Args:
            frames: with poses, in order; fewer than three are left alone.
            max_points: points that are adjusted, those seen most often first.
            min_points: frames that see fewer of these points stay as they are.
            max_error: reprojection error that a pose allows, pixels.
            max_move: an adjustment that moves a camera further is not believed.
        """
        landmarks = self._landmarks
        # A frame that shares few points with the others would be moved by chance.
        shared = self._shared(frames, max_points)
        frames = [seen for seen in frames if np.isin(seen.rows, shared).sum() >= min_points]
        chosen = self._shared(frames, max_points)
        if len(frames) < 3 or len(chosen) < min_points:
            return
        parts = []
        for number, seen in enumerate(frames):
            _, place, here = np.intersect1d(
                chosen, seen.rows, assume_unique=True, return_indices=True
            )
            parts.append((np.full(len(here), number), place, seen.rays[here, :2]))
        sightings = Observations(*(np.concatenate(part) for part in zip(*parts, strict=True)))
        before = [pose.inverse() for s in frames if (pose := self._poses[s.index]) is not None]
        poses, points = adjust(
            before, landmarks.point[chosen], sightings, 2, self._focal, max_error / 2
        )
        moves = [
            float(np.linalg.norm(new.inverse().translation - old.inverse().translation))
            for new, old in zip(poses, before, strict=True)
        ]
        if max(moves) > max_move:
            return
        for seen, pose in zip(frames, poses, strict=True):
            self._poses[seen.index] = pose.inverse()
        landmarks.point[chosen] = points
        errors, depth = reprojection(poses, points, sightings, self._focal)
        wrong = (depth <= 0) | (np.linalg.norm(errors, axis=1) > _CULL * max_error)
        landmarks.drop_points(chosen[np.unique(sightings.point[wrong])])

    def _shared(self, frames: Sequence[Seen], most: int) -> np.ndarray:
        """Landmarks with points that at least two frames see, the most seen ones, sorted."""
        rows = np.concatenate([np.zeros(0, np.int64), *(seen.rows for seen in frames)])
        rows, times = np.unique(rows[self._landmarks.has_point(rows)], return_counts=True)
        order = np.argsort(-times, kind='stable')[:most]
        return np.sort(rows[order[times[order] >= 2]])

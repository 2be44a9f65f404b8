"""A small monocular visual odometry on tracks, to see what the tracks are worth.

Poses come from poselib (essential matrix, then PnP on the landmarks), points from triangulation
between a landmark's first sighting and the present one; a bundle adjustment over the last frames
keeps both together. Where a fast turn leaves few landmarks, those of the last frames are looked
for again by their descriptors, and a step from the essential matrix takes its length from the
landmarks that survive, so that the map keeps its scale. There is no loop closure: the trajectory
shows the front end.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.poses import Pose, PoseTrack
from mdnet_ros.errors import MissingDependencyError
from mdnet_ros.evaluation.odometry.landmarks import Landmarks
from mdnet_ros.evaluation.odometry.local_map import LocalMap
from mdnet_ros.evaluation.odometry.lost_landmarks import LostLandmarks, Seen
from mdnet_ros.evaluation.odometry.triangulation import angles_between, epipolar_errors, step_length
from mdnet_ros.evaluation.pose import (
    AbsolutePose,
    RelativePose,
    estimate_absolute_pose,
    estimate_relative_pose,
    poselib,
)
from mdnet_ros.features.types import Features, TrackedFrame

#: So many frames are located afterwards when a map stands.
_MAX_PENDING = 60
#: Landmarks are looked for again among those of so many frames.
_MEMORY = 10
#: A step between two views is at most so many times the usual one, or its inverse: a handful of
#: landmarks can be wrong together, the camera has inertia.
_ACCELERATION = 3.0
#: A pose from the map must explain this share of what the pose from two views explains.
_AGREEMENT = 0.8


@dataclass(frozen=True)
class OdometrySettings:
    """Thresholds of the odometry.

    Attributes:
        max_error: reprojection error up to which a point agrees with a pose, pixels; two views
            must agree within half of it, because they alone cannot tell a wrong pose by its
            points.
        min_angle: parallax from which a point is triangulated, degrees.
        init_angle: median parallax from which two frames start a map, degrees.
        min_points: points that a pose needs.
        window: frames that are adjusted together; below 3: none.
        window_points: points that are adjusted with them, at most.
        radius: lost landmarks are looked for so far from where they should be, pixels.
        seed: of the robust fits.
    """

    max_error: float = 3.0
    min_angle: float = 1.0
    init_angle: float = 3.0
    min_points: int = 10
    window: int = 8
    window_points: int = 400
    radius: float = 12.0
    seed: int = 0


class Odometry:
    """Takes tracked frames one by one and estimates the camera's path.

    The map's frame is the first camera's; the first step has length 1. Where the map's pose
    contradicts the tracks, or there is none, the pose comes from the essential matrix with the
    frame before (:attr:`bridged` counts the frames), with the length that the landmarks seen in
    both tell, else that of the usual step. Where that fails, too, a new map starts from the last
    pose (:attr:`restarts`).

    Args:
        camera: that took the frames.
        settings: thresholds.

    Raises:
        MissingDependencyError: without poselib.
    """

    def __init__(self, camera: CameraModel, settings: OdometrySettings | None = None) -> None:
        if poselib is None:
            raise MissingDependencyError('poselib', 'evaluate', 'visual odometry')
        self.settings = settings or OdometrySettings()
        self.bridged = 0
        self.restarts = 0
        self._camera = camera
        self._focal = float(camera.k[0, 0])
        self._landmarks = Landmarks()
        self._poses: list[Pose | None] = []  # camera to map
        self._map = LocalMap(self._landmarks, self._poses, self._focal)
        self._stamps: list[int] = []
        self._start = 0  # the frame the map starts, or will start, from
        self._last_pose = Pose(np.eye(3), np.zeros(3))
        self._steps = deque([1.0], maxlen=10)  # lengths of the last ones
        self._has_map = False
        self._pending: deque[Seen] = deque(maxlen=_MAX_PENDING)  # waiting for a map
        self._recent: deque[Seen] = deque(maxlen=max(_MEMORY, self.settings.window))

    def add(self, frame: TrackedFrame) -> None:
        """Take the next frame."""
        index = len(self._poses)
        self._stamps.append(frame.stamp_ns)
        self._poses.append(None)
        plane = self._camera.normalise(frame.features.keypoints)
        frame, plane = _with_rays(frame, plane)
        seen = self._see(frame, plane, index)
        if self._has_map:
            pose = self._follow(seen)
            if pose is None:
                self._lose_map(index)
            else:
                self._find_again(frame, seen, pose)
                step = np.linalg.norm(pose.translation - self._last_pose.translation)
                self._steps.append(float(step))
                self._poses[index] = self._last_pose = pose
        started = not self._has_map
        if started:
            self._initialise(seen)
        self._landmarks.sight(seen.rows, seen.rays, index)
        self._recent.append(seen)
        if not self._has_map:
            self._pending.append(seen)
            return
        if started:
            self._triangulate(seen)
            self._locate_pending()
        self._adjust(index)
        # Not before: most points are not adjusted, so they would stay where a pose put them that
        # was adjusted since, and there are enough of them to draw the next pose along.
        self._triangulate(seen)

    def path(self) -> PoseTrack:
        """The poses found so far, camera to map; frames that could not be located have none."""
        rows = [i for i, pose in enumerate(self._poses) if pose is not None]
        poses = [pose for pose in self._poses if pose is not None]
        return PoseTrack(
            np.array([self._stamps[i] for i in rows], np.int64),
            np.array([pose.rotation for pose in poses]).reshape(-1, 3, 3),
            np.array([pose.translation for pose in poses]).reshape(-1, 3),
        )

    def _see(self, frame: TrackedFrame, plane: np.ndarray, index: int) -> Seen:
        """The frame's landmarks; a track whose last link is an outlier shows a new one."""
        rows = self._landmarks.of_tracks(frame.track_ids)
        links = frame.correspondences
        anew = np.zeros(len(rows), bool)
        anew[links.indices[~links.inlier]] = True
        # Two tracks may have come to show one landmark: the second starts anew.
        anew[np.setdiff1d(np.arange(len(rows)), np.unique(rows, return_index=True)[1])] = True
        rays = np.column_stack([plane, np.ones(len(plane))])
        seen = Seen(index, frame.track_ids, rows, rays, frame.features)
        self._show(seen, np.nonzero(anew)[0], self._landmarks.new(int(anew.sum())))
        return seen

    def _show(self, seen: Seen, which: np.ndarray, rows: np.ndarray) -> None:
        """From now on keypoints of a frame, and their tracks, show these landmarks."""
        seen.rows[which] = rows
        self._landmarks.assign(seen.track_ids[which], rows)

    def _follow(self, seen: Seen) -> Pose | None:
        """Camera to map of the next frame: by the map where the tracks agree, else by them."""
        located = self._locate(seen)
        before = self._recent[-1]
        shared, there, here = np.intersect1d(
            before.rows, seen.rows, assume_unique=True, return_indices=True
        )
        then, now = before.rays[there], seen.rays[here]
        bridge = self._bridge(shared, then, now)
        if bridge is None:
            return located.camera_to_world if located is not None else None
        if located is not None:
            limit = self.settings.max_error / 2 / self._focal
            by_map, by_tracks = (
                int((epipolar_errors(pose.inverse() @ self._last_pose, then, now) < limit).sum())
                for pose in (located.camera_to_world, bridge)
            )
            if by_map >= _AGREEMENT * by_tracks:
                return located.camera_to_world
        self.bridged += 1
        return bridge

    def _bridge(self, shared: np.ndarray, then: np.ndarray, now: np.ndarray) -> Pose | None:
        """Camera to map from landmarks that the last frame and this one share, and their rays."""
        fit, _ = self._relative(then, now)
        if fit is None or fit.inliers.sum() < self.settings.min_points:
            return None
        motion = self._last_pose @ fit.b_from_a.inverse()
        direction = motion.translation - self._last_pose.translation
        known = fit.inliers & self._landmarks.has_point(shared)
        length = step_length(
            self._landmarks.point[shared[known]] - self._last_pose.translation,
            now[known] @ motion.rotation.T,
            direction,
        )
        usual = float(np.median(self._steps))
        step = np.clip(length or usual, usual / _ACCELERATION, usual * _ACCELERATION)
        return Pose(motion.rotation, self._last_pose.translation + step * direction)

    def _pnp(self, rays: np.ndarray, points: np.ndarray) -> AbsolutePose | None:
        settings = self.settings
        return estimate_absolute_pose(
            rays, points, self._camera.k, settings.max_error, settings.min_points, settings.seed
        )

    def _locate(self, seen: Seen) -> AbsolutePose | None:
        """By PnP on the landmarks of the tracks; where these are few, with lost ones, too."""
        landmarks = self._landmarks
        known = np.nonzero(landmarks.has_point(seen.rows))[0]
        again, rows = np.zeros(0, np.int64), np.zeros(0, np.int64)
        fit = self._pnp(seen.rays[known], landmarks.point[seen.rows[known]])
        if fit is None or fit.inliers.sum() < 3 * self.settings.min_points:
            lost = LostLandmarks.of(self._recent, seen, landmarks)
            free = np.nonzero(~landmarks.has_point(seen.rows))[0]
            again, places = lost.matches(seen.features, free)
            rows = lost.rows[places]
            both = self._pnp(
                np.concatenate([seen.rays[known], seen.rays[again]]),
                np.concatenate([landmarks.point[seen.rows[known]], landmarks.point[rows]]),
            )
            if both is not None and (fit is None or both.inliers.sum() > fit.inliers.sum()):
                fit = both
        if fit is None:
            return None
        of_tracks, of_lost = fit.inliers[: len(known)], fit.inliers[len(known) :]
        wrong = known[~of_tracks]
        self._show(seen, wrong, landmarks.new(len(wrong)))
        if of_lost.any():
            self._show(seen, again[of_lost], rows[of_lost])
        return fit

    def _find_again(self, frame: TrackedFrame, seen: Seen, pose: Pose) -> None:
        """Look for lost landmarks near where the pose puts them, so that they live longer."""
        if not frame.features.descriptors.shape[1]:
            return
        lost = LostLandmarks.of(self._recent, seen, self._landmarks)
        free = np.nonzero(~self._landmarks.has_point(seen.rows))[0]
        links = frame.correspondences
        right = links.similarity[links.inlier]
        found, places = lost.matches_near(
            seen,
            free,
            (self._landmarks.point[lost.rows] - pose.translation) @ pose.rotation,
            self.settings.radius / self._focal,
            least=float(np.percentile(right, 10)) if len(right) else 0.5,
        )
        self._show(seen, found, lost.rows[places])

    def _relative(
        self, then: np.ndarray, now: np.ndarray
    ) -> tuple[RelativePose | None, np.ndarray]:
        """Essential matrix between (M, 3) rays, and the parallax of its inliers, radians."""
        k, settings = self._camera.k, self.settings
        a, b = ((rays @ k.T)[:, :2] for rays in (then, now))
        fit = estimate_relative_pose(a, b, k, k, settings.max_error / 2, settings.seed)
        if fit is None:
            return None, np.zeros(0)
        turned = then[fit.inliers] @ fit.b_from_a.rotation.T
        return fit, angles_between(turned, now[fit.inliers])

    def _triangulate(self, seen: Seen) -> None:
        self._map.triangulate(seen, self.settings.min_angle, self.settings.max_error)

    def _adjust(self, index: int) -> None:
        """Bring the last frames and the points they see together."""
        first = max(self._start, index + 1 - self.settings.window)
        frames = [
            s for s in self._recent if s.index >= first and self._poses[s.index] is not None
        ]
        settings = self.settings
        self._map.adjust(
            frames, settings.window_points, settings.min_points, settings.max_error,
            max_move=_ACCELERATION * float(np.median(self._steps)),
        )
        pose = self._poses[index]
        assert pose is not None
        self._last_pose = pose

    def _initialise(self, seen: Seen) -> None:
        """Start a map from two frames, once they see enough with enough parallax."""
        shared = np.nonzero(self._landmarks.anchor[seen.rows] == self._start)[0]
        if len(shared) < 2 * self.settings.min_points:
            if seen.index > self._start:  # too few left of the frame it was to start from
                self._start = seen.index
                self._landmarks.forget_all()
            return
        then = self._landmarks.ray[seen.rows[shared]]
        fit, parallax = self._relative(then, seen.rays[shared])
        if fit is None or fit.inliers.sum() < 2 * self.settings.min_points:
            return
        if np.degrees(np.median(parallax)) < self.settings.init_angle:
            return
        motion = fit.b_from_a.inverse()
        length = float(np.median(self._steps)) * (seen.index - self._start)
        self._poses[self._start] = self._last_pose
        pose = self._last_pose @ Pose(motion.rotation, motion.translation * length)
        self._poses[seen.index] = self._last_pose = pose
        self._landmarks.anchor[seen.rows[shared[~fit.inliers]]] = -1
        self._has_map = True

    def _locate_pending(self) -> None:
        """Poses of the frames between the two that the map started from."""
        for seen in self._pending:
            if seen.index > self._start:
                known = np.nonzero(self._landmarks.has_point(seen.rows))[0]
                fit = self._pnp(seen.rays[known], self._landmarks.point[seen.rows[known]])
                self._poses[seen.index] = fit.camera_to_world if fit is not None else None
        self._pending.clear()

    def _lose_map(self, index: int) -> None:
        self.restarts += 1
        self._has_map = False
        self._landmarks.forget_all()
        self._start = index


def _with_rays(frame: TrackedFrame, plane: np.ndarray) -> tuple[TrackedFrame, np.ndarray]:
    """Leave out the keypoints of a frame for which the calibration has no ray.

    Args:
        frame: with N keypoints.
        plane: (N, 2) x/z and y/z; NaN where there is no ray.

    Returns:
        The frame with the other keypoints, and their rows of ``plane``.
    """
    keep = np.isfinite(plane).all(axis=1)
    if keep.all():
        return frame, plane
    features, links = frame.features, frame.correspondences
    row = np.cumsum(keep) - 1
    linked = keep[links.indices]
    return replace(
        frame,
        features=Features(
            features.keypoints[keep], features.scores[keep], features.sets[keep],
            features.descriptors[keep], features.image_size, features.num_sets,
        ),
        track_ids=frame.track_ids[keep],
        ages=frame.ages[keep],
        correspondences=replace(
            links,
            indices=row[links.indices[linked]],
            indices_prev=links.indices_prev[linked],
            keypoints_prev=links.keypoints_prev[linked],
            stamps_prev=links.stamps_prev[linked],
            similarity=links.similarity[linked],
            inlier=links.inlier[linked],
        ),
    ), plane[keep]

"""Monocular visual odometry on tracks: keyframes, PnP and a sliding bundle adjustment.

It is the same for every front end, so that its trajectory shows what the tracks are worth. Two
views with enough parallax start a map. From then on every frame is located by PnP (poselib) on
the landmarks that its tracks observe. When the camera has moved on, the frame becomes a keyframe:
the last keyframes and their landmarks are adjusted together (pycolmap, Ceres), and landmarks are
triangulated from all keyframes that observe them. Older keyframes stay as they are and hold the
scale. There is no loop closure.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from mdnet_ros.data.poses import Pose, Trajectory
from mdnet_ros.evaluation.odometry.bundle_adjustment import Adjusted, adjust
from mdnet_ros.evaluation.odometry.triangulation import angles_between, triangulate
from mdnet_ros.evaluation.odometry.two_views import TwoViewMotion, estimate_motion, step_length
from mdnet_ros.evaluation.odometry.views import View, common_rows
from mdnet_ros.evaluation.pose import (
    AbsolutePose,
    estimate_absolute_pose,
    rotation_error_deg,
)

#: A map is started from views that lie at most this many frames apart.
_MAX_WAITING = 60
#: x/z and y/z of a ray at most; no camera of this kind sees as far to the side.
_FARTHEST = 100.0
#: Tracks whose landmarks are remembered before the old ones are looked through.
_MAX_TRACKS = 50_000
#: Number of steps whose median length is taken for the usual one.
_STEPS = 10
#: A step whose length is known from two views alone is at most this many times the usual one, or
#: its inverse: a handful of landmarks can be wrong together, but the camera has inertia.
_ACCELERATION = 3.0
#: A camera turns at most so far from one frame to the next, degrees. Few points, or points on one
#: plane, may fit a pose that looks the other way.
_MAX_TURN = 45.0
#: An adjustment that turns a camera further is not believed, degrees.
_MAX_CORRECTION = 5.0
#: A landmark is dropped if an adjustment leaves it with this many times the allowed error.
_CULL = 1.5


@dataclass(frozen=True)
class OdometrySettings:
    """Thresholds of the odometry.

    Attributes:
        max_error: largest reprojection error of an inlier, pixels. Two views alone must agree
            within half of it.
        min_angle: parallax from which a landmark is triangulated, degrees.
        init_angle: parallax that ``init_points`` of the landmarks, or half of them if those are
            fewer, must have between two views that start a map, degrees.
        init_points: see ``init_angle``.
        min_points: landmarks that a pose needs.
        free_keyframes: keyframes whose poses are adjusted, the newest ones.
        fixed_keyframes: keyframes before these that take part with fixed poses.
        max_points: landmarks in an adjustment, at most.
        keyframe_angle: median parallax to the last keyframe that makes a keyframe, degrees.
        keyframe_overlap: share of the last keyframe's tracks below which a frame becomes a
            keyframe.
        seed: seed of the robust fits.
    """

    max_error: float = 3.0
    min_angle: float = 1.0
    init_angle: float = 3.0
    init_points: int = 50
    min_points: int = 10
    free_keyframes: int = 8
    fixed_keyframes: int = 8
    max_points: int = 500
    keyframe_angle: float = 1.0
    keyframe_overlap: float = 0.6
    seed: int = 0


class Odometry:
    """Estimates the camera's path from the tracks of one frame after the other.

    The map has the axes of the first camera, and the first frames' mean step has length 1.
    Where PnP fails, the motion comes from the essential matrix with the frame before
    (:attr:`bridged` counts these frames); its length comes from landmarks that both frames
    observe, or else is the usual one. Where that fails, too, a new map starts at the last pose
    (:attr:`restarts`).

    Args:
        focal: focal length in pixels; it only turns errors into pixels.
        settings: thresholds.

    Raises:
        MissingDependencyError: at the first frame, if poselib or pycolmap is not installed.
    """

    def __init__(self, focal: float, settings: OdometrySettings | None = None) -> None:
        self.settings = settings or OdometrySettings()
        self.bridged = 0
        self.restarts = 0
        self._focal = focal
        self._keyframes: deque[View] = deque()  # empty while there is no map
        self._waiting: deque[View] = deque(maxlen=_MAX_WAITING)  # for a map
        self._points: dict[int, np.ndarray] = {}
        self._landmark_of_track: dict[int, int] = {}
        self._next_landmark = 0
        self._last: View | None = None
        self._last_pose = Pose(np.eye(3), np.zeros(3))
        self._steps = deque([1.0], maxlen=_STEPS)
        self._settled: list[tuple[int, Pose]] = []
        self._relative: deque[tuple[int, View, Pose]] = deque()

    def add(
        self,
        track_ids: np.ndarray,
        rays: np.ndarray,
        stamp_ns: int,
        outlier: np.ndarray | None = None,
    ) -> Pose | None:
        """Take the next frame.

        Args:
            track_ids: (N,) int64. An id stands for the same point as in the frames before.
            rays: (N, 2) normalised image coordinates x/z and y/z, distortion removed. Rows that
                are not finite, or nearly parallel to the image plane, are left out.
            stamp_ns: stamp of the frame, nanoseconds.
            outlier: (N,) bool, tracks whose match to an earlier frame was rejected: from this
                frame on they stand for another point. None: there are none.

        Returns:
            The pose, camera to map, or None while there is no map.
        """
        usable = (np.abs(rays) < _FARTHEST).all(axis=1)  # false for NaN
        if outlier is not None:
            for track in track_ids[outlier].tolist():
                self._landmark_of_track.pop(track, None)
        view = self._view(track_ids[usable], rays[usable], stamp_ns)
        if self._keyframes and not self._follow(view):
            self._lose_map()
            self.restarts += 1
        if not self._keyframes:
            self._start_map(view)
        self._last = view
        return view.pose

    def restart(self) -> None:
        """Forget the map, because the tracks do not go on; a new one starts at the last pose."""
        self._lose_map()
        self._landmark_of_track.clear()

    def path(self) -> Trajectory:
        """Return the poses found so far, camera to map; frames without a pose are left out."""
        located = [*self._settled]
        for stamp, reference, relative in self._relative:
            assert reference.pose is not None
            located.append((stamp, reference.pose @ relative))
        return Trajectory(
            np.array([stamp for stamp, _ in located], np.int64),
            np.array([pose.rotation for _, pose in located]).reshape(-1, 3, 3),
            np.array([pose.translation for _, pose in located]).reshape(-1, 3),
        )

    def _view(self, track_ids: np.ndarray, rays: np.ndarray, stamp_ns: int) -> View:
        known = self._landmark_of_track
        if len(known) > _MAX_TRACKS:
            self._forget_tracks()
        for track in track_ids.tolist():
            if track not in known:
                known[track] = self._next_landmark
                self._next_landmark += 1
        ids = np.array([known[track] for track in track_ids.tolist()], np.int64)
        ids, first = np.unique(ids, return_index=True)
        directions = np.column_stack([rays[first], np.ones(len(first))])
        return View(stamp_ns, ids, np.asarray(track_ids, np.int64)[first], directions)

    def _forget_tracks(self) -> None:
        """Forget the landmarks of tracks that no view remembers."""
        views = [*self._keyframes, *self._waiting, *([self._last] if self._last else [])]
        remembered = {track for view in views for track in view.track_ids.tolist()}
        known = self._landmark_of_track
        for track in [track for track in known if track not in remembered]:
            del known[track]

    def _follow(self, view: View) -> bool:
        """Locate the next frame in the map; returns whether that was possible."""
        known = self._known_rows(view)
        fit = self._locate(view, known)
        if fit is not None and self._is_plausible(fit.camera_to_world):
            view.pose = fit.camera_to_world
            self._split_tracks(view, known[~fit.inliers])
        else:
            view.pose = self._bridge(view)
            if view.pose is None:
                return False
            self.bridged += 1
        if self._is_keyframe(view):
            self._add_keyframe(view)
        reference = self._keyframes[-1]
        assert reference.pose is not None
        self._relative.append((view.stamp_ns, reference, reference.pose.inverse() @ view.pose))
        step = np.linalg.norm(view.pose.translation - self._last_pose.translation)
        self._steps.append(float(step))
        self._last_pose = view.pose
        return True

    def _is_plausible(self, pose: Pose) -> bool:
        """Tell whether the camera can have turned to a pose since the frame before."""
        return rotation_error_deg(self._last_pose.rotation, pose.rotation) < _MAX_TURN

    def _known_rows(self, view: View) -> np.ndarray:
        """Return the rows of a view whose landmarks have points."""
        rows = [row for row, landmark in enumerate(view.ids.tolist()) if landmark in self._points]
        return np.array(rows, np.int64)

    def _locate(self, view: View, known: np.ndarray) -> AbsolutePose | None:
        """Estimate a view's pose by PnP on some of its observations."""
        settings = self.settings
        if len(known) < settings.min_points:
            return None
        points = np.stack([self._points[landmark] for landmark in view.ids[known].tolist()])
        return estimate_absolute_pose(
            view.rays[known], points, np.diag([self._focal, self._focal, 1.0]),
            settings.max_error, settings.min_points, settings.seed,
        )

    def _split_tracks(self, view: View, rows: np.ndarray) -> None:
        """Let tracks whose observations disagree with the map show new landmarks from now on."""
        fresh = np.arange(self._next_landmark, self._next_landmark + len(rows))
        self._next_landmark += len(rows)
        tracks = view.track_ids[rows].tolist()
        self._landmark_of_track.update(zip(tracks, fresh.tolist(), strict=True))
        view.rename(rows, fresh)

    def _motion(self, earlier: View, later: View) -> TwoViewMotion | None:
        settings = self.settings
        return estimate_motion(
            earlier, later, self._focal, settings.max_error / 2, settings.seed
        )

    def _bridge(self, view: View) -> Pose | None:
        """Estimate a view's pose from the frame before, without the map."""
        assert self._last is not None
        motion = self._motion(self._last, view)
        if motion is None or len(motion.rows) < self.settings.min_points:
            return None
        step, usual = motion.earlier_from_later, float(np.median(self._steps))
        if not self._is_plausible(self._last_pose @ step):
            return None
        length = step_length(view, motion.rows, self._points, self._last_pose, step) or usual
        length = float(np.clip(length, usual / _ACCELERATION, usual * _ACCELERATION))
        return self._last_pose @ Pose(step.rotation, length * step.translation)

    def _is_keyframe(self, view: View) -> bool:
        last = self._keyframes[-1]
        rows_a, rows_b = common_rows(last, view)
        enough = max(self.settings.keyframe_overlap * len(last.ids), 2 * self.settings.min_points)
        if len(rows_a) < enough:
            return True
        assert last.pose is not None
        assert view.pose is not None
        turned = last.rays[rows_a] @ (view.pose.rotation.T @ last.pose.rotation).T
        angle = np.median(angles_between(turned, view.rays[rows_b]))
        return bool(np.degrees(angle) > self.settings.keyframe_angle)

    def _add_keyframe(self, view: View) -> None:
        settings = self.settings
        self._keyframes.append(view)
        if len(self._keyframes) > settings.free_keyframes + settings.fixed_keyframes:
            self._settle(self._keyframes.popleft())
        self._improve(fixed=max(2, len(self._keyframes) - settings.free_keyframes))
        seen = np.unique(np.concatenate([keyframe.ids for keyframe in self._keyframes])).tolist()
        self._points = {i: self._points[i] for i in seen if i in self._points}

    def _improve(self, fixed: int) -> None:
        """Adjust the keyframes, then triangulate the other landmarks of the newest one.

        Landmarks that are not adjusted are triangulated again: otherwise they would stay where
        the poses before the adjustment put them, and would draw the next pose along.
        """
        settings, views = self.settings, list(self._keyframes)
        adjusted = adjust(
            views, self._points, min(fixed, len(views) - 1), self._focal, settings.max_error / 2,
            settings.max_points, settings.min_points,
        )
        newest = views[-1].ids
        if adjusted is not None and self._is_believable(views, adjusted):
            for view, pose in zip(views, adjusted.poses, strict=True):
                view.pose = pose
            self._points.update(adjusted.points)
            for landmark, error in adjusted.errors.items():
                if error > _CULL * settings.max_error:
                    del self._points[landmark]
            kept = [i for i in adjusted.points if i in self._points]
            newest = np.setdiff1d(newest, kept)
        for landmark, point in self._triangulated(views, newest).items():
            self._points[landmark] = point

    def _is_believable(self, views: list[View], adjusted: Adjusted) -> bool:
        """Tell whether an adjustment moves and turns no camera far: few points may mislead it."""
        limit = _ACCELERATION * float(np.median(self._steps))
        for view, pose in zip(views, adjusted.poses, strict=True):
            assert view.pose is not None
            if np.linalg.norm(pose.translation - view.pose.translation) > limit:
                return False
            if rotation_error_deg(view.pose.rotation, pose.rotation) > _MAX_CORRECTION:
                return False
        return True

    def _triangulated(self, views: list[View], landmarks: np.ndarray) -> dict[int, np.ndarray]:
        settings = self.settings
        return triangulate(
            views, landmarks, settings.min_angle, settings.max_error / self._focal
        )

    def _start_map(self, view: View) -> None:
        """Start a map from two frames, once they share enough with enough parallax."""
        settings, waiting = self.settings, self._waiting
        enough = 2 * settings.min_points
        while waiting and len(common_rows(waiting[0], view)[0]) < enough:
            waiting.popleft()
        waiting.append(view)
        first = waiting[0]
        if first is view:
            return
        motion = self._motion(first, view)
        if motion is None or len(motion.rows) < enough:
            return
        # As in ORB-SLAM (Mur-Artal et al. 2015, section IV): a number of landmarks with parallax,
        # not the median. While the camera flies ahead, the near landmarks leave the picture, and
        # the median over those that both views observe may stay small for seconds.
        wide = (motion.parallax >= np.radians(settings.init_angle)).sum()
        if wide < min(settings.init_points, len(motion.rows) / 2):
            return
        step = motion.earlier_from_later
        length = float(np.median(self._steps)) * (len(waiting) - 1)
        first.pose = self._last_pose
        view.pose = first.pose @ Pose(step.rotation, length * step.translation)
        self._points = self._triangulated([first, view], view.ids[motion.rows])
        for between in list(waiting)[1:-1]:
            known = self._known_rows(between)
            fit = self._locate(between, known)
            if fit is not None:
                between.pose = fit.camera_to_world
                self._split_tracks(between, known[~fit.inliers])
        located = [one for one in waiting if one.pose is not None]
        self._keyframes.extend([first, *located[1:][-settings.free_keyframes :]])
        self._improve(fixed=1)
        for one in located:
            reference = one if one in self._keyframes else first
            assert reference.pose is not None
            assert one.pose is not None
            self._relative.append(
                (one.stamp_ns, reference, reference.pose.inverse() @ one.pose)
            )
        self._last_pose = view.pose
        waiting.clear()

    def _lose_map(self) -> None:
        while self._keyframes:
            self._settle(self._keyframes.popleft())
        self._points.clear()
        self._waiting.clear()

    def _settle(self, keyframe: View) -> None:
        """Note the final poses of the frames up to a keyframe that will not change any more."""
        while self._relative and self._relative[0][1] is keyframe:
            stamp, reference, relative = self._relative.popleft()
            assert reference.pose is not None
            self._settled.append((stamp, reference.pose @ relative))

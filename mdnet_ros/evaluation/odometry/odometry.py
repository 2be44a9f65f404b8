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

import numpy as np

from mdnet_ros.data.poses import Pose, Trajectory
from mdnet_ros.evaluation.odometry.local_map import LocalMap
from mdnet_ros.evaluation.odometry.settings import OdometrySettings
from mdnet_ros.evaluation.odometry.two_views import (
    TwoViewMotion,
    certain_parallax,
    estimate_motion,
    step_length,
)
from mdnet_ros.evaluation.odometry.views import View, common_rows
from mdnet_ros.evaluation.pose import AbsolutePose, rotation_error_deg

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
#: A pose is well known if so large a share of the tracks that go on are landmarks that agree.
_WELL_KNOWN = 0.25
#: A median parallax up to this, in pixels after the rotation that aligns the rays best, is noise.
_NO_PARALLAX = 1.0
#: A camera turns at most so far from one frame to the next, degrees. Few points, or points on one
#: plane, may fit a pose that looks the other way.
_MAX_TURN = 45.0
_STILL = Pose(np.eye(3), np.zeros(3))


class Odometry:
    """Estimates the camera's path from the tracks of one frame after the other.

    The map has the axes of the first camera, and the first frames' mean step has length 1.
    Where PnP fails or its pose is doubtful, the motion comes from the essential matrix with the
    frame before (:attr:`bridged` counts these frames); its length comes from landmarks that both
    frames observe, or else is the usual one. Where that fails, too, a new map starts where the
    camera would be at its last velocity (:attr:`restarts`).

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
        self._waiting: deque[View] = deque(maxlen=_MAX_WAITING)  # for a map
        self._map = LocalMap(focal, self.settings)
        self._landmark_of_track: dict[int, int] = {}
        self._next_landmark = 0
        self._last: View | None = None
        self._last_pose = Pose(np.eye(3), np.zeros(3))
        self._velocity = _STILL  # motion from the frame before
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
        if self._map.keyframes and not self._follow(view):
            self._lose_map()
            self.restarts += 1
        if not self._map.keyframes:
            self._start_map(view)
        self._last = view
        return view.pose

    def restart(self) -> None:
        """Forget the map, because the tracks do not go on; a new one starts one step further."""
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
        views = [*self._map.keyframes, *self._waiting, *([self._last] if self._last else [])]
        remembered = {track for view in views for track in view.track_ids.tolist()}
        known = self._landmark_of_track
        for track in [track for track in known if track not in remembered]:
            del known[track]

    def _follow(self, view: View) -> bool:
        """Locate the next frame in the map; returns whether that was possible."""
        known = self._map.known_rows(view)
        fit = self._map.locate(view, known)
        if fit is not None and not self._is_plausible(fit.camera_to_world):
            fit = None
        if fit is None or self._is_doubtful(view, fit):
            located = np.zeros(0, np.int64) if fit is None else known[fit.inliers]
            view.pose = self._bridge(view, located)
            self.bridged += view.pose is not None
        if view.pose is None and fit is not None:
            view.pose = fit.camera_to_world
            self._split_tracks(view, known[~fit.inliers])
        if view.pose is None:
            return False
        if self._map.is_keyframe(view):
            settled = self._map.add(view, self._usual_step())
            if settled is not None:
                self._settle(settled)
        reference = self._map.keyframes[-1]
        assert reference.pose is not None
        self._relative.append((view.stamp_ns, reference, reference.pose.inverse() @ view.pose))
        step = np.linalg.norm(view.pose.translation - self._last_pose.translation)
        self._steps.append(float(step))
        self._velocity = self._last_pose.inverse() @ view.pose
        self._last_pose = view.pose
        return True

    def _usual_step(self) -> float:
        """Return the median length of the last steps."""
        return float(np.median(self._steps))

    def _is_plausible(self, pose: Pose) -> bool:
        """Tell whether the camera can have turned to a pose since the frame before."""
        return rotation_error_deg(self._last_pose.rotation, pose.rotation) < _MAX_TURN

    def _is_doubtful(self, view: View, fit: AbsolutePose) -> bool:
        """Tell whether a pose rests on few landmarks and asks for an unusually long or short step.

        In a fast turn few of the tracks have landmarks yet. A pose that these few put at nearly
        the same place would make the next landmarks too near, and the scale would collapse. A
        camera that stands still or only turns shows no parallax, and its step is short indeed.
        """
        assert self._last is not None
        earlier, later = common_rows(self._last, view)
        if fit.inliers.sum() >= _WELL_KNOWN * len(later):
            return False
        step = np.linalg.norm(fit.camera_to_world.translation - self._last_pose.translation)
        usual = self._usual_step()
        if step >= usual * _ACCELERATION:
            return True
        if step > usual / _ACCELERATION or not len(later):
            return False
        parallax = certain_parallax(self._last.rays[earlier], view.rays[later], self._focal)
        return bool(self._focal * np.median(parallax) > _NO_PARALLAX)

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

    def _bridge(self, view: View, located: np.ndarray) -> Pose | None:
        """Estimate a view's pose from the frame before, without the map.

        Args:
            view: the view.
            located: rows of its observations that agree with a doubtful pose. Those that disagree
                with the motion show other landmarks from now on, so that the next adjustment does
                not draw the pose back.

        Returns:
            The pose, camera to map, or None if no motion was found.
        """
        assert self._last is not None
        motion = self._motion(self._last, view)
        if motion is None or len(motion.rows) < self.settings.min_points:
            return None
        step, usual = motion.earlier_from_later, self._usual_step()
        if not self._is_plausible(self._last_pose @ step):
            return None
        length = step_length(view, motion.rows, self._map.points, self._last_pose, step) or usual
        length = float(np.clip(length, usual / _ACCELERATION, usual * _ACCELERATION))
        judged = np.intersect1d(located, common_rows(self._last, view)[1])
        self._split_tracks(view, np.setdiff1d(judged, motion.rows))
        return self._last_pose @ Pose(step.rotation, length * step.translation)

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
        # A rotation must not explain the views: a turn would be taken for a translation, and the
        # whole map would have a wrong shape (Schönberger and Frahm, CVPR 2016, section 4.1, tell
        # such pairs apart by the model that explains them). A share of the landmarks decides, not
        # the median: while the camera flies ahead, most of what both views observe is far away.
        # Before a wall most of the parallax looks like a turn, so that more is waited for.
        wide = motion.certain_parallax >= np.radians(settings.init_angle)
        if wide.mean() < (0.5 if motion.is_ambiguous else settings.init_share):
            return
        step = motion.earlier_from_later
        length = self._usual_step() * (len(waiting) - 1)
        first.pose = self._last_pose
        view.pose = first.pose @ Pose(step.rotation, length * step.translation)
        self._map.points = self._map.triangulated([first, view], view.ids[motion.rows])
        for between in list(waiting)[1:-1]:
            known = self._map.known_rows(between)
            fit = self._map.locate(between, known)
            if fit is not None:
                between.pose = fit.camera_to_world
                self._split_tracks(between, known[~fit.inliers])
        located = [one for one in waiting if one.pose is not None]
        self._map.keyframes.extend([first, *located[1:][-settings.free_keyframes :]])
        self._map.improve(1, self._usual_step())
        for one in located:
            reference = one if one in self._map.keyframes else first
            assert reference.pose is not None
            assert one.pose is not None
            self._relative.append(
                (one.stamp_ns, reference, reference.pose.inverse() @ one.pose)
            )
        before = waiting[-2].pose
        self._velocity = _STILL if before is None else before.inverse() @ view.pose
        self._last_pose = view.pose
        waiting.clear()

    def _lose_map(self) -> None:
        if self._map.keyframes:
            # Constant velocity (Mur-Artal et al., ORB-SLAM, 2015, section V-B): a camera that
            # turns goes on turning in the frame that could not be located.
            self._last_pose = self._last_pose @ self._velocity
        while self._map.keyframes:
            self._settle(self._map.keyframes.popleft())
        self._map.points.clear()
        self._waiting.clear()

    def _settle(self, keyframe: View) -> None:
        """Note the final poses of the frames up to a keyframe that will not change any more."""
        while self._relative and self._relative[0][1] is keyframe:
            stamp, reference, relative = self._relative.popleft()
            assert reference.pose is not None
            self._settled.append((stamp, reference.pose @ relative))

"""Local map of the odometry: the last keyframes, and the landmarks that they observe."""

from __future__ import annotations

from collections import deque

import numpy as np

from mdnet_ros.evaluation.odometry.bundle_adjustment import Adjusted, adjust
from mdnet_ros.evaluation.odometry.settings import OdometrySettings
from mdnet_ros.evaluation.odometry.triangulation import angles_between, triangulate
from mdnet_ros.evaluation.odometry.views import View, common_rows
from mdnet_ros.evaluation.pose import AbsolutePose, estimate_absolute_pose, rotation_error_deg

#: An adjustment that moves a camera by more than this many usual steps is not believed: a handful
#: of landmarks can be wrong together, but the camera has inertia.
_MAX_STEPS = 3.0
#: An adjustment that turns a camera further is not believed, degrees.
_MAX_CORRECTION = 5.0
#: A landmark is dropped if an adjustment leaves it with this many times the allowed error.
_CULL = 1.5


class LocalMap:
    """Keyframes in a sliding window and their landmarks, adjusted together at each keyframe.

    Args:
        focal: focal length in pixels; it only turns errors into pixels.
        settings: thresholds.

    Attributes:
        keyframes: the keyframes, oldest first; empty while there is no map.
        points: id to (3,) point in the map.
    """

    def __init__(self, focal: float, settings: OdometrySettings) -> None:
        self.keyframes: deque[View] = deque()
        self.points: dict[int, np.ndarray] = {}
        self._focal = focal
        self._settings = settings

    def known_rows(self, view: View) -> np.ndarray:
        """Return the rows of a view whose landmarks have points."""
        rows = [row for row, landmark in enumerate(view.ids.tolist()) if landmark in self.points]
        return np.array(rows, np.int64)

    def locate(self, view: View, known: np.ndarray) -> AbsolutePose | None:
        """Estimate a view's pose by PnP on some of its observations."""
        settings = self._settings
        if len(known) < settings.min_points:
            return None
        points = np.stack([self.points[landmark] for landmark in view.ids[known].tolist()])
        return estimate_absolute_pose(
            view.rays[known], points, np.diag([self._focal, self._focal, 1.0]),
            settings.max_error, settings.min_points, settings.seed,
        )

    def is_keyframe(self, view: View) -> bool:
        """Tell whether the camera has moved on so far that a view should be a keyframe."""
        last = self.keyframes[-1]
        rows_a, rows_b = common_rows(last, view)
        enough = max(self._settings.keyframe_overlap * len(last.ids), 2 * self._settings.min_points)
        if len(rows_a) < enough:
            return True
        assert last.pose is not None
        assert view.pose is not None
        turned = last.rays[rows_a] @ (view.pose.rotation.T @ last.pose.rotation).T
        angle = np.median(angles_between(turned, view.rays[rows_b]))
        return bool(np.degrees(angle) > self._settings.keyframe_angle)

    def add(self, view: View, usual_step: float) -> View | None:
        """Add a keyframe, adjust the map, and forget landmarks that no keyframe observes.

        Args:
            view: the new keyframe, with its pose.
            usual_step: the usual length of a step of the camera.

        Returns:
            The keyframe that leaves the window, if one does; its pose is final.
        """
        settings = self._settings
        self.keyframes.append(view)
        left = None
        if len(self.keyframes) > settings.free_keyframes + settings.fixed_keyframes:
            left = self.keyframes.popleft()
        self.improve(max(2, len(self.keyframes) - settings.free_keyframes), usual_step)
        seen = np.unique(np.concatenate([keyframe.ids for keyframe in self.keyframes])).tolist()
        self.points = {i: self.points[i] for i in seen if i in self.points}
        return left

    def improve(self, fixed: int, usual_step: float) -> None:
        """Adjust the keyframes, then triangulate the other landmarks of the newest one.

        Landmarks that are not adjusted are triangulated again: otherwise they would stay where
        the poses before the adjustment put them, and would draw the next pose along.

        Args:
            fixed: number of the oldest keyframes whose poses stay as they are.
            usual_step: the usual length of a step of the camera.
        """
        settings, views = self._settings, list(self.keyframes)
        adjusted = adjust(
            views, self.points, min(fixed, len(views) - 1), self._focal, settings.max_error / 2,
            settings.max_points, settings.min_points,
        )
        newest = views[-1].ids
        if adjusted is not None and self._is_believable(views, adjusted, usual_step):
            for view, pose in zip(views, adjusted.poses, strict=True):
                view.pose = pose
            self.points.update(adjusted.points)
            for landmark, error in adjusted.errors.items():
                if error > _CULL * settings.max_error:
                    del self.points[landmark]
            kept = [i for i in adjusted.points if i in self.points]
            newest = np.setdiff1d(newest, kept)
        for landmark, point in self.triangulated(views, newest).items():
            self.points[landmark] = point

    def _is_believable(
        self, views: list[View], adjusted: Adjusted, usual_step: float
    ) -> bool:
        """Tell whether an adjustment moves and turns no camera far: few points may mislead it."""
        limit = _MAX_STEPS * usual_step
        for view, pose in zip(views, adjusted.poses, strict=True):
            assert view.pose is not None
            if np.linalg.norm(pose.translation - view.pose.translation) > limit:
                return False
            if rotation_error_deg(view.pose.rotation, pose.rotation) > _MAX_CORRECTION:
                return False
        return True

    def triangulated(self, views: list[View], landmarks: np.ndarray) -> dict[int, np.ndarray]:
        """Triangulate landmarks from views; returns id to (3,) point."""
        settings = self._settings
        return triangulate(
            views, landmarks, settings.min_angle, settings.max_error / self._focal
        )

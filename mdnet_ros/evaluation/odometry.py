"""A small monocular visual odometry on tracks, to see what the tracks are worth.

Poses come from poselib (essential matrix, then PnP), points from triangulation between a track's
first sighting and the present one; a bundle adjustment over the last frames keeps both together.
The map keeps the scale; there is no loop closure, so that the trajectory shows the front end.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from mdnet_ros.camera import CameraModel
from mdnet_ros.errors import MissingDependencyError
from mdnet_ros.evaluation.bundle import Observations, adjust
from mdnet_ros.evaluation.pose import (
    RelativePose,
    estimate_relative_pose,
    poselib,
    poselib_camera,
)
from mdnet_ros.features.types import TrackedFrame
from mdnet_ros.poses import Pose, PoseTrack

#: So many frames are located afterwards when a map stands.
_MAX_PENDING = 60


@dataclass(frozen=True)
class OdometrySettings:
    """Thresholds of the odometry.

    Attributes:
        max_error: reprojection error up to which a point agrees with a pose, pixels.
        min_angle: parallax from which a point is triangulated, degrees.
        init_angle: median parallax from which two frames start a map, degrees.
        min_points: points that a pose needs.
        window: frames that are adjusted together; below 3: none.
        window_points: points that are adjusted with them, at most.
        seed: of the robust fits.
    """

    max_error: float = 2.0
    min_angle: float = 1.0
    init_angle: float = 3.0
    min_points: int = 10
    window: int = 8
    window_points: int = 150
    seed: int = 0


class _Tracks:
    """What is known of each track; arrays indexed by track id, grown as ids come."""

    def __init__(self) -> None:
        self.anchor = np.zeros(0, np.int64)  # frame of the first sighting; -1: none
        self.ray = np.zeros((0, 3))  # direction of the first sighting, in that camera
        self.point = np.zeros((0, 3))  # in the map; NaN: not triangulated
        self.angle = np.zeros(0)  # parallax it was triangulated with, radians

    def reserve(self, count: int) -> None:
        more = max(count, 2 * len(self.anchor)) - len(self.anchor)
        if count > len(self.anchor):
            self.anchor = np.append(self.anchor, np.full(more, -1))
            self.ray = np.append(self.ray, np.zeros((more, 3)), axis=0)
            self.point = np.append(self.point, np.full((more, 3), np.nan), axis=0)
            self.angle = np.append(self.angle, np.zeros(more))

    def forget(self, ids: np.ndarray) -> None:
        self.anchor[ids], self.point[ids], self.angle[ids] = -1, np.nan, 0.0


class Odometry:
    """Takes tracked frames one by one and estimates the camera's path.

    The map's frame is the first camera's; the first step has length 1. Where the map has too
    few points for a pose (:attr:`bridged` counts the frames), the pose comes from the essential
    matrix with the frame before, with the last step's length. Where that fails, too, a new map
    starts from the last pose (:attr:`restarts`).

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
        self._poselib_camera = poselib_camera(camera.k, (camera.width, camera.height))
        self._tracks = _Tracks()
        self._poses: list[Pose | None] = []  # camera to map
        self._stamps: list[int] = []
        self._start = 0  # the frame the map starts, or will start, from
        self._last_pose = Pose(np.eye(3), np.zeros(3))
        self._step = 1.0
        self._has_map = False
        # Frames, their ids and rays that wait for a map.
        self._pending: deque[tuple[int, np.ndarray, np.ndarray]] = deque(maxlen=_MAX_PENDING)
        # Ids and rays of the last frames.
        self._window: deque[tuple[np.ndarray, np.ndarray]] = deque(
            maxlen=max(1, self.settings.window)
        )

    def add(self, frame: TrackedFrame) -> None:
        """Take the next frame."""
        index = len(self._poses)
        self._stamps.append(frame.stamp_ns)
        self._poses.append(None)
        self._forget_outliers(frame)
        ids = frame.track_ids
        plane = self._camera.normalise(frame.features.keypoints)
        rays = np.column_stack([plane, np.ones(len(plane))])
        if self._has_map:
            pose = self._locate(ids, rays) or self._bridge(ids, rays)
            if pose is None:
                self._lose_map(index)
            else:
                self._move_to(index, pose)
        started = not self._has_map
        if started:
            self._initialise(index, ids, rays)
        if self._has_map:
            self._triangulate(index, ids, rays)
            if started:
                self._locate_pending()
        else:
            self._pending.append((index, ids, rays))
        new = self._tracks.anchor[ids] < 0
        self._tracks.anchor[ids[new]] = index
        self._tracks.ray[ids[new]] = rays[new]
        self._window.append((ids, rays))
        if self._has_map:
            self._adjust(index)

    def path(self) -> PoseTrack:
        """The poses found so far, camera to map; frames that could not be located have none."""
        rows = [i for i, pose in enumerate(self._poses) if pose is not None]
        poses = [pose for pose in self._poses if pose is not None]
        return PoseTrack(
            np.array([self._stamps[i] for i in rows], np.int64),
            np.array([pose.rotation for pose in poses]).reshape(-1, 3, 3),
            np.array([pose.translation for pose in poses]).reshape(-1, 3),
        )

    def _forget_outliers(self, frame: TrackedFrame) -> None:
        """Tracks whose link to an earlier frame is an outlier start anew."""
        if len(frame.track_ids):
            self._tracks.reserve(int(frame.track_ids.max()) + 1)
        links = frame.correspondences
        self._tracks.forget(frame.track_ids[links.indices[~links.inlier]])

    def _locate(self, ids: np.ndarray, rays: np.ndarray, forget: bool = True) -> Pose | None:
        """Camera to map by PnP from the tracks that have points; forgets wrong points if asked."""
        known = np.nonzero(~np.isnan(self._tracks.point[ids, 0]))[0]
        if len(known) < self.settings.min_points:
            return None
        pixels = (rays[known] @ self._camera.k.T)[:, :2]
        points = self._tracks.point[ids[known]]
        found, info = poselib.estimate_absolute_pose(
            pixels,
            points,
            self._poselib_camera,
            {'max_reproj_error': self.settings.max_error, 'seed': self.settings.seed},
            {},
        )
        inliers = np.asarray(info['inliers'], bool)
        if inliers.sum() < self.settings.min_points or not np.isfinite(found.t).all():
            return None
        if forget:
            self._tracks.forget(ids[known[~inliers]])
        return Pose(np.asarray(found.R), np.asarray(found.t)).inverse()

    def _bridge(self, ids: np.ndarray, rays: np.ndarray) -> Pose | None:
        """Camera to map by the essential matrix with the frame before, whose pose is known."""
        then_ids, then_rays = self._window[-1]
        _, before, now = np.intersect1d(then_ids, ids, assume_unique=True, return_indices=True)
        fit, parallax = self._relative(then_rays[before], rays[now])
        if fit is None or fit.inliers.sum() < self.settings.min_points:
            return None
        self.bridged += 1
        motion = fit.b_from_a.inverse()
        turned_only = np.degrees(np.median(parallax)) < self.settings.min_angle / 2
        step = 0.0 if turned_only else self._step
        return self._last_pose @ Pose(motion.rotation, motion.translation * step)

    def _relative(
        self, then: np.ndarray, now: np.ndarray
    ) -> tuple[RelativePose | None, np.ndarray]:
        """Essential matrix between (M, 3) rays, and the parallax of its inliers, radians."""
        k, settings = self._camera.k, self.settings
        a, b = ((rays @ k.T)[:, :2] for rays in (then, now))
        # Half the error of PnP: two views alone cannot tell a wrong model by its points.
        fit = estimate_relative_pose(a, b, k, k, settings.max_error / 2, settings.seed)
        if fit is None:
            return None, np.zeros(0)
        turned = then[fit.inliers] @ fit.b_from_a.rotation.T
        return fit, _angles(turned, now[fit.inliers])

    def _adjust(self, index: int) -> None:
        """Bring the last frames and the points they see together."""
        frames = [
            (i, *seen)
            for i, seen in enumerate(self._window, start=index + 1 - len(self._window))
            if self._poses[i] is not None
        ]
        if len(frames) < 3:
            return
        ids = np.concatenate([ids for _, ids, _ in frames])
        with_point = ids[~np.isnan(self._tracks.point[ids, 0])]
        chosen, times = np.unique(with_point, return_counts=True)
        order = np.argsort(-times, kind='stable')[: self.settings.window_points]
        chosen = np.sort(chosen[order[times[order] >= 3]])
        if len(chosen) < self.settings.min_points:
            return
        parts = []
        for row, (_, ids, rays) in enumerate(frames):
            _, place, here = np.intersect1d(chosen, ids, assume_unique=True, return_indices=True)
            parts.append((np.full(len(here), row), place, rays[here, :2]))
        seen = Observations(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        before = [pose.inverse() for i, *_ in frames if (pose := self._poses[i]) is not None]
        poses, points = adjust(
            before, self._tracks.point[chosen], seen, 2, float(self._camera.k[0, 0]),
            self.settings.max_error / 2,
        )
        for (i, *_), pose in zip(frames, poses, strict=True):
            self._poses[i] = pose.inverse()
        self._last_pose = poses[-1].inverse()
        self._tracks.point[chosen] = points

    def _move_to(self, index: int, pose: Pose) -> None:
        step = float(np.linalg.norm(pose.translation - self._last_pose.translation))
        self._step = step if step > 0 else self._step
        self._poses[index] = self._last_pose = pose

    def _initialise(self, index: int, ids: np.ndarray, rays: np.ndarray) -> None:
        """Start a map from two frames, once they see enough with enough parallax."""
        shared = np.nonzero(self._tracks.anchor[ids] == self._start)[0]
        if len(shared) < 2 * self.settings.min_points:
            if index > self._start:  # too few left of the frame it was to start from
                self._start_from(index)
            return
        then = self._tracks.ray[ids[shared]]
        fit, parallax = self._relative(then, rays[shared])
        if fit is None or fit.inliers.sum() < 2 * self.settings.min_points:
            return
        if np.degrees(np.median(parallax)) < self.settings.init_angle:
            return
        motion = fit.b_from_a.inverse()
        length = self._step * (index - self._start)
        self._poses[self._start] = self._last_pose
        pose = self._last_pose @ Pose(motion.rotation, motion.translation * length)
        self._poses[index] = self._last_pose = pose
        self._tracks.forget(ids[shared[~fit.inliers]])
        self._has_map = True

    def _locate_pending(self) -> None:
        """Poses of the frames between the two that the map started from."""
        for index, ids, rays in self._pending:
            if index > self._start:
                self._poses[index] = self._locate(ids, rays, forget=False)
        self._pending.clear()

    def _start_from(self, index: int) -> None:
        """Give up the frame a map was to start from, and start from this one."""
        self._start = index
        self._tracks.anchor[:] = -1

    def _lose_map(self, index: int) -> None:
        self.restarts += 1
        self._has_map = False
        self._tracks.anchor[:] = -1
        self._tracks.point[:] = np.nan
        self._start = index

    def _triangulate(self, index: int, ids: np.ndarray, rays: np.ndarray) -> None:
        """Points for tracks whose parallax allows it, better ones where it has grown."""
        pose = self._poses[index]
        assert pose is not None
        tracks = self._tracks
        anchors = tracks.anchor[ids]
        located = np.array([pose is not None for pose in self._poses])
        adrift = (anchors >= 0) & ~located[anchors]
        tracks.anchor[ids[adrift]], tracks.ray[ids[adrift]] = index, rays[adrift]
        rows = np.nonzero((anchors >= 0) & ~adrift)[0]
        if not len(rows):
            return
        chosen, rays = ids[rows], rays[rows]
        first = [self._poses[a] for a in anchors[rows]]
        rotations = np.stack([p.rotation for p in first if p is not None])
        centres = np.stack([p.translation for p in first if p is not None])
        a = np.einsum('nij,nj->ni', rotations, tracks.ray[chosen])
        b = rays @ pose.rotation.T
        angles = _angles(a, b)
        least = np.radians(self.settings.min_angle)
        better = angles > np.maximum(least, 1.5 * tracks.angle[chosen])
        points, depth_a, depth_b = midpoints(centres, a, pose.translation, b)
        focal = self._camera.k[0, 0]
        error_a = focal * np.tan(np.minimum(_angles(points - centres, a), 1.5))
        error_b = focal * np.tan(np.minimum(_angles(points - pose.translation, b), 1.5))
        good = better & (depth_a > 0) & (depth_b > 0)
        good &= np.maximum(error_a, error_b) < self.settings.max_error
        tracks.point[chosen[good]] = points[good]
        tracks.angle[chosen[good]] = angles[good]


def _angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N,) radians between the rows of two (N, 3) arrays."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = (a * b).sum(axis=1) / np.maximum(lengths, 1e-300)
    return np.arccos(np.clip(cosine, -1.0, 1.0))


def midpoints(
    centres_a: np.ndarray, rays_a: np.ndarray, centre_b: np.ndarray, rays_b: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points halfway between pairs of rays where these come closest.

    Args:
        centres_a: (N, 3) where the first rays start.
        rays_a: (N, 3) their directions, any length.
        centre_b: (3,) or (N, 3), where the second rays start.
        rays_b: (N, 3) their directions, any length.

    Returns:
        (N, 3) points, and (N,) twice how far along the two rays they lie, in lengths of these;
        far behind where two rays are parallel.
    """
    baseline = centre_b - centres_a
    aa, bb, ab = ((p * q).sum(axis=1) for p, q in
                  ((rays_a, rays_a), (rays_b, rays_b), (rays_a, rays_b)))
    da, db = (baseline * rays_a).sum(axis=1), (baseline * rays_b).sum(axis=1)
    determinant = aa * bb - ab * ab
    parallel = determinant <= 1e-12 * aa * bb
    determinant = np.where(parallel, 1.0, determinant)
    along_a = np.where(parallel, -1.0, (bb * da - ab * db) / determinant)
    along_b = np.where(parallel, -1.0, (ab * da - aa * db) / determinant)
    first = centres_a + along_a[:, None] * rays_a
    second = centre_b + along_b[:, None] * rays_b
    return (first + second) / 2, along_a, along_b

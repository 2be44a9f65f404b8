"""Error of correspondences against true positions, where depth and poses are known."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

import numpy as np

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.poses import Pose, Trajectory
from mdnet_ros.features.types import TrackedFrame

#: Depths around a pixel differing by more than this factor belong to different surfaces.
_SAME_SURFACE = 1.05
#: Depth maps of how many tracked frames are kept for correspondences to earlier frames.
_KEPT = 16


def depth_at(depth: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Interpolate depth between pixels.

    It is exact on planes (bilinear in inverse depth); at edges the nearest pixel is taken.

    Args:
        depth: (H, W) metres along the optical axis; 0 or NaN: not known.
        points: (N, 2) pixels.

    Returns:
        (N,) float64 metres, NaN where not known or outside the image.
    """
    height, width = depth.shape
    x, y = np.asarray(points, np.float64).T
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    x, y = np.where(inside, x, 0.0), np.where(inside, y, 0.0)
    left = np.floor(x).clip(0, max(0, width - 2)).astype(int)
    top = np.floor(y).clip(0, max(0, height - 2)).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    with np.errstate(divide='ignore', invalid='ignore'):
        corners = 1.0 / np.stack(
            [depth[top, left], depth[top, right], depth[bottom, left], depth[bottom, right]]
        ).astype(np.float64)
        smooth = corners.max(axis=0) <= _SAME_SURFACE * corners.min(axis=0)
        fx, fy = (x - left).clip(0, 1), (y - top).clip(0, 1)
        bilinear = 1.0 / (
            (corners[0] * (1 - fx) + corners[1] * fx) * (1 - fy)
            + (corners[2] * (1 - fx) + corners[3] * fx) * fy
        )
        column = np.rint(x).clip(0, width - 1).astype(int)
        row = np.rint(y).clip(0, height - 1).astype(int)
        found = np.where(smooth, bilinear, depth[row, column])
        known = inside & np.isfinite(found) & (found > 0)
    return np.where(known, found, np.nan)


def reproject(
    camera: CameraModel, motion: Pose, points: np.ndarray, depth: np.ndarray
) -> np.ndarray:
    """Compute where points of one image lie in another.

    Args:
        camera: the one that took both.
        motion: transform of points from the first camera's frame to the second's.
        points: (N, 2) pixels in the first image.
        depth: (N,) metres along the optical axis there.

    Returns:
        (N, 2) float64 pixels; NaN behind the second camera, without depth or without a ray.
    """
    rays = np.concatenate([camera.normalise(points), np.ones((len(points), 1))], axis=1)
    there = (rays * depth[:, None]) @ motion.rotation.T + motion.translation
    return camera.project(there)


class PositionTruth:
    """Measures the distance of keypoints to where their earlier observation has truly moved.

    Args:
        camera: the one that took the sequence.
        poses: its true poses.
        depths: (stamp in nanoseconds, (H, W) depth in metres) by ascending stamp; read as the
            frames come.
    """

    kind = 'position'

    def __init__(
        self, camera: CameraModel, poses: Trajectory, depths: Iterable[tuple[int, np.ndarray]]
    ) -> None:
        self._camera = camera
        self._poses = poses
        self._coming: Iterator[tuple[int, np.ndarray]] = iter(depths)
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._latest: int | None = None

    def errors(self, frame: TrackedFrame) -> np.ndarray:
        """(M,) pixels; NaN where pose or depth of the earlier observation is not known."""
        matches = frame.correspondences
        errors = np.full(len(matches), np.nan)
        now = self._poses.interpolated_at(frame.stamp_ns)
        self._advance(frame.stamp_ns)
        if now is None:
            return errors
        for stamp in np.unique(matches.stamps_prev):
            then, depth = self._poses.interpolated_at(int(stamp)), self._kept.get(int(stamp))
            if then is None or depth is None:
                continue
            rows = np.nonzero(matches.stamps_prev == stamp)[0]
            before = matches.keypoints_prev[rows]
            truth = reproject(
                self._camera, now.inverse() @ then, before, depth_at(depth, before)
            )
            got = frame.features.keypoints[matches.indices[rows]]
            errors[rows] = np.linalg.norm(truth - got, axis=1)
        return errors

    def _advance(self, stamp_ns: int) -> None:
        """Read depth maps up to a stamp, and keep the one with exactly that stamp."""
        while self._latest is None or self._latest < stamp_ns:
            entry = next(self._coming, None)
            if entry is None:
                return
            self._latest, depth = entry
            if self._latest == stamp_ns:
                self._kept[stamp_ns] = depth
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

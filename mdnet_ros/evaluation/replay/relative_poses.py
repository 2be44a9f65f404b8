"""Errors of relative poses from tracks, some frames apart."""

from __future__ import annotations

from collections import deque

import numpy as np

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.poses import Trajectory
from mdnet_ros.evaluation.pose import (
    direction_error_deg,
    estimate_relative_pose,
    mean_average_accuracy,
    rotation_error_deg,
)
from mdnet_ros.evaluation.replay.results import DistanceResult
from mdnet_ros.evaluation.tracks.statistics import MIN_BASELINE
from mdnet_ros.features.types import TrackedFrame

#: Frames between the two images of a relative pose.
DISTANCES = (1, 2, 5, 10)


class RelativePoses:
    """Estimates relative poses from the tracks that two frames share, and compares with the truth.

    Args:
        camera: the one that took the frames.
        truth: its true poses.
        threshold: inlier threshold of the essential matrix, pixels.
    """

    def __init__(self, camera: CameraModel, truth: Trajectory, threshold: float) -> None:
        self._camera = camera
        self._truth = truth
        self._threshold = threshold
        self._frames: deque[TrackedFrame] = deque(maxlen=max(DISTANCES))
        self._errors: dict[int, list[tuple[float, float | None] | None]] = {
            distance: [] for distance in DISTANCES
        }

    def add(self, frame: TrackedFrame) -> None:
        """Take the next frame and compare it with the ones before."""
        now = self._truth.interpolated_at(frame.stamp_ns)
        for distance in DISTANCES:
            if now is None or distance > len(self._frames):
                continue
            earlier = self._frames[-distance]
            then = self._truth.interpolated_at(earlier.stamp_ns)
            if then is None:
                continue
            motion = now.inverse() @ then
            _, a, b = np.intersect1d(earlier.track_ids, frame.track_ids, return_indices=True)
            k = self._camera.k
            points = [
                self._camera.normalise(f.features.keypoints[rows]) @ k[:2, :2].T + k[:2, 2]
                for f, rows in ((earlier, a), (frame, b))
            ]
            has_rays = np.isfinite(np.concatenate(points, axis=1)).all(axis=1)
            fit = estimate_relative_pose(
                points[0][has_rays], points[1][has_rays], k, k, self._threshold
            )
            if fit is None:
                self._errors[distance].append(None)
                continue
            direction = None
            if np.linalg.norm(motion.translation) >= MIN_BASELINE:
                direction = direction_error_deg(
                    motion.translation, fit.b_from_a.translation, signed=True
                )
            rotation = rotation_error_deg(motion.rotation, fit.b_from_a.rotation)
            self._errors[distance].append((rotation, direction))
        self._frames.append(frame)

    def results(self) -> tuple[DistanceResult, ...]:
        """Return the metrics so far."""
        results = []
        for distance, errors in self._errors.items():
            found = [error for error in errors if error is not None]
            directions = [direction for _, direction in found if direction is not None]
            worse = [max(rotation, direction or 0.0) for rotation, direction in found]
            failed = len(errors) - len(found)
            results.append(
                DistanceResult(
                    distance,
                    len(errors),
                    failed,
                    float(np.median([rotation for rotation, _ in found])) if found else None,
                    float(np.median(directions)) if directions else None,
                    mean_average_accuracy(np.array(worse + [np.inf] * failed)) if errors else None,
                )
            )
        return tuple(results)

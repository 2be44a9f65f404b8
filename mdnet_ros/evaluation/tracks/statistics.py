"""Metrics of a tracked sequence: counts, track lengths, inliers, precision against the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.geometry import epipolar_distance
from mdnet_ros.data.poses import Trajectory
from mdnet_ros.features.types import TrackedFrame

#: Columns and rows of the grid for coverage.
GRID = (10, 8)
#: Distances at which precision is given, pixels.
THRESHOLDS_PX = (1, 2, 3)
#: Shortest baseline with a meaningful epipolar line, metres.
MIN_BASELINE = 0.005


class Truth(Protocol):
    """Measures the error of a frame's correspondences."""

    #: What is measured: ``position`` or ``epipolar``.
    kind: str

    def errors(self, frame: TrackedFrame) -> np.ndarray:
        """Return (M,) errors of the correspondences, pixels; NaN where the truth is not known."""
        ...


class EpipolarTruth:
    """Measures distances of keypoints to the true epipolar lines of their earlier observations.

    Lens distortion is removed first; distances are pixels of the undistorted image.

    Args:
        camera: camera that took the sequence.
        poses: true poses of that camera.
    """

    kind = 'epipolar'

    def __init__(self, camera: CameraModel, poses: Trajectory) -> None:
        self._camera = camera
        self._poses = poses

    def errors(self, frame: TrackedFrame) -> np.ndarray:
        """Return (M,) distances, pixels; NaN where a pose is missing or the camera did not move."""
        matches = frame.correspondences
        errors = np.full(len(matches), np.nan)
        now = self._poses.interpolated_at(frame.stamp_ns)
        if now is None:
            return errors
        for stamp in np.unique(matches.stamps_prev):
            then = self._poses.interpolated_at(int(stamp))
            if then is None:
                continue
            motion = now.inverse() @ then
            if np.linalg.norm(motion.translation) < MIN_BASELINE:
                continue
            rows = np.nonzero(matches.stamps_prev == stamp)[0]
            points = frame.features.keypoints[matches.indices[rows]]
            errors[rows] = epipolar_distance(
                self._camera, motion.rotation, motion.translation,
                matches.keypoints_prev[rows], points,
            )
        return errors


@dataclass(frozen=True)
class TrackLength:
    """Number of frames that a track is seen in, over all tracks seen at least twice."""

    mean: float
    median: float
    p90: float


@dataclass(frozen=True)
class Precision:
    """Share of correct correspondences.

    Attributes:
        kind: what the error is: the distance to the true ``position`` or to the true ``epipolar``
            line.
        within: threshold in pixels to share in [0, 1]; to None where nothing could be checked.
        matches: number of correspondences that could be checked.
        inliers_within: as ``within``, of the inliers alone.
        refined_within: as ``within``, of the inliers that are refined; None without refinement.
    """

    kind: str
    within: dict[int, float | None]
    matches: int
    inliers_within: dict[int, float | None]
    refined_within: dict[int, float | None] | None = None


@dataclass(frozen=True)
class SequenceSummary:
    """Metrics of a tracked sequence; 0 where nothing was seen.

    Attributes:
        frames: number of tracked frames.
        keypoints_per_frame: mean number of keypoints of a frame.
        matches_per_frame: mean number of correspondences of a frame, the first left out.
        track_length: lengths of the tracks, frames.
        inlier_ratio: share of correspondences that agree with the geometric model.
        refined_ratio: share of correspondences that agree with it and are refined; None without
            refinement.
        precision: precision of the correspondences; None without ground truth.
    """

    frames: int
    keypoints_per_frame: float
    matches_per_frame: float
    track_length: TrackLength
    inlier_ratio: float
    precision: Precision | None
    refined_ratio: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the metrics under the names of the commands' JSON reports."""
        metrics: dict[str, Any] = {
            'keypoints_per_frame': self.keypoints_per_frame,
            'matches_per_frame': self.matches_per_frame,
            'track_length': vars(self.track_length).copy(),
            'inlier_ratio': self.inlier_ratio,
        }
        if self.precision is not None:
            metrics['precision'] = {
                f'{px}px': share for px, share in self.precision.within.items()
            }
            metrics['precision_kind'] = self.precision.kind
            metrics['precision_matches'] = self.precision.matches
        if self.refined_ratio is not None:
            metrics['refined_ratio'] = self.refined_ratio
        return metrics


class SequenceStatistics:
    """Accumulates metrics over the frames of a sequence, in constant memory.

    Args:
        truth: measures errors of correspondences; None: no ground truth.
    """

    def __init__(self, truth: Truth | None = None) -> None:
        self._truth = truth
        self._frames = 0
        self._keypoints = 0
        self._matches = 0
        self._inliers = 0
        self._refined: int | None = None
        # A track seen n times is seen once at each age 0 … n - 1, so counts by age give lengths.
        self._seen_at_age = np.zeros(0, np.int64)
        self._checked = 0
        self._right = np.zeros(len(THRESHOLDS_PX), np.int64)
        self._inliers_checked = 0
        self._inliers_right = np.zeros(len(THRESHOLDS_PX), np.int64)
        self._refined_checked = 0
        self._refined_right = np.zeros(len(THRESHOLDS_PX), np.int64)

    def add(self, frame: TrackedFrame) -> None:
        """Add the next frame."""
        self._frames += 1
        self._keypoints += len(frame.features)
        self._matches += len(frame.correspondences)
        inlier = frame.correspondences.inlier
        self._inliers += int(inlier.sum())
        refined = np.zeros(len(inlier), bool)
        if frame.refined is not None:
            refined = inlier & frame.refined[frame.correspondences.indices]
            self._refined = (self._refined or 0) + int(refined.sum())
        counts = np.bincount(frame.ages, minlength=len(self._seen_at_age))
        counts[: len(self._seen_at_age)] += self._seen_at_age
        self._seen_at_age = counts
        if self._truth is not None:
            errors = self._truth.errors(frame)
            known = ~np.isnan(errors)
            self._checked += int(known.sum())
            self._right += _within(errors[known])
            self._inliers_checked += int((known & inlier).sum())
            self._inliers_right += _within(errors[known & inlier])
            self._refined_checked += int((known & refined).sum())
            self._refined_right += _within(errors[known & refined])

    def summary(self) -> SequenceSummary:
        """Return the metrics so far."""
        precision = None
        if self._truth is not None:
            precision = Precision(
                self._truth.kind,
                _shares(self._right, self._checked),
                self._checked,
                _shares(self._inliers_right, self._inliers_checked),
                None if self._refined is None else _shares(
                    self._refined_right, self._refined_checked
                ),
            )
        return SequenceSummary(
            self._frames,
            self._keypoints / max(1, self._frames),
            self._matches / max(1, self._frames - 1),
            self._track_length(),
            self._inliers / max(1, self._matches),
            precision,
            None if self._refined is None else self._refined / max(1, self._matches),
        )

    def tracks_by_length(self) -> np.ndarray:
        """Return (L + 1,) int64, at n the number of tracks seen in n frames; 0 below n = 2."""
        # Frames lost on the way from the tracker can leave small negative differences.
        ended = np.maximum(self._seen_at_age - np.append(self._seen_at_age[1:], 0), 0)
        ended[:1] = 0  # a keypoint seen once is no track yet
        return np.concatenate([[0], ended])

    def _track_length(self) -> TrackLength:
        ended = self.tracks_by_length()[1:]
        total = int(ended.sum())
        if total == 0:
            return TrackLength(0.0, 0.0, 0.0)
        lengths = np.arange(1, len(ended) + 1)
        reached = np.cumsum(ended)
        # The smallest length that this share of the tracks does not exceed.
        median, p90 = (
            float(lengths[np.searchsorted(reached, share * total)]) for share in (0.5, 0.9)
        )
        return TrackLength(float((lengths * ended).sum() / total), median, p90)


def _within(errors: np.ndarray) -> np.ndarray:
    """Count the errors within each threshold."""
    return (errors[:, None] <= np.array(THRESHOLDS_PX)).sum(axis=0)


def _shares(right: np.ndarray, checked: int) -> dict[int, float | None]:
    """Return the share within each threshold, or None where nothing was checked."""
    return {
        px: float(count / checked) if checked else None
        for px, count in zip(THRESHOLDS_PX, right, strict=True)
    }


def tracks_by_cell(frame: TrackedFrame) -> np.ndarray:
    """Count the keypoints seen before in each cell of :data:`GRID`: (rows, columns) int64."""
    points = frame.features.keypoints[frame.ages > 0]
    cells = np.floor((points + 0.5) / frame.features.image_size * GRID).astype(int)
    column, row = np.clip(cells, 0, np.array(GRID) - 1).T
    counts = np.bincount(row * GRID[0] + column, minlength=GRID[0] * GRID[1])
    return counts.reshape(GRID[1], GRID[0])


def coverage_of(frame: TrackedFrame) -> float:
    """Return the share of grid cells over the image that hold a keypoint seen before."""
    return float((tracks_by_cell(frame) > 0).mean())

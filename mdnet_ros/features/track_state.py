"""The state of a tracker between two frames, and the association of a frame with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from mdnet_ros.features.types import Features


@dataclass(frozen=True)
class TrackTable:
    """Tracks and their last known positions.

    Attributes:
        keypoints: (N, 2) float32, last known position, pixels.
        rows: (N,) int64, row in the features of the frame with that position.
        stamps: (N,) int64, stamp of that frame, nanoseconds.
        frames_ago: (N,) int64, how many frames that frame lies before the last one.
        track_ids: (N,) int64.
        ages: (N,) int32, in how many frames before that one the track was seen.
        missed: (N,) int64, in how many frames up to the last one the keypoint was not detected.
    """

    keypoints: np.ndarray
    rows: np.ndarray
    stamps: np.ndarray
    frames_ago: np.ndarray
    track_ids: np.ndarray
    ages: np.ndarray
    missed: np.ndarray

    def __len__(self) -> int:
        return len(self.track_ids)

    @staticmethod
    def concatenate(parts: Sequence[TrackTable]) -> TrackTable:
        """Join the rows of several tables, in their order."""
        return TrackTable(*(
            np.concatenate([getattr(part, column.name) for part in parts])
            for column in fields(TrackTable)
        ))

    def at(self, rows: np.ndarray) -> TrackTable:
        """Return some of the rows."""
        return TrackTable(*(getattr(self, column.name)[rows] for column in fields(TrackTable)))


@dataclass(frozen=True)
class EarlierTracks:
    """Tracks that the keypoints of the next frame may continue.

    The tracks detected in the last frame come first, then the lost ones.

    Attributes:
        detected: features of the last frame as they were detected; their positions may have been
            refined since, see ``table``.
        lost: features of tracks that were not detected in the last frame, as they were detected
            last.
        table: all tracks, in this order.
    """

    detected: Features
    lost: Features
    table: TrackTable

    def features(self, track_index: np.ndarray) -> Features:
        """Return the features of some tracks, as they were detected last.

        Args:
            track_index: (M,) int64, ascending, their rows in the table.
        """
        count = len(self.detected)
        first = int(np.searchsorted(track_index, count))
        return join_features([
            select_features(self.detected, track_index[:first]),
            select_features(self.lost, track_index[first:] - count),
        ])


@dataclass(frozen=True)
class Association:
    """How the N keypoints of a frame continue earlier tracks.

    Attributes:
        track_index: (N,) int64, row in the table of the track that a keypoint continues, or -1.
        similarity: (N,) float32, cosine of the two descriptors.
        keypoints: (N, 2) float32, positions in pixels, refined where ``refined``.
        refined: (N,) bool.
        propagated: (C,) int64, ascending, rows in the table of the tracks without a detected
            keypoint that optical flow propagates.
        propagated_keypoints: (C, 2) float32, their positions, pixels.
    """

    track_index: np.ndarray
    similarity: np.ndarray
    keypoints: np.ndarray
    refined: np.ndarray
    propagated: np.ndarray
    propagated_keypoints: np.ndarray


def select_features(features: Features, rows: np.ndarray) -> Features:
    """Return some rows of a frame's features, on the host."""
    return Features(
        features.keypoints[rows],
        features.scores[rows],
        features.sets[rows],
        features.descriptors[rows],
        features.image_size,
        features.num_sets,
    )


def join_features(parts: Sequence[Features]) -> Features:
    """Join the rows of features of the same kind, in their order."""
    return Features(
        np.concatenate([part.keypoints for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.sets for part in parts]),
        np.concatenate([part.descriptors for part in parts]),
        parts[-1].image_size,
        parts[-1].num_sets,
    )

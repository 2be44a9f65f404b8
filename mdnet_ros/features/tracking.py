"""Tracks keypoints through a sequence of frames and gives them persistent ids."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mdnet_ros.errors import SettingError
from mdnet_ros.features.geometry import MIN_MATCHES, VERIFICATIONS, Verification, inlier_mask
from mdnet_ros.features.matching import match_mutual_nearest
from mdnet_ros.features.types import Correspondences, Features, TrackedFrame


@dataclass(frozen=True)
class TrackingSettings:
    """Settings of a :class:`FrameTracker`.

    Attributes:
        max_gap: through how many frames a track may be missing and still keep its id.
        min_similarity: matches with a lower cosine are dropped, in [-1, 1].
        verification: geometric model that marks (not removes) outliers: ``none``,
            ``fundamental`` or ``homography``.
        max_error: distance to the model up to which a match is an inlier, pixels.
        across_sets: match all keypoints against all, ignoring the sets (for comparison).
        exact: compare descriptors in float32, see
            :func:`~mdnet_ros.features.matching.mutual_nearest`.

    Raises:
        SettingError: if a setting is out of its range.
    """

    max_gap: int = 2
    min_similarity: float = 0.0
    verification: Verification = 'fundamental'
    max_error: float = 2.0
    across_sets: bool = False
    exact: bool = False

    def __post_init__(self) -> None:
        if self.max_gap < 0:
            raise SettingError(f'max_gap: expected at least 0, got {self.max_gap}')
        if not -1.0 <= self.min_similarity <= 1.0:
            raise SettingError(f'min_similarity: expected -1 to 1, got {self.min_similarity}')
        if self.verification not in VERIFICATIONS:
            raise SettingError(
                f"verification '{self.verification}': expected {', '.join(VERIFICATIONS)}"
            )
        if not self.max_error > 0:
            raise SettingError(f'max_error: expected more than 0, got {self.max_error}')


@dataclass(frozen=True)
class _LostTracks:
    """Tracks that were seen lately but not in the last frame, oldest first.

    Attributes:
        features: (N,) keypoints with descriptors, where each track was last seen.
        rows: (N,) int64, row in the features of that frame.
        track_ids: (N,) int64.
        ages: (N,) int32, age of the track in that frame.
        stamps: (N,) int64, stamp of that frame in nanoseconds.
        missed: (N,) int64, in how many frames the track was missing since, at least 1.
    """

    features: Features
    rows: np.ndarray
    track_ids: np.ndarray
    ages: np.ndarray
    stamps: np.ndarray
    missed: np.ndarray

    def select(self, rows: np.ndarray) -> _LostTracks:
        """Return some of the tracks."""
        return _LostTracks(
            _select(self.features, rows), self.rows[rows], self.track_ids[rows], self.ages[rows],
            self.stamps[rows], self.missed[rows],
        )


@dataclass(frozen=True)
class _Group:
    """Matches to one earlier frame.

    Attributes:
        matches: all marked as inliers until they are verified.
        frames_back: how many frames ago the earlier frame was, 1 for the previous one. Stamps
            cannot tell, because they may repeat.
    """

    matches: Correspondences
    frames_back: int


class FrameTracker:
    """Follows keypoints through a sequence of frames.

    Each frame is matched to the previous one by mutual nearest neighbour inside each set. The
    remaining keypoints are matched to tracks that were lost up to ``max_gap`` frames ago. Ids
    start at 0 and are never reused, not even after :meth:`reset`.

    Args:
        max_gap: through how many frames a track may be missing and still keep its id.
        min_similarity: matches with a lower cosine are dropped, in [-1, 1].
        verification: geometric model that marks (not removes) outliers: ``none``,
            ``fundamental`` or ``homography``.
        max_error: distance to the model up to which a match is an inlier, pixels.
        across_sets: match all keypoints against all, ignoring the sets (for comparison).
        exact: compare descriptors in float32, see
            :func:`~mdnet_ros.features.matching.mutual_nearest`.

    Attributes:
        settings: the arguments as one value; may be replaced between two frames.

    Raises:
        SettingError: if a setting is out of its range.
    """

    def __init__(
        self,
        max_gap: int = 2,
        min_similarity: float = 0.0,
        verification: Verification = 'fundamental',
        max_error: float = 2.0,
        across_sets: bool = False,
        exact: bool = False,
    ) -> None:
        self.settings = TrackingSettings(
            max_gap, min_similarity, verification, max_error, across_sets, exact
        )
        self._next_id = 0
        self._previous: TrackedFrame | None = None
        self._lost: _LostTracks | None = None
        #: Keypoints (N, 2) and track ids (N,) of the last frames, the previous frame last.
        self._recent: list[tuple[np.ndarray, np.ndarray]] = []

    def reset(self) -> None:
        """Forget all tracks; ids are not reused."""
        self._previous = None
        self._lost = None
        self._recent = []

    def update(self, features: Features, stamp_ns: int = 0) -> TrackedFrame:
        """Track the next frame.

        Args:
            features: features of the frame.
            stamp_ns: stamp of the frame in nanoseconds.

        Returns:
            The frame with track ids, ages and correspondences to earlier frames.
        """
        previous = self._previous
        if previous is not None and not _comparable(previous.features, features):
            self.reset()
            previous = None
        track_ids = np.full(len(features), -1, np.int64)
        ages = np.zeros(len(features), np.int32)
        groups: list[_Group] = []
        lost = self._lost
        still_lost = np.zeros(0, bool)
        previous_matched = np.zeros(0, bool)
        if previous is not None:
            rows, rows_prev, similarity = self._match(features, previous.features)
            track_ids[rows] = previous.track_ids[rows_prev]
            ages[rows] = previous.ages[rows_prev] + 1
            previous_matched = np.zeros(len(previous.features), bool)
            previous_matched[rows_prev] = True
            stamps = np.full(len(rows), previous.stamp_ns, np.int64)
            keypoints = previous.features.keypoints[rows_prev]
            groups.append(_group(rows, rows_prev, keypoints, stamps, similarity, 1))
        if lost is not None and len(lost.features):
            free = np.nonzero(track_ids < 0)[0]
            rows, rows_lost, similarity = self._match(_select(features, free), lost.features)
            rows = free[rows]
            track_ids[rows] = lost.track_ids[rows_lost]
            ages[rows] = lost.ages[rows_lost] + 1
            still_lost = np.ones(len(lost.features), bool)
            still_lost[rows_lost] = False
            found = lost.select(rows_lost)
            for missed in np.unique(found.missed):
                same = found.missed == missed
                groups.append(_group(
                    rows[same], found.rows[same], found.features.keypoints[same],
                    found.stamps[same], similarity[same], int(missed) + 1,
                ))
        new = track_ids < 0
        count = int(new.sum())
        track_ids[new] = np.arange(self._next_id, self._next_id + count)
        self._next_id += count
        self._lost = self._lost_tracks(previous, previous_matched, lost, still_lost)
        correspondences = self._verified(features.keypoints, track_ids, groups)
        frame = TrackedFrame(features, track_ids, ages, correspondences, int(stamp_ns))
        self._previous = frame
        recent = [*self._recent, (features.keypoints, track_ids)]
        self._recent = recent[-(self.settings.max_gap + 1) :]
        return frame

    def _match(
        self, features: Features, earlier: Features
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return rows in both features, and the similarity of the matches."""
        matches = match_mutual_nearest(
            features,
            earlier,
            across_sets=self.settings.across_sets,
            min_similarity=self.settings.min_similarity,
            exact=self.settings.exact,
        )
        return matches.indices[:, 0], matches.indices[:, 1], matches.similarity

    def _verified(
        self, keypoints: np.ndarray, track_ids: np.ndarray, groups: list[_Group]
    ) -> Correspondences:
        """Join the groups into one table, with the outliers of each group's geometry marked."""
        if not groups:
            none = np.zeros(0, np.int64)
            return _unverified(
                none, none, np.zeros((0, 2), np.float32), none, np.zeros(0, np.float32)
            )
        verified = []
        for group in groups:
            matches = group.matches
            if group.frames_back > 1 and len(matches) < self._enough:
                inlier = self._inlier_of_few(keypoints, track_ids, group)
            else:
                inlier = inlier_mask(
                    matches.keypoints_prev, keypoints[matches.indices],
                    self.settings.verification, self.settings.max_error, matches.similarity,
                )
            verified.append(replace(matches, inlier=inlier))
        return Correspondences.concatenate(verified)

    @property
    def _enough(self) -> int:
        """How many matches verify each other: a model of fewer fits nearly any."""
        return 2 * MIN_MATCHES[self.settings.verification]

    def _inlier_of_few(
        self, keypoints: np.ndarray, track_ids: np.ndarray, group: _Group
    ) -> np.ndarray:
        """Verify a small group of tracks found again.

        The geometry between the two frames is fitted to all tracks that both frames have, most
        of which were never lost. Without enough of them no match of the group is an inlier.
        """
        matches = group.matches
        keypoints_prev, track_ids_prev = self._recent[-group.frames_back]
        _, rows, rows_prev = np.intersect1d(
            track_ids, track_ids_prev, assume_unique=True, return_indices=True
        )
        inlier = np.zeros(len(track_ids), bool)
        if len(rows) >= self._enough:
            inlier[rows] = inlier_mask(
                keypoints_prev[rows_prev], keypoints[rows], self.settings.verification,
                self.settings.max_error,
            )
        return inlier[matches.indices]

    def _lost_tracks(
        self,
        previous: TrackedFrame | None,
        previous_matched: np.ndarray,
        lost: _LostTracks | None,
        still_lost: np.ndarray,
    ) -> _LostTracks | None:
        """Return the tracks that are missing in the present frame and may be found again."""
        if previous is None or self.settings.max_gap == 0:
            return None
        rows = np.nonzero(~previous_matched)[0]
        gone = _LostTracks(
            _select(previous.features, rows),
            rows,
            previous.track_ids[rows],
            previous.ages[rows],
            np.full(len(rows), previous.stamp_ns, np.int64),
            np.ones(len(rows), np.int64),
        )
        if lost is None or not len(lost.features):
            return gone
        kept = lost.select(np.nonzero(still_lost & (lost.missed < self.settings.max_gap))[0])
        return _LostTracks(
            _concatenate(kept.features, gone.features),
            np.concatenate([kept.rows, gone.rows]),
            np.concatenate([kept.track_ids, gone.track_ids]),
            np.concatenate([kept.ages, gone.ages]),
            np.concatenate([kept.stamps, gone.stamps]),
            np.concatenate([kept.missed + 1, gone.missed]),
        )


def _group(
    rows: np.ndarray, rows_prev: np.ndarray, keypoints_prev: np.ndarray, stamps: np.ndarray,
    similarity: np.ndarray, frames_back: int,
) -> _Group:
    matches = _unverified(rows, rows_prev, keypoints_prev, stamps, similarity)
    return _Group(matches, frames_back)


def _unverified(
    rows: np.ndarray, rows_prev: np.ndarray, keypoints_prev: np.ndarray, stamps: np.ndarray,
    similarity: np.ndarray,
) -> Correspondences:
    """Return correspondences that are all marked as inliers."""
    inlier = np.ones(len(rows), bool)
    return Correspondences(rows, rows_prev, keypoints_prev, stamps, similarity, inlier)


def _select(features: Features, rows: np.ndarray) -> Features:
    """Return some rows of a frame's features, on the host."""
    return Features(
        features.keypoints[rows],
        features.scores[rows],
        features.sets[rows],
        features.descriptors[rows],
        features.image_size,
        features.num_sets,
    )


def _concatenate(a: Features, b: Features) -> Features:
    """Return the rows of both features, on the host."""
    return Features(
        np.concatenate([a.keypoints, b.keypoints]),
        np.concatenate([a.scores, b.scores]),
        np.concatenate([a.sets, b.sets]),
        np.concatenate([a.descriptors, b.descriptors]),
        b.image_size,
        b.num_sets,
    )


def _comparable(a: Features, b: Features) -> bool:
    """Return whether two frames have the same image size and features of the same kind."""
    return (
        a.image_size == b.image_size
        and a.descriptors.shape[1] == b.descriptors.shape[1]
        and a.num_sets == b.num_sets
    )

"""From a sequence of frames to persistent track ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mdnet_ros.errors import SettingError
from mdnet_ros.features.geometry import VERIFICATIONS, Verification, inlier_mask
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
class _Lost:
    """Tracks seen lately but not in the last frame, oldest first."""

    features: Features
    rows: np.ndarray
    track_ids: np.ndarray
    ages: np.ndarray
    stamps: np.ndarray
    missed: np.ndarray


def _groups(distances: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of equal distance, in rising order of it."""
    for distance in np.unique(distances):
        yield np.nonzero(distances == distance)[0]


def _link(
    now: np.ndarray, then: np.ndarray, keypoints: np.ndarray, stamps: np.ndarray,
    similarity: np.ndarray,
) -> Correspondences:
    """Links to one earlier frame, not verified yet."""
    return Correspondences(now, then, keypoints, stamps, similarity, np.ones(len(now), bool))


def _select(features: Features, rows: np.ndarray) -> Features:
    """Some rows of a frame's features, on the host."""
    return Features(
        features.keypoints[rows],
        features.scores[rows],
        features.sets[rows],
        features.descriptors[rows],
        features.image_size,
        features.num_sets,
    )


def _join(a: Features, b: Features) -> Features:
    return Features(
        np.concatenate([a.keypoints, b.keypoints]),
        np.concatenate([a.scores, b.scores]),
        np.concatenate([a.sets, b.sets]),
        np.concatenate([a.descriptors, b.descriptors]),
        b.image_size,
        b.num_sets,
    )


def _kind(features: Features) -> tuple[object, ...]:
    """What two frames must share: another camera mode or other weights do not compare."""
    return features.image_size, features.descriptors.shape[1], features.num_sets


class FrameTracker:
    """Follows keypoints through a sequence of frames.

    Each frame is matched to the one before by mutual nearest neighbour inside each set; what
    stays unmatched is then matched to tracks that were lost up to ``max_gap`` frames ago. Ids
    start at 0 and are never reused, not even after :meth:`reset`.

    Args:
        max_gap: through how many frames a track may be missing and still keep its id.
        min_similarity: matches with a lower cosine are dropped, in [-1, 1].
        verification: geometric model that marks (not removes) outliers: ``none``,
            ``fundamental`` or ``homography``.
        max_error: distance to the model up to which a match is an inlier, pixels.
        across_sets: match all keypoints against all, ignoring the sets (for comparison).
        exact: as for :func:`~mdnet_ros.features.matching.mutual_nearest`.

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
        #: May be replaced between two frames.
        self.settings = TrackingSettings(
            max_gap, min_similarity, verification, max_error, across_sets, exact
        )
        self._next_id = 0
        self._previous: TrackedFrame | None = None
        self._lost: _Lost | None = None

    def reset(self) -> None:
        """Forget all tracks; ids go on from where they are."""
        self._previous = None
        self._lost = None

    def update(self, features: Features, stamp_ns: int = 0) -> TrackedFrame:
        """Take the next frame.

        Args:
            features: of the frame.
            stamp_ns: the frame's stamp in nanoseconds.

        Returns:
            The frame with track ids, ages and correspondences to earlier frames.
        """
        previous = self._previous
        if previous is not None and _kind(previous.features) != _kind(features):
            self.reset()
            previous = None
        track_ids = np.full(len(features), -1, np.int64)
        ages = np.zeros(len(features), np.int32)
        links: list[Correspondences] = []
        lost = self._lost
        lost_again = np.zeros(0, bool)
        previous_matched = np.zeros(0, bool)
        if previous is not None:
            now, then, similarity = self._match(features, previous.features)
            track_ids[now] = previous.track_ids[then]
            ages[now] = previous.ages[then] + 1
            previous_matched = np.zeros(len(previous.features), bool)
            previous_matched[then] = True
            stamps = np.full(len(now), previous.stamp_ns, np.int64)
            links.append(
                _link(now, then, previous.features.keypoints[then], stamps, similarity)
            )
        if lost is not None and len(lost.features):
            free = np.nonzero(track_ids < 0)[0]
            now, then, similarity = self._match(_select(features, free), lost.features)
            now = free[now]
            track_ids[now] = lost.track_ids[then]
            ages[now] = lost.ages[then] + 1
            lost_again = np.ones(len(lost.features), bool)
            lost_again[then] = False
            # Frames are told apart by how far back they lie: stamps may repeat.
            for group in _groups(lost.missed[then]):
                chosen = then[group]
                links.append(_link(
                    now[group], lost.rows[chosen], lost.features.keypoints[chosen],
                    lost.stamps[chosen], similarity[group],
                ))
        new = track_ids < 0
        count = int(new.sum())
        track_ids[new] = np.arange(self._next_id, self._next_id + count)
        self._next_id += count
        self._lost = self._remember(previous, previous_matched, lost, lost_again)
        verified = self._verified(features, links)
        frame = TrackedFrame(features, track_ids, ages, verified, int(stamp_ns))
        self._previous = frame
        return frame

    def _match(
        self, features: Features, earlier: Features
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows now, rows then, and their similarity."""
        matches = match_mutual_nearest(
            features,
            earlier,
            across_sets=self.settings.across_sets,
            min_similarity=self.settings.min_similarity,
            exact=self.settings.exact,
        )
        return matches.indices[:, 0], matches.indices[:, 1], matches.similarity

    def _verified(self, features: Features, links: list[Correspondences]) -> Correspondences:
        """Links to each earlier frame in one table, those marked that its geometry contradicts."""
        if not links:
            none = np.zeros(0, np.int64)
            return _link(none, none, np.zeros((0, 2), np.float32), none, np.zeros(0, np.float32))

        verified = [
            replace(link, inlier=inlier_mask(
                link.keypoints_prev, features.keypoints[link.indices],
                self.settings.verification, self.settings.max_error, link.similarity,
            ))
            for link in links
        ]
        return Correspondences.concatenate(verified)

    def _remember(
        self,
        previous: TrackedFrame | None,
        previous_matched: np.ndarray,
        lost: _Lost | None,
        lost_again: np.ndarray,
    ) -> _Lost | None:
        """Tracks missing from the frame just taken that may still come back."""
        if previous is None or self.settings.max_gap == 0:
            return None
        rows = np.nonzero(~previous_matched)[0]
        gone = _Lost(
            _select(previous.features, rows),
            rows,
            previous.track_ids[rows],
            previous.ages[rows],
            np.full(len(rows), previous.stamp_ns, np.int64),
            np.ones(len(rows), np.int64),
        )
        if lost is None or not len(lost.features):
            return gone
        keep = np.nonzero(lost_again & (lost.missed < self.settings.max_gap))[0]
        return _Lost(
            _join(_select(lost.features, keep), gone.features),
            np.concatenate([lost.rows[keep], gone.rows]),
            np.concatenate([lost.track_ids[keep], gone.track_ids]),
            np.concatenate([lost.ages[keep], gone.ages]),
            np.concatenate([lost.stamps[keep], gone.stamps]),
            np.concatenate([lost.missed[keep] + 1, gone.missed]),
        )

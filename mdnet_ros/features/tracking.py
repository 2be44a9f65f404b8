"""Tracks keypoints through a sequence of frames and gives them persistent ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mdnet_ros.errors import ImageError, SettingError
from mdnet_ros.features.extractor import to_gray
from mdnet_ros.features.geometry import MIN_MATCHES, VERIFICATIONS, Verification, inlier_mask
from mdnet_ros.features.matching import match_mutual_nearest
from mdnet_ros.features.refinement import REFINEMENTS, Refinement, refine
from mdnet_ros.features.track_state import (
    Association,
    EarlierTracks,
    TrackTable,
    join_features,
    select_features,
)
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
        refinement: ``flow`` aligns the positions of tracks by optical flow, and propagates
            tracks through frames in which their keypoint is not detected; ``none`` takes positions
            as they are detected.
        border: no track is propagated closer to the edge of the image than this, pixels.

    Raises:
        SettingError: if a setting is out of its range.
    """

    max_gap: int = 2
    min_similarity: float = 0.0
    verification: Verification = 'fundamental'
    max_error: float = 2.0
    across_sets: bool = False
    exact: bool = False
    refinement: Refinement = 'none'
    border: int = 8

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
        if self.refinement not in REFINEMENTS:
            raise SettingError(
                f"refinement '{self.refinement}': expected {', '.join(REFINEMENTS)}"
            )
        if self.border < 0:
            raise SettingError(f'border: expected at least 0, got {self.border}')


class FrameTracker:
    """Follows keypoints through a sequence of frames.

    Each frame is matched to the previous one by mutual nearest neighbour inside each set. The
    remaining keypoints are matched to tracks that were lost up to ``max_gap`` frames ago. Ids
    start at 0 and are never reused, not even after :meth:`reset`.

    With refinement, the position of a matched keypoint is where optical flow finds the patch of
    its track, starting from the detection. Where that fails, or ends too far from the detection,
    the position stays as detected and the keypoint is marked as not refined. A track whose
    keypoint is not detected is propagated by flow for up to ``max_gap`` frames; it ends when flow
    fails, or when a keypoint is detected at its position whose descriptor does not match.

    Args:
        max_gap: through how many frames a track may be missing and still keep its id.
        min_similarity: matches with a lower cosine are dropped, in [-1, 1].
        verification: geometric model that marks (not removes) outliers: ``none``,
            ``fundamental`` or ``homography``.
        max_error: distance to the model up to which a match is an inlier, pixels.
        across_sets: match all keypoints against all, ignoring the sets (for comparison).
        exact: compare descriptors in float32, see
            :func:`~mdnet_ros.features.matching.mutual_nearest`.
        refinement: ``none`` or ``flow``.
        border: no track is propagated closer to the edge of the image than this, pixels.

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
        refinement: Refinement = 'none',
        border: int = 8,
    ) -> None:
        self.settings = TrackingSettings(
            max_gap, min_similarity, verification, max_error, across_sets, exact, refinement,
            border,
        )
        self._next_id = 0
        self._earlier: EarlierTracks | None = None
        #: The previous image, with refinement.
        self._image: np.ndarray | None = None
        #: Keypoints (N, 2) and track ids (N,) of the last frames, the previous frame last.
        self._recent: list[tuple[np.ndarray, np.ndarray]] = []

    def reset(self) -> None:
        """Forget all tracks; ids are not reused."""
        self._earlier = self._image = None
        self._recent = []

    def update(
        self,
        features: Features,
        stamp_ns: int = 0,
        image: np.ndarray | None = None,
        masks: Sequence[np.ndarray | None] = (),
    ) -> TrackedFrame:
        """Track the next frame.

        Args:
            features: features of the frame.
            stamp_ns: stamp of the frame in nanoseconds.
            image: uint8, (H, W) gray or (H, W, 3) BGR, the frame itself; only needed with
                refinement, which keeps a copy.
            masks: (h, w) uint8 of any size, stretched to the image: no track is propagated to
                where one of them is 0; None: everywhere.

        Returns:
            The frame with track ids, ages and correspondences to earlier frames. With refinement
            its features hold the propagated tracks too, in each set after the detected keypoints.

        Raises:
            ImageError: if the image cannot be used, is missing with refinement, or is not of the
                size of the features.
        """
        gray = self._gray(features, image)
        if self._earlier is not None and not _comparable(self._earlier.detected, features):
            self.reset()
        association = self._associate(features)
        if gray is not None and self._image is not None and self._earlier is not None:
            association = refine(
                association, features, self._earlier, self._image, gray,
                max_gap=self.settings.max_gap, min_similarity=self.settings.min_similarity,
                border=self.settings.border, masks=masks,
            )
        self._image = gray
        return self._finish(features, association, int(stamp_ns))

    def _gray(self, features: Features, image: np.ndarray | None) -> np.ndarray | None:
        """Return a copy of the image in gray where refinement needs it."""
        if self.settings.refinement == 'none':
            return None
        width, height = features.image_size
        if image is None:
            raise ImageError('image: expected the frame itself with refinement flow, got None')
        gray = to_gray(image)
        if gray.shape != (height, width):
            raise ImageError(
                f'image: expected {width}x{height} as the features, '
                f'got {gray.shape[1]}x{gray.shape[0]}'
            )
        return gray.copy()

    def _associate(self, features: Features) -> Association:
        """Match the keypoints to the last frame's, and those left over to the lost ones."""
        track_index = np.full(len(features), -1, np.int64)
        similarity = np.zeros(len(features), np.float32)
        earlier = self._earlier
        if earlier is not None:
            now, then, cosine = self._match(features, earlier.detected)
            track_index[now], similarity[now] = then, cosine
            if len(earlier.lost):
                free = np.nonzero(track_index < 0)[0]
                now, then, cosine = self._match(select_features(features, free), earlier.lost)
                now = free[now]
                track_index[now], similarity[now] = len(earlier.detected) + then, cosine
        return Association(
            track_index, similarity, features.keypoints, np.zeros(len(features), bool),
            np.zeros(0, np.int64), np.zeros((0, 2), np.float32),
        )

    def _match(
        self, features: Features, earlier: Features
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return rows now, rows then, and their similarity."""
        matches = match_mutual_nearest(
            features,
            earlier,
            across_sets=self.settings.across_sets,
            min_similarity=self.settings.min_similarity,
            exact=self.settings.exact,
        )
        return matches.indices[:, 0], matches.indices[:, 1], matches.similarity

    def _finish(
        self, features: Features, association: Association, stamp_ns: int
    ) -> TrackedFrame:
        """Put the frame together, and remember it for the next one."""
        earlier = self._earlier
        detected, propagated = len(features), association.propagated
        # Detected keypoints first, then propagated ones; each with the row of its earlier track.
        track_index = np.concatenate([association.track_index, propagated])
        known = np.nonzero(track_index >= 0)[0]
        new = np.nonzero(track_index < 0)[0]
        track_ids = np.empty(len(track_index), np.int64)
        ages = np.zeros(len(track_index), np.int32)
        missed = np.zeros(len(track_index), np.int64)
        track_ids[new] = np.arange(self._next_id, self._next_id + len(new))
        self._next_id += len(new)
        if earlier is not None:
            track_ids[known] = earlier.table.track_ids[track_index[known]]
            ages[known] = earlier.table.ages[track_index[known]] + 1
            missed[detected:] = earlier.table.missed[propagated] + 1
        shown = replace(features, keypoints=association.keypoints)
        order = np.arange(len(track_index))
        if earlier is not None and len(propagated):
            undetected = replace(
                earlier.features(propagated), keypoints=association.propagated_keypoints
            )
            shown = join_features([shown, undetected])
            order = np.argsort(shown.sets, kind='stable')
            shown = select_features(shown, order)
        row_of = np.empty(len(order), np.int64)
        row_of[order] = np.arange(len(order))
        keypoints = np.concatenate([association.keypoints, association.propagated_keypoints])
        refined = np.concatenate([association.refined, np.ones(len(propagated), bool)])
        similarity = np.concatenate(
            [association.similarity, np.ones(len(propagated), np.float32)]
        )
        matches = self._verified(known, track_index, keypoints, track_ids, similarity)
        self._recent = [*self._recent, (keypoints, track_ids)][-(self.settings.max_gap + 1) :]
        table = TrackTable(
            keypoints, row_of, np.full(len(row_of), stamp_ns, np.int64),
            np.zeros(len(row_of), np.int64), track_ids, ages, missed,
        )
        self._remember(features, table, track_index, propagated)
        with_flow = self.settings.refinement == 'flow'
        return TrackedFrame(
            shown,
            track_ids[order],
            ages[order],
            replace(matches, indices=row_of[matches.indices]),
            stamp_ns,
            refined[order] if with_flow else None,
            missed[order].astype(np.int32) if with_flow else None,
        )

    def _verified(
        self, known: np.ndarray, track_index: np.ndarray, keypoints: np.ndarray,
        track_ids: np.ndarray, similarity: np.ndarray,
    ) -> Correspondences:
        """Return the matches to earlier frames, with the outliers of each frame's geometry marked.

        Args:
            known: rows of the keypoints that continue an earlier track.
            track_index: (N,) int64, row of that track in the table of earlier tracks, or -1.
            keypoints: (N, 2) float32, pixels.
            track_ids: (N,) int64.
            similarity: (N,) float32.
        """
        if self._earlier is None:
            none = np.zeros(0, np.int64)
            return Correspondences(
                none, none, np.zeros((0, 2), np.float32), none, np.zeros(0, np.float32),
                np.zeros(0, bool),
            )
        table, settings = self._earlier.table, self.settings
        tracks = track_index[known]
        inlier = np.zeros(len(known), bool)
        # Stamps do not identify the frames, because they may repeat.
        frames_ago = table.frames_ago[tracks]
        for ago in np.unique(frames_ago):
            rows = np.nonzero(frames_ago == ago)[0]
            if ago > 0 and len(rows) < self._enough:
                inlier[rows] = self._inlier_of_few(keypoints, track_ids, ago)[known[rows]]
            else:
                inlier[rows] = inlier_mask(
                    table.keypoints[tracks[rows]], keypoints[known[rows]],
                    settings.verification, settings.max_error, similarity[known[rows]],
                )
        order = np.argsort(frames_ago, kind='stable')
        now, tracks = known[order], tracks[order]
        return Correspondences(
            now, table.rows[tracks], table.keypoints[tracks], table.stamps[tracks],
            similarity[now], inlier[order],
        )

    @property
    def _enough(self) -> int:
        """How many matches verify each other: a model of fewer fits nearly any."""
        return 2 * MIN_MATCHES[self.settings.verification]

    def _inlier_of_few(
        self, keypoints: np.ndarray, track_ids: np.ndarray, frames_ago: int
    ) -> np.ndarray:
        """Verify the few re-found tracks that share an earlier frame.

        The model is fitted to all tracks common to both frames, most of which were never lost.
        Without enough of them there are no inliers.

        Args:
            keypoints: (N, 2) float32, pixels.
            track_ids: (N,) int64.
            frames_ago: how many frames the earlier frame lies before the previous one.

        Returns:
            (N,) bool.
        """
        keypoints_prev, track_ids_prev = self._recent[-1 - frames_ago]
        _, rows, rows_prev = np.intersect1d(
            track_ids, track_ids_prev, assume_unique=True, return_indices=True
        )
        inlier = np.zeros(len(track_ids), bool)
        if len(rows) >= self._enough:
            inlier[rows] = inlier_mask(
                keypoints_prev[rows_prev], keypoints[rows], self.settings.verification,
                self.settings.max_error,
            )
        return inlier

    def _remember(
        self, features: Features, table: TrackTable, track_index: np.ndarray, propagated: np.ndarray
    ) -> None:
        """Keep the tracks of the frame just taken, and those missing from it that may come back.

        Args:
            features: N detected keypoints.
            table: of the N detected keypoints and the C propagated tracks.
            track_index: (N + C,) int64, row of the earlier track that each continues, or -1.
            propagated: (C,) int64, rows of the propagated tracks in the earlier table.
        """
        detected, earlier = len(features), self._earlier
        now = table.at(np.arange(detected))
        nothing = select_features(features, np.zeros(0, np.int64))
        if earlier is None or self.settings.max_gap == 0:
            self._earlier = EarlierTracks(features, nothing, now)
            return
        gone = np.ones(len(earlier.table), bool)
        gone[track_index[:detected][track_index[:detected] >= 0]] = False
        gone &= earlier.table.missed < self.settings.max_gap
        left = np.nonzero(gone)[0]
        count = len(earlier.detected)
        # Those lost for longer first.
        left = np.concatenate([left[left >= count], left[left < count]])
        lost = earlier.table.at(left)
        lost = replace(lost, frames_ago=lost.frames_ago + 1, missed=lost.missed + 1)
        where = np.full(len(earlier.table), -1, np.int64)
        where[left] = np.arange(len(left))
        for name in ('keypoints', 'rows', 'stamps', 'frames_ago', 'ages'):
            getattr(lost, name)[where[propagated]] = getattr(table, name)[detected:]
        rows = np.argsort(left, kind='stable')
        back_to = np.argsort(rows, kind='stable')
        lost_features = select_features(earlier.features(left[rows]), back_to)
        self._earlier = EarlierTracks(
            features, lost_features, TrackTable.concatenate([now, lost])
        )


def _comparable(a: Features, b: Features) -> bool:
    """Return whether two frames have the same image size and features of the same kind."""
    return (
        a.image_size == b.image_size
        and a.descriptors.shape[1] == b.descriptors.shape[1]
        and a.num_sets == b.num_sets
    )

"""Pairs of images of a tracked sequence that share tracks."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from mdnet_ros.errors import SettingError
from mdnet_ros.features.types import TrackedFrame


@dataclass(frozen=True)
class ImagePair:
    """Pair of images and the tracks they share.

    Attributes:
        earlier: index of the earlier image, from 0.
        later: index of the later image.
        rows: (M, 2) int64, rows of keypoints in the earlier and in the later image.
        inlier: (M,) bool, whether every step of the track between the images is an inlier.
        similarity: (M,) float32, cosine of the descriptors; 1 where there are none.
    """

    earlier: int
    later: int
    rows: np.ndarray
    inlier: np.ndarray
    similarity: np.ndarray


@dataclass(frozen=True)
class _Seen:
    index: int
    track_ids: np.ndarray
    outlier_steps: np.ndarray  # (N,) outlier steps of each track so far
    descriptors: np.ndarray


class PairFinder:
    """Finds the pairs of a sequence, keeping only the last images in memory.

    Args:
        window: largest distance of a pair, images.
        every: only every n-th frame is an image; tracks run through the frames between.

    Raises:
        SettingError: one of them is below 1.
    """

    def __init__(self, window: int = 20, every: int = 1) -> None:
        for name, value in (('window', window), ('every', every)):
            if value < 1:
                raise SettingError(f'{name}: expected at least 1, got {value}')
        self._every = every
        self._seen: deque[_Seen] = deque(maxlen=window)
        self._outlier_steps: dict[int, int] = {}
        self._frames = 0
        self._images = 0

    def add(self, frame: TrackedFrame) -> list[ImagePair] | None:
        """Add the next frame.

        Returns:
            Its pairs with earlier images, or None if the frame is not an image.
        """
        matches = frame.correspondences
        for track in frame.track_ids[matches.indices[~matches.inlier]].tolist():
            self._outlier_steps[track] = self._outlier_steps.get(track, 0) + 1
        self._frames += 1
        if (self._frames - 1) % self._every:
            return None
        steps = [self._outlier_steps.get(track, 0) for track in frame.track_ids.tolist()]
        now = _Seen(
            self._images, frame.track_ids, np.array(steps, int), frame.features.descriptors
        )
        pairs = [pair for then in self._seen if len((pair := _pair(then, now)).rows)]
        self._seen.append(now)
        self._images += 1
        return pairs


def _pair(then: _Seen, now: _Seen) -> ImagePair:
    _, a, b = np.intersect1d(then.track_ids, now.track_ids, True, return_indices=True)
    order = np.argsort(a)
    a, b = a[order], b[order]
    similarity = np.ones(len(a), np.float32)
    if then.descriptors.shape[1] == now.descriptors.shape[1] > 0:
        similarity = np.einsum('nd,nd->n', then.descriptors[a], now.descriptors[b])
    return ImagePair(
        then.index, now.index, np.stack([a, b], axis=1),
        then.outlier_steps[a] == now.outlier_steps[b], similarity.astype(np.float32),
    )

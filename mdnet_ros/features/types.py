"""Data types that modules exchange.

Pixel convention everywhere: x right, y down, integer coordinates at pixel centres.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch


@dataclass(frozen=True)
class HostTables:
    """Features of B images on the host, K sets of M slots each, as they were downloaded.

    Attributes:
        keypoints: (B, K, M, 2) float32, x and y in pixels of the network's input.
        scores: (B, K, M) float32.
        descriptors: (B, K, M, D) float32.
        valid: (B, K, M) bool.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    descriptors: np.ndarray
    valid: np.ndarray

    def __getitem__(self, images: slice) -> HostTables:
        """Take some images of the batch."""
        return HostTables(
            self.keypoints[images], self.scores[images], self.descriptors[images],
            self.valid[images],
        )


@dataclass(frozen=True, eq=False)
class StepMatches:
    """Matches of an image to the one before, found in the same pass as its features.

    Attributes:
        previous: weak reference to the :class:`StepMatches` of the image matched to; None for the
            first image. Weak, so that a sequence does not keep all of its images in memory.
        partner: (K, M) int64, slot in the same set of that image, or -1.
        similarity: (K, M) float32, cosine of the two descriptors.
    """

    previous: weakref.ref[StepMatches] | None
    partner: np.ndarray
    similarity: np.ndarray


@dataclass(frozen=True)
class PaddedFeatures:
    """Features of B images on the device, in fixed shapes: K sets of M slots each.

    Slots are sorted by descending score, so the valid ones of a set come first, unless a mask was
    applied to the keypoints of an exported file.

    Attributes:
        keypoints: (B, K, M, 2) float32, x and y in pixels of the original image.
        scores: (B, K, M) float32 in [0, 1]; 0 where not valid.
        descriptors: (B, K, M, D) float, unit norm where valid.
        valid: (B, K, M) bool.
        host: the same on the host, if it was downloaded already.
        matches: matches of each image to the one before it, if the same pass found them; else
            empty.
    """

    keypoints: torch.Tensor
    scores: torch.Tensor
    descriptors: torch.Tensor
    valid: torch.Tensor
    host: HostTables | None = field(default=None, repr=False, compare=False)
    matches: tuple[StepMatches, ...] = field(default=(), repr=False, compare=False)

    def __getitem__(self, image: int) -> PaddedFeatures:
        """Return the features of one image of the batch, with B = 1."""
        s = slice(image, image + 1)
        return PaddedFeatures(
            self.keypoints[s], self.scores[s], self.descriptors[s], self.valid[s],
            None if self.host is None else self.host[s], self.matches[s],
        )

    @staticmethod
    def of(tensors: Iterable[torch.Tensor]) -> PaddedFeatures:
        """Make features of keypoints, scores, descriptors and validity, in this order."""
        keypoints, scores, descriptors, valid = tensors
        return PaddedFeatures(keypoints, scores, descriptors, valid)

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Keypoints, scores, descriptors and validity."""
        return self.keypoints, self.scores, self.descriptors, self.valid


@dataclass(frozen=True)
class Features:
    """Keypoints of one image with their descriptors, on the host.

    Rows are grouped by set (``sets`` never decreases) and sorted by descending score within a set.

    Attributes:
        keypoints: (N, 2) float32, x and y in pixels.
        scores: (N,) float32; higher is better. MD-Net's lie in [0, 1].
        sets: (N,) int32, the detector that found the keypoint, 0 to ``num_sets`` - 1.
        descriptors: (N, D) float32, unit norm.
        image_size: (width, height) in pixels of the image the keypoints lie in.
        num_sets: number of detectors, whether or not each found a keypoint.
        padded: the same features on the network's device, B = 1, with the valid slots of each set
            first; matching uses them instead of uploading the others. None if the features are
            not from the network.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    sets: np.ndarray
    descriptors: np.ndarray
    image_size: tuple[int, int]
    num_sets: int = 1
    padded: PaddedFeatures | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        n = len(self.keypoints)
        if self.keypoints.shape != (n, 2):
            raise ValueError(f'keypoints: expected shape (N, 2), got {self.keypoints.shape}')
        for name in ('scores', 'sets', 'descriptors'):
            rows = getattr(self, name)
            if len(rows) != n:
                raise ValueError(f'{name}: expected {n} rows as in keypoints, got {len(rows)}')
        if self.descriptors.ndim != 2:
            raise ValueError(
                f'descriptors: expected shape (N, D), got {self.descriptors.shape}'
            )
        if n and not 0 <= self.sets.min() <= self.sets.max() < self.num_sets:
            raise ValueError(
                f'sets: expected 0 to {self.num_sets - 1}, '
                f'got {self.sets.min()} to {self.sets.max()}'
            )

    def __len__(self) -> int:
        return len(self.keypoints)

    @staticmethod
    def empty(image_size: tuple[int, int], dim: int, num_sets: int = 1) -> Features:
        """Features without a keypoint."""
        return Features(
            keypoints=np.zeros((0, 2), np.float32),
            scores=np.zeros(0, np.float32),
            sets=np.zeros(0, np.int32),
            descriptors=np.zeros((0, dim), np.float32),
            image_size=image_size,
            num_sets=num_sets,
        )


@dataclass(frozen=True)
class Matches:
    """Matches between the features ``a`` and ``b`` of two images.

    Attributes:
        indices: (M, 2) int64, row in ``a`` and row in ``b``; each row occurs at most once.
        similarity: (M,) float32, cosine of the two descriptors, in [-1, 1].
    """

    indices: np.ndarray
    similarity: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Correspondences:
    """Matches between keypoints of a frame and keypoints of earlier frames.

    Attributes:
        indices: (M,) int64, row in the current frame's features.
        indices_prev: (M,) int64, row in the features of the frame stamped ``stamps_prev``.
        keypoints_prev: (M, 2) float32, the position in that frame, in pixels.
        stamps_prev: (M,) int64, stamp of the earlier frame in nanoseconds; usually the previous
            frame, an older one for a track that was found again after a gap.
        similarity: (M,) float32, cosine of the two descriptors.
        inlier: (M,) bool, whether the match agrees with the geometric model; all True without
            verification.
    """

    indices: np.ndarray
    indices_prev: np.ndarray
    keypoints_prev: np.ndarray
    stamps_prev: np.ndarray
    similarity: np.ndarray
    inlier: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    @staticmethod
    def concatenate(parts: Sequence[Correspondences]) -> Correspondences:
        """Join the rows of several tables, in their order."""
        return Correspondences(
            np.concatenate([part.indices for part in parts]),
            np.concatenate([part.indices_prev for part in parts]),
            np.concatenate([part.keypoints_prev for part in parts]),
            np.concatenate([part.stamps_prev for part in parts]),
            np.concatenate([part.similarity for part in parts]),
            np.concatenate([part.inlier for part in parts]),
        )


@dataclass(frozen=True)
class TrackedFrame:
    """The features of a frame with the track of each keypoint.

    Attributes:
        features: features of the frame.
        track_ids: (N,) int64, never reused by a tracker.
        ages: (N,) int32, in how many earlier frames the track was seen (0: new).
        correspondences: matches to earlier frames.
        stamp_ns: stamp of the frame in nanoseconds.
        refined: (N,) bool, True where optical flow has refined the position; None without
            refinement.
        missed: (N,) int32, how many frames ago the keypoint was detected last: 0 in this frame,
            more where optical flow propagates the track; None without refinement.
    """

    features: Features
    track_ids: np.ndarray
    ages: np.ndarray
    correspondences: Correspondences
    stamp_ns: int
    refined: np.ndarray | None = None
    missed: np.ndarray | None = None

"""Features of a batch in one tensor, so that one download brings them to the host."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import TypeVar

import numpy as np
import torch

from mdnet_ros.features.types import HostTables, PaddedFeatures

_Table = TypeVar('_Table', torch.Tensor, np.ndarray)


@dataclass(frozen=True)
class Packing:
    """Layout of the features of a batch, and of further values of each slot, in one tensor.

    The values of each kind follow each other, so that taking them out again copies nothing.

    Attributes:
        shape: (B, K, M) of the slots.
        dim: D, the descriptor length.
        extra: E, how many further values each slot has.
    """

    shape: tuple[int, int, int]
    dim: int
    extra: int = 0

    @staticmethod
    def of(features: PaddedFeatures, extra: int = 0) -> Packing:
        """Return the layout for some features."""
        b, k, m = features.valid.shape
        return Packing((b, k, m), features.descriptors.shape[-1], extra)

    def unpack(self, table: torch.Tensor) -> PaddedFeatures:
        """Take features out of a packed tensor; all but ``valid`` are views of it."""
        keypoints, scores, valid, descriptors = self._parts(table)[:4]
        return PaddedFeatures(keypoints, scores, descriptors, valid > 0)

    def unpack_on_host(self, table: np.ndarray) -> tuple[HostTables, list[np.ndarray]]:
        """Take features and the further values, (B, K, M) float32 each, out of a packed array.

        All but ``valid`` are views of it.
        """
        keypoints, scores, valid, descriptors, *extra = self._parts(table)
        return HostTables(keypoints, scores, descriptors, valid > 0), extra

    def _parts(self, table: _Table) -> list[_Table]:
        """Return views: keypoints, scores, 1 where valid, descriptors, and the further values."""
        slots: tuple[int, ...] = self.shape
        shapes = [(*slots, 2), slots, slots, (*slots, self.dim), *([slots] * self.extra)]
        ends = list(accumulate(prod(shape) for shape in shapes))
        return [
            table[end - prod(shape) : end].reshape(shape)
            for shape, end in zip(shapes, ends, strict=True)
        ]


def pack(features: PaddedFeatures, *extra: torch.Tensor) -> torch.Tensor:
    """Put features, and further values of each slot, into one tensor on their device.

    Args:
        features: features of B images.
        extra: E tensors (B, K, M); integers below 2**24 stay exact.

    Returns:
        (B · K · M · (4 + E + D),) float32, laid out as :class:`Packing` says.
    """
    parts = (
        features.keypoints, features.scores, features.valid, features.descriptors, *extra
    )
    return torch.cat([part.float().reshape(-1) for part in parts])

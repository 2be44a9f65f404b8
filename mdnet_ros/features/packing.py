"""Features of a batch in one tensor, so that one download brings them to the host."""

from __future__ import annotations

import numpy as np
import torch

from mdnet_ros.features.types import HostTables, PaddedFeatures

#: Columns before the extra ones: x, y, score, 1 where valid.
_FIRST = 4


def pack(features: PaddedFeatures, *extra: torch.Tensor) -> torch.Tensor:
    """Put features, and further values of each slot, into one tensor on their device.

    Args:
        features: features of B images.
        extra: E tensors (B, K, M); integers below 2**24 stay exact.

    Returns:
        (B, K, M, 4 + E + D) float32: x, y, score, 1 where valid, the extra values, descriptor.
    """
    columns = (
        features.keypoints, features.scores[..., None], features.valid[..., None],
        *(values[..., None] for values in extra), features.descriptors,
    )
    return torch.cat([column.float() for column in columns], -1)


def unpack(table: np.ndarray, extra: int = 0) -> tuple[HostTables, list[np.ndarray]]:
    """Take apart what :func:`pack` put together.

    Args:
        table: (B, K, M, 4 + E + D) float32, downloaded.
        extra: E, how many further values each slot has.

    Returns:
        The features, and E arrays (B, K, M) float32; all are views of the table.
    """
    first = _FIRST + extra
    tables = HostTables(table[..., :2], table[..., 2], table[..., first:], table[..., 3] > 0)
    return tables, [table[..., _FIRST + i] for i in range(extra)]

"""The losses on windows of the heatmaps: agreement, intersection, similarity, peaky."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from mdnet_ros.training import losses
from mdnet_ros.training.keypoint_terms import ViewKeypoints
from mdnet_ros.training.overlap import Overlap, unwarp, unwarp_logits

#: A window counts when both views see this share of its pixels.
_COVERED = 0.9
#: Weight of a window without a reliable descriptor in the peaky loss.
_LEAST_WEIGHT = 0.1


@dataclass(frozen=True)
class WindowTerms:
    """Scalar losses of a batch; both views have a part in each."""

    agreement: torch.Tensor
    intersection: torch.Tensor
    similarity: torch.Tensor
    peaky: torch.Tensor


def agreement(
    logits: torch.Tensor, other: torch.Tensor, shared: Overlap, offset: tuple[int, int]
) -> torch.Tensor:
    """Agreement of two views in windows of the first; symmetric, so both learn from it.

    Args:
        logits: (B, K, S, S) of the first view.
        other: (B, K, S, S) of the second view.
        shared: the overlap as the first view sees it.
        offset: (y, x) of the grid of windows, pixels, each less than ``losses.WINDOW``.
    """
    own, unwarped, seen = (
        losses.windows_of(maps, losses.WINDOW, offset)
        for maps in (logits, unwarp_logits(other, shared), shared.visible)
    )
    return losses.agreement_loss(own, unwarped, seen, _covered(seen))


def intersection(
    logits: torch.Tensor, shared: Overlap, offset: tuple[int, int]
) -> torch.Tensor:
    """Intersection of a view's own sets; arguments as in :func:`agreement`."""
    own, seen = (
        losses.windows_of(maps, losses.WINDOW, offset) for maps in (logits, shared.visible)
    )
    return losses.intersection_loss(own, seen, _covered(seen))


def _covered(seen: torch.Tensor) -> torch.Tensor:
    """(B, 1, N) 1 for windows of which both views see enough."""
    return (seen.float().mean(-1) > _COVERED).float()


def similarity_and_peaky(
    logits: torch.Tensor,
    other: torch.Tensor,
    shared: Overlap,
    keypoints: ViewKeypoints,
    quality: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The terms of Santellani et al. for one view.

    Args:
        logits: (B, K, S, S) of the view.
        other: (B, K, S, S) of the other view.
        shared: the overlap as the view sees it.
        keypoints: keypoints of the view.
        quality: (B, K, M) of their matches; the peaky loss weighs windows by it.
    """
    heatmap = logits.sigmoid()
    similarity = losses.similarity_loss(heatmap, unwarp(other.sigmoid(), shared), shared.visible)
    reliable = torch.zeros_like(heatmap).flatten(2).scatter(2, keypoints.index, quality)
    reliable = F.max_pool2d(
        reliable.reshape_as(heatmap), losses.WINDOW + 1, 1, losses.WINDOW // 2
    )
    return similarity, losses.peaky_loss(heatmap, (_LEAST_WEIGHT + reliable) * shared.visible)

"""What two views of a pair share: which pixels both see, and one view's maps seen from the other.

``to_second`` takes pixels of the first view to pixels of the second. *Unwarping* a map of the
second view resamples it into the first: the value at x is the second view's value at
``to_second``(x), the true position of what the first view shows at x.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from mdnet_ros.training.views import ViewPair
from mdnet_ros.training.warps import apply_homography, area_scale, inverse, pixel_grid

#: Pixels this close to the second view's edge do not count as seen by it.
_EDGE = 2
#: Levels that logits are unwarped from: their own, and half the resolution where the second view is
#: twice as near or more.
_LEVELS = 2


@dataclass(frozen=True)
class Overlap:
    """The shared part of a pair, in pixels of its first view.

    Attributes:
        to_second: (B, 3, 3), pixels of the first view to pixels of the second.
        visible: (B, 1, S, S) bool, the pixel lies on the photograph in both views.
        grid: (B, S, S, 2) true position of each pixel in the second view, in the
            coordinates of ``grid_sample``.
        level: (B, 1, S, S) half the log2 of the area in the second view that a pixel covers, at
            least 0: 1 where the second view is twice as near.
    """

    to_second: torch.Tensor
    visible: torch.Tensor
    grid: torch.Tensor
    level: torch.Tensor


def overlaps(pair: ViewPair) -> tuple[Overlap, Overlap]:
    """The shared part as the first view sees it, and as the second view sees it."""
    first, second = pair.valid.chunk(2)
    return (
        overlap(first, second, pair.to_second),
        overlap(second, first, inverse(pair.to_second)),
    )


def overlap(first: torch.Tensor, second: torch.Tensor, to_second: torch.Tensor) -> Overlap:
    """The shared part as the first view sees it.

    Args:
        first, second: (B, 1, S, S) bool, the views' pixels that lie on the photograph.
        to_second: (B, 3, 3), pixels of the first view to pixels of the second.
    """
    side = first.shape[-1]
    grid = pixel_grid(side, first.device)[None].expand(len(first), -1, -1, -1)
    position = apply_homography(to_second, grid)
    within = ((position >= _EDGE) & (position <= side - 1 - _EDGE)).all(-1)[:, None]
    normalised = ((position + 0.5) * (2.0 / side) - 1.0).clamp(-2.0, 2.0)
    seen = F.grid_sample(second.float(), normalised, mode='nearest', align_corners=False) > 0.5
    level = (0.5 * area_scale(to_second, grid).log2()).clamp(0.0, _LEVELS - 1.0)[:, None]
    return Overlap(to_second, first & within & seen, normalised, level)


def unwarp(maps: torch.Tensor, shared: Overlap) -> torch.Tensor:
    """Resample the second view's maps into the first.

    Args:
        maps: (B, C, S, S) of the second view.
        shared: the overlap as the first view sees it.

    Returns:
        (B, C, S, S); meaningless where ``shared.visible`` is false.
    """
    return F.grid_sample(
        maps, shared.grid, mode='bilinear', padding_mode='border', align_corners=False
    )


def unwarp_logits(logits: torch.Tensor, shared: Overlap) -> torch.Tensor:
    """Resample the second view's detector logits into the first, peaks kept.

    Where the second view is nearer, a pixel of the first covers several of its pixels, and a peak
    between the sampled ones would be lost. The logits are those of a distribution over pixels, so
    the probability of the covered pixels adds up: the mean of exp(z) over 2 x 2 pixels, again and
    again, and a blend of the two levels on either side of the covered area.

    Args:
        logits: (B, K, S, S) of the second view.
        shared: the overlap as the first view sees it.

    Returns:
        (B, K, S, S).
    """
    unwarped = torch.zeros_like(logits)
    for number in range(_LEVELS):
        if number:
            top = logits.detach().amax((2, 3), keepdim=True)
            pooled = F.avg_pool2d((logits - top).clamp(min=-60.0).exp(), 2)
            logits = pooled.log() + top
        share = (1.0 - (shared.level - number).abs()).clamp(min=0.0)
        unwarped = unwarped + share * unwarp(logits, shared)
    return unwarped


def lookup(mask: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Values of a (B, 1, S, S) mask at (B, K, M) flat pixel indices."""
    b, k, _ = index.shape
    return mask.reshape(b, 1, -1).expand(b, k, -1).gather(2, index)


def lookup_at(mask: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Values of a (B, 1, S, S) mask at the pixels nearest to (B, N, 2) points; false outside."""
    side = mask.shape[-1]
    nearest = points.round()
    within = ((nearest >= 0) & (nearest <= side - 1)).all(-1)
    x, y = nearest.clamp(0, side - 1).long().unbind(-1)
    return mask.reshape(len(mask), -1).gather(1, y * side + x) & within

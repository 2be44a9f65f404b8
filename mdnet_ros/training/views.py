"""Pairs of views of one photograph with the exact pixel-to-pixel map between them.

Nothing waits for a GPU: shapes are static, and all random numbers come from one generator on the
device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mdnet_ros.training.images import ImagePool
from mdnet_ros.training.warps import (
    WarpRanges,
    apply_homography,
    area_scale,
    draw_motion,
    pixel_grid,
    place_views,
)

#: Pyramid levels are chosen finer by this than the area says. Without it trilinear filtering blurs
#: twice as much as the mean over the area does.
_SHARPER = 0.5
#: Crops that a CPU renders at once: each needs 10 MB at 256 x 256 pixels until it is done.
_AT_ONCE = 8


@dataclass(frozen=True)
class ViewPair:
    """A batch of B pairs of S x S views.

    Attributes:
        images: (2B, 1, S, S) float32 in [0, 1]: B first views, then B second views.
        valid: (2B, 1, S, S) bool, the pixel shows the photograph, not its padding.
        to_second: (B, 3, 3) float32, pixels of the first view to pixels of the second.
    """

    images: torch.Tensor
    valid: torch.Tensor
    to_second: torch.Tensor


def _bilinear(
    pixels: torch.Tensor, start: torch.Tensor, size: torch.Tensor, x: torch.Tensor,
    y: torch.Tensor,
) -> torch.Tensor:
    """Interpolate in images that lie in a flat tensor, repeating their edge outside.

    Args:
        pixels: (T,) uint8.
        start: (B, P) int64, where the image that each point is looked up in begins.
        size: (B, P, 2) int64, its width and height.
        x, y: (B, P) pixels of that image.

    Returns:
        (B, P) float32, 0 to 255.
    """
    width, height = size[..., 0], size[..., 1]
    x = torch.minimum(x.clamp(min=0.0), (width - 1).float())
    y = torch.minimum(y.clamp(min=0.0), (height - 1).float())
    left, top = x.long(), y.long()
    right = torch.minimum(left + 1, width - 1) - left
    above = start + top * width + left
    below = above + (torch.minimum(top + 1, height - 1) - top) * width
    values = [
        pixels.index_select(0, index.reshape(-1)).reshape(x.shape).float()
        for index in (above, above + right, below, below + right)
    ]
    across, down = x - left, y - top
    return torch.lerp(
        torch.lerp(values[0], values[1], across), torch.lerp(values[2], values[3], across), down
    )


def render_views(
    pool: ImagePool, index: torch.Tensor, to_photo: torch.Tensor, side: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Resample photographs into crops, anti-aliased; on a CPU a few at once, to save memory.

    Each crop pixel is interpolated in the two pyramid levels on either side of the area that it
    covers in the photograph (trilinear filtering, Williams 1983).

    Args:
        pool: the photographs.
        index: (B,) int64, which of them.
        to_photo: (B, 3, 3) crop pixels to photo pixels.
        side: S of the crops.

    Returns:
        (B, 1, S, S) float32 in [0, 1], and (B, 1, S, S) bool, inside the photograph.
    """
    count = _AT_ONCE if to_photo.device.type == 'cpu' else max(1, len(index))
    parts = [
        _render(pool, *part, side)
        for part in zip(index.split(count), to_photo.split(count), strict=True)
    ]
    return torch.cat([crops for crops, _ in parts]), torch.cat([inside for _, inside in parts])


def _render(
    pool: ImagePool, index: torch.Tensor, to_photo: torch.Tensor, side: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Resample photographs all at once, as :func:`render_views`."""
    b = len(index)
    grid = pixel_grid(side, to_photo.device).reshape(1, -1, 2).expand(b, -1, -1)
    points = apply_homography(to_photo, grid)
    sizes, offsets = pool.sizes[index], pool.offsets[index]
    limit = (sizes[:, None, 0] - 1).float()
    inside = ((points >= 0) & (points <= limit)).all(-1)
    levels = sizes.shape[1]
    level = (0.5 * area_scale(to_photo, grid).log2() - _SHARPER).clamp(0.0, levels - 1.001)
    lower = level.long()
    crops = []
    for number in (lower, lower + 1):
        size = sizes.gather(1, number[..., None].expand(-1, -1, 2))
        shrink = torch.exp2(-number.float())
        x, y = ((points[..., i] + 0.5) * shrink - 0.5 for i in (0, 1))
        crops.append(_bilinear(pool.pixels, offsets.gather(1, number), size, x, y))
    crop = torch.lerp(crops[0], crops[1], level - lower)
    return crop.reshape(b, 1, side, side) / 255.0, inside.reshape(b, 1, side, side)


def render_pairs(
    pool: ImagePool, index: torch.Tensor, side: int, to_photo: tuple[torch.Tensor, torch.Tensor]
) -> ViewPair:
    """Render two views of each photograph.

    Args:
        pool: the photographs.
        index: (B,) int64, which of them.
        side: S of the views, pixels.
        to_photo: two (B, 3, 3), pixels of each view to photo pixels.
    """
    first, second = to_photo
    views = [render_views(pool, index, h, side) for h in to_photo]
    return ViewPair(
        torch.cat([views[0][0], views[1][0]]),
        torch.cat([views[0][1], views[1][1]]),
        torch.linalg.solve_ex(second.double(), first.double())[0].float(),
    )


def make_pairs(
    pool: ImagePool,
    index: torch.Tensor,
    side: int,
    ranges: WarpRanges,
    difficulty: float,
    generator: torch.Generator,
) -> ViewPair:
    """Draw and render two views of each photograph.

    Args:
        pool: the photographs.
        index: (B,) int64, which of them; on the pool's device, like the generator.
        side: S of the views, pixels.
        ranges: how far the views differ at full difficulty.
        difficulty: in [0, 1].
        generator: decides all.
    """
    sizes = pool.sizes[index, 0]
    motion = draw_motion(sizes, side, ranges, difficulty, generator)
    return render_pairs(
        pool, index, side, place_views(sizes, side, ranges.minimum_scale, motion, generator)
    )

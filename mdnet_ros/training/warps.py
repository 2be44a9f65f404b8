"""Pairs of views of one photograph with the exact pixel-to-pixel map between them.

Frames: ``photo`` pixels and ``crop`` pixels, both x right, y down, integers at pixel centres.
Homographies are 3x3, acting on (x, y, 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class WarpRanges:
    """How far two views of a pair may differ, at full difficulty.

    Attributes:
        rotation: between the views, degrees to either side.
        wide_rotation: share of the pairs rotated by up to 180 degrees instead.
        small_motion: share of the pairs that differ by a tenth of these ranges instead, as
            consecutive frames of a camera do.
        scale: largest ratio of the views' scales.
        tilt: largest ratio of the stretch along one axis to that across it, as a slanted view of a
            plane has (2: a plane seen at 60 degrees).
        perspective: largest shift of a crop's corner, as a share of its side.
        translation: largest shift between the views, as a share of the crop's side.
        minimum_scale: photo pixels per crop pixel; below 1 the photo is enlarged.
    """

    rotation: float = 45.0
    wide_rotation: float = 0.0
    small_motion: float = 0.3
    scale: float = 2.0
    tilt: float = 2.0
    perspective: float = 0.25
    translation: float = 0.2
    minimum_scale: float = 0.5


#: What is left of the ranges where a pair shows a small motion.
_SMALL = 0.1


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


def apply_homography(homography: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Map points by homographies.

    Args:
        homography: (B, 3, 3).
        points: (B, ..., 2) pixels.

    Returns:
        (B, ..., 2); points at or behind the horizon go far away, not to infinity.
    """
    shape = points.shape
    flat = points.reshape(shape[0], -1, 2)
    x, y = flat[..., 0], flat[..., 1]
    # Element by element: a batched product with 3x3 matrices is many times slower on the CPU.
    h = homography[:, :, :, None]
    depth = h[:, 2, 0] * x + h[:, 2, 1] * y + h[:, 2, 2]
    depth = torch.where(depth.abs() < 1e-6, torch.full_like(depth, 1e-6), depth)
    u = (h[:, 0, 0] * x + h[:, 0, 1] * y + h[:, 0, 2]) / depth
    v = (h[:, 1, 0] * x + h[:, 1, 1] * y + h[:, 1, 2]) / depth
    return torch.stack([u, v], dim=-1).reshape(shape)


def pixel_grid(side: int, device: torch.device) -> torch.Tensor:
    """(side, side, 2) x and y of every pixel."""
    steps = torch.arange(side, device=device, dtype=torch.float32)
    y, x = torch.meshgrid(steps, steps, indexing='ij')
    return torch.stack([x, y], dim=-1)


def _uniform(
    generator: torch.Generator, shape: tuple[int, ...], low: float, high: float
) -> torch.Tensor:
    return torch.rand(shape, generator=generator) * (high - low) + low


def _corner_homography(corners: torch.Tensor, side: int) -> torch.Tensor:
    """(B, 3, 3) taking the crop's corners to ``corners`` (B, 4, 2): a linear system of eight."""
    b = corners.shape[0]
    last = float(side - 1)
    source = torch.tensor([[0.0, 0.0], [last, 0.0], [last, last], [0.0, last]])
    x, y = source[:, 0].expand(b, 4), source[:, 1].expand(b, 4)
    u, v = corners[..., 0], corners[..., 1]
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    rows_u = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], -1)
    rows_v = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], -1)
    system = torch.cat([rows_u, rows_v], 1).double()
    solved = torch.linalg.solve(system, torch.cat([u, v], 1).double())
    return torch.cat([solved, torch.ones(b, 1, dtype=torch.float64)], 1).reshape(b, 3, 3).float()


def _rotation(angle: torch.Tensor) -> torch.Tensor:
    """(B, 2, 2) rotations by (B,) radians."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], -1).reshape(-1, 2, 2)


def _stretching(axis: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
    """(B, 2, 2) stretches along an axis (B,) radians, by a ratio to across it; area is kept."""
    turn = _rotation(axis)
    factors = torch.stack([ratio.sqrt(), ratio.rsqrt()], -1)
    return turn @ (factors[:, :, None] * turn.transpose(1, 2))


def sample_homographies(
    sizes: torch.Tensor,
    side: int,
    ranges: WarpRanges,
    difficulty: float,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw the two views of each photograph.

    Args:
        sizes: (B, 2) width and height of the photographs, pixels.
        side: S of the crops, pixels.
        ranges: at full difficulty.
        difficulty: in [0, 1]; scales all ranges (the curriculum).
        generator: on the CPU.

    Returns:
        Two (B, 3, 3) homographies, crop pixels of each view to photo pixels.
    """
    b = sizes.shape[0]
    sizes = sizes.float().cpu()
    largest = (sizes.min(dim=1).values / side).clamp(min=ranges.minimum_scale)
    span = (largest.log() - math.log(ranges.minimum_scale)).clamp(min=0.0)
    small = torch.zeros(b, dtype=torch.bool)
    # Not drawn where none is asked for: the validation pairs stay those of earlier runs.
    if ranges.small_motion:
        small = torch.rand(b, generator=generator) < ranges.small_motion
    reach = difficulty * torch.where(small, _SMALL, 1.0)
    ratio = _uniform(generator, (b,), -1.0, 1.0) * math.log(ranges.scale) * reach
    ratio = torch.minimum(torch.maximum(ratio, -span), span)
    base = torch.rand(b, generator=generator) * (span - ratio.abs())
    first_log = math.log(ranges.minimum_scale) + base + (-ratio).clamp(min=0.0)
    turn = _uniform(generator, (b,), -1.0, 1.0) * math.radians(ranges.rotation) * reach
    wide = (torch.rand(b, generator=generator) < ranges.wide_rotation * difficulty) & ~small
    turn = torch.where(wide, _uniform(generator, (b,), -math.pi, math.pi), turn)
    lean = _uniform(generator, (b,), -0.2, 0.2) * difficulty
    stretch = torch.exp(torch.rand(b, generator=generator) * math.log(ranges.tilt) * reach)
    axis = _uniform(generator, (b,), 0.0, math.pi)
    half = (side - 1) / 2.0
    square = torch.tensor([[-half, -half], [half, -half], [half, half], [-half, half]])
    centre_range = (sizes - 1 - side * first_log.exp()[:, None]).clamp(min=0.0)
    shares = torch.rand(b, 2, generator=generator) - 0.5
    centre = (sizes - 1) / 2 + shares * centre_range
    views = []
    slant = _stretching(axis, stretch)
    for log_scale, angle, slanted, moved in (
        (first_log, lean, None, 0.0),
        (first_log + ratio, lean + turn, slant, ranges.translation * reach[:, None]),
    ):
        scale = log_scale.exp()
        bend = ranges.perspective * reach[:, None, None] * side
        corners = square + _uniform(generator, (b, 4, 2), -0.5, 0.5) * bend
        turned = _rotation(angle) if slanted is None else slanted @ _rotation(angle)
        corners = corners @ turned.transpose(1, 2) * scale[:, None, None]
        shift = _uniform(generator, (b, 2), -1.0, 1.0) * moved * side * scale[:, None]
        views.append(_corner_homography(corners + (centre + shift)[:, None], side))
    return views[0], views[1]


def render_views(
    photos: torch.Tensor, halves: torch.Tensor, sizes: torch.Tensor, to_photo: torch.Tensor,
    side: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Resample photographs into crops, from the half-size copy where the crop shrinks them.

    Args:
        photos: (B, 1, H, W) uint8, each in the top left corner of its canvas.
        halves: (B, 1, H/2, W/2) uint8, the same shrunk two by two by area averaging.
        sizes: (B, 2) width and height of each photograph, pixels.
        to_photo: (B, 3, 3) crop pixels to photo pixels.
        side: S of the crops.

    Returns:
        (B, 1, S, S) float32 in [0, 1], and (B, 1, S, S) bool, inside the photograph.
    """
    device = photos.device
    grid = pixel_grid(side, device)[None].expand(len(photos), -1, -1, -1)
    points = apply_homography(to_photo.to(device), grid)
    limit = (sizes.to(device).float() - 1)[:, None, None, :]
    inside = ((points >= 0) & (points <= limit)).all(-1)[:, None]
    points = torch.minimum(points.clamp(min=0.0), limit)
    middle = side // 2
    step = points[:, middle, middle + 1] - points[:, middle, middle]
    shrinks = step.norm(dim=-1) > 1.3
    crops = torch.empty(len(photos), 1, side, side, device=device)
    for level, chosen in ((photos, ~shrinks), (halves, shrinks)):
        if not bool(chosen.any()):
            continue
        canvas = level[chosen]
        extent = canvas.new_tensor([photos.shape[3], photos.shape[2]], dtype=torch.float32)
        normalised = (points[chosen] + 0.5) * 2.0 / extent - 1.0
        crops[chosen] = F.grid_sample(
            canvas.float(), normalised, mode='bilinear', padding_mode='border',
            align_corners=False,
        )
    return crops / 255.0, inside


def make_pairs(
    photos: torch.Tensor,
    halves: torch.Tensor,
    sizes: torch.Tensor,
    side: int,
    ranges: WarpRanges,
    difficulty: float,
    generator: torch.Generator,
) -> ViewPair:
    """Two views of each photograph; arguments as in the functions above."""
    first, second = sample_homographies(sizes, side, ranges, difficulty, generator)
    views = [render_views(photos, halves, sizes, h, side) for h in (first, second)]
    to_second = torch.linalg.solve(second.double(), first.double()).float()
    return ViewPair(
        torch.cat([views[0][0], views[1][0]]),
        torch.cat([views[0][1], views[1][1]]),
        to_second.to(photos.device),
    )

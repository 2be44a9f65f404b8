"""Pairs of views of one photograph with the exact pixel-to-pixel map between them.

Frames: ``photo`` pixels and ``crop`` pixels, both x right, y down, integers at pixel centres.
Homographies are 3x3, acting on (x, y, 1). Nothing waits for a GPU: shapes are
static, and all random numbers come from one generator on the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from mdnet_ros.training.images import ImagePool


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
        minimum_scale: photo pixels per crop pixel, in every direction; below 1 the photograph is
            enlarged. Scale and tilt are drawn from what this and the photograph's size allow;
            perspective comes on top, and at most halves it in a corner.
    """

    rotation: float = 45.0
    wide_rotation: float = 0.0
    small_motion: float = 0.3
    scale: float = 3.0
    tilt: float = 3.0
    perspective: float = 0.25
    translation: float = 0.2
    minimum_scale: float = 1.0


#: Pyramid levels are chosen finer by this than the area says. Without it trilinear filtering blurs
#: twice as much as the mean over the area does.
_SHARPER = 0.5
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
    return torch.rand(shape, generator=generator, device=generator.device) * (high - low) + low


def _corner_homography(corners: torch.Tensor, side: int) -> torch.Tensor:
    """(B, 3, 3) taking the crop's corners to ``corners`` (B, 4, 2): a linear system of eight."""
    b = corners.shape[0]
    last = float(side - 1)
    source = corners.new_tensor([[0.0, 0.0], [last, 0.0], [last, last], [0.0, last]])
    x, y = source[:, 0].expand(b, 4), source[:, 1].expand(b, 4)
    u, v = corners[..., 0], corners[..., 1]
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    rows_u = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], -1)
    rows_v = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], -1)
    system = torch.cat([rows_u, rows_v], 1).double()
    solved, _ = torch.linalg.solve_ex(system, torch.cat([u, v], 1).double()[..., None])
    last_one = torch.ones_like(solved[:, :1])
    return torch.cat([solved, last_one], 1).reshape(b, 3, 3).float()


def inverse(homography: torch.Tensor) -> torch.Tensor:
    """(B, 3, 3) inverses, in double precision inside; never waits for a GPU."""
    return torch.linalg.inv_ex(homography.double())[0].float()


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

    The first view has s photo pixels per crop pixel; the second s·r, and s·r·√t along and s·r/√t
    across the axis of its tilt t. All of them lie between ``ranges.minimum_scale`` and what makes
    the view as large as the photograph's short side: first r, then t, then s are drawn from what
    this leaves, in logarithms.

    Args:
        sizes: (B, 2) width and height of the photographs, pixels.
        side: S of the crops, pixels.
        ranges: at full difficulty.
        difficulty: in [0, 1]; scales all ranges (the curriculum).
        generator: decides all; on the device of ``sizes``.

    Returns:
        Two (B, 3, 3) float32 homographies, crop pixels of each view to photo pixels.
    """
    b = sizes.shape[0]
    sizes = sizes.float()

    def draw(low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        return _uniform(generator, (b,), low, high)

    lowest = math.log(ranges.minimum_scale)
    span = ((sizes.amin(1) / side).log() - lowest).clamp(min=0.0)
    small = draw() < ranges.small_motion
    reach = difficulty * (1.0 - (1.0 - _SMALL) * small.float())
    ratio = draw(-1.0, 1.0) * torch.minimum(math.log(ranges.scale) * reach, span)
    farthest = 2.0 * (span - (-ratio).clamp(min=0.0))
    tilt = draw() * torch.minimum(math.log(ranges.tilt) * reach, farthest)
    low = (tilt / 2 - ratio).clamp(min=0.0)
    high = span - ratio.clamp(min=0.0)
    first_log = lowest + low + draw() * (high - low).clamp(min=0.0)
    second_log = first_log + ratio
    turn = draw(-1.0, 1.0) * math.radians(ranges.rotation) * reach
    wide = (draw() < ranges.wide_rotation * difficulty) & ~small
    turn = torch.where(wide, draw(-math.pi, math.pi), turn)
    lean = draw(-0.2, 0.2) * difficulty
    slant = _stretching(draw(0.0, math.pi), tilt.exp())
    half = (side - 1) / 2.0
    square = sizes.new_tensor([[-half, -half], [half, -half], [half, half], [-half, half]])
    widest = side * torch.maximum(first_log, second_log).exp()
    centre = (sizes - 1) / 2 + _uniform(generator, (b, 2), -0.5, 0.5) * (
        sizes - 1 - widest[:, None]
    ).clamp(min=0.0)
    bend = ranges.perspective * reach[:, None, None] * side
    views = []
    for log_scale, turned, moved in (
        (first_log, _rotation(lean), torch.zeros_like(reach)),
        (second_log, slant @ _rotation(lean + turn), ranges.translation * reach),
    ):
        scale = log_scale.exp()
        corners = square + _uniform(generator, (b, 4, 2), -0.5, 0.5) * bend
        corners = corners @ turned.transpose(1, 2) * scale[:, None, None]
        shift = _uniform(generator, (b, 2), -1.0, 1.0) * (moved * side * scale)[:, None]
        views.append(_corner_homography(corners + (centre + shift)[:, None], side))
    return views[0], views[1]


def area_scale(homography: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """How much a homography enlarges areas: the determinant of its Jacobian, det H / w³.

    Args:
        homography: (B, 3, 3).
        points: (B, ..., 2) pixels.

    Returns:
        (B, ...) absolute values; at least 1e-12.
    """
    shape = (-1,) + (1,) * (points.dim() - 2)
    h = homography
    depth = (
        h[:, 2, 0].reshape(shape) * points[..., 0] + h[:, 2, 1].reshape(shape) * points[..., 1]
        + h[:, 2, 2].reshape(shape)
    )
    determinant = (
        h[:, 0, 0] * (h[:, 1, 1] * h[:, 2, 2] - h[:, 1, 2] * h[:, 2, 1])
        - h[:, 0, 1] * (h[:, 1, 0] * h[:, 2, 2] - h[:, 1, 2] * h[:, 2, 0])
        + h[:, 0, 2] * (h[:, 1, 0] * h[:, 2, 1] - h[:, 1, 1] * h[:, 2, 0])
    ).reshape(shape)
    return (determinant / depth.abs().clamp(min=1e-6) ** 3).abs().clamp(min=1e-12)


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
    """Resample photographs into crops, anti-aliased.

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
    first, second = sample_homographies(
        pool.sizes[index, 0], side, ranges, difficulty, generator
    )
    views = [render_views(pool, index, h, side) for h in (first, second)]
    to_second = torch.linalg.solve_ex(second.double(), first.double())[0].float()
    return ViewPair(
        torch.cat([views[0][0], views[1][0]]),
        torch.cat([views[0][1], views[1][1]]),
        to_second,
    )

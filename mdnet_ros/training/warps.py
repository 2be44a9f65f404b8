"""How two views of a photograph are placed: homographies drawn from ranges.

Frames: ``photo`` pixels and ``crop`` pixels (those of a view), both x right, y down, integers at
pixel centres.
Homographies are 3x3, acting on (x, y, 1). Nothing waits for a GPU: shapes are
static, and all random numbers come from one generator on the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch


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


#: What is left of the ranges where a pair shows a small motion.
_SMALL = 0.1


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
    generator: torch.Generator, shape: tuple[int, ...], low: float, high: float,
    device: torch.device,
) -> torch.Tensor:
    return torch.rand(shape, generator=generator, device=device) * (high - low) + low


@lru_cache(maxsize=4)
def _unit_square(device: torch.device) -> torch.Tensor:
    """(4, 2) corners of a square of side 1 around the origin, clockwise from the top left."""
    return torch.tensor([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]], device=device)


def _corner_homography(corners: torch.Tensor, side: int) -> torch.Tensor:
    """(B, 3, 3) taking the crop's corners to ``corners`` (B, 4, 2): a linear system of eight."""
    b = corners.shape[0]
    last = float(side - 1)
    source = (_unit_square(corners.device) + 0.5) * last
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


@dataclass(frozen=True)
class Motion:
    """How the second view of each of B pairs differs from the first; all (B,) float32.

    Attributes:
        ratio: logarithm of its photo pixels per crop pixel over the first view's.
        tilt: logarithm of its stretch along one axis over that across it; not negative.
        turn: its rotation against the first view, radians.
        lean: rotation of both views against the photograph, radians.
        bend: largest shift of the corners of both views, as a share of their side.
        shift: largest shift of its centre along each axis, as a share of its side.
    """

    ratio: torch.Tensor
    tilt: torch.Tensor
    turn: torch.Tensor
    lean: torch.Tensor
    bend: torch.Tensor
    shift: torch.Tensor


def span_of(sizes: torch.Tensor, side: int, minimum_scale: float) -> torch.Tensor:
    """(B,) logarithm of the largest ratio of scales that photographs allow.

    Args:
        sizes: (B, 2) width and height of the photographs, pixels.
        side: side of the crops, pixels.
        minimum_scale: photo pixels per crop pixel of the nearest view.
    """
    largest = (sizes.float().amin(1) / side).log()
    return (largest - math.log(minimum_scale)).clamp(min=0.0)


def draw_motion(
    sizes: torch.Tensor,
    side: int,
    ranges: WarpRanges,
    difficulty: float,
    generator: torch.Generator,
) -> Motion:
    """Draw how the views of each pair differ, from what the ranges and the photographs allow.

    Args:
        sizes: (B, 2) width and height of the photographs, pixels.
        side: S of the crops, pixels.
        ranges: at full difficulty.
        difficulty: in [0, 1]; scales all ranges (the curriculum).
        generator: on the device of ``sizes``.
    """
    b = sizes.shape[0]

    def draw(low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        return _uniform(generator, (b,), low, high, sizes.device)

    span = span_of(sizes, side, ranges.minimum_scale)
    small = draw() < ranges.small_motion
    reach = difficulty * (1.0 - (1.0 - _SMALL) * small.float())
    ratio = draw(-1.0, 1.0) * torch.minimum(math.log(ranges.scale) * reach, span)
    farthest = 2.0 * (span - (-ratio).clamp(min=0.0))
    tilt = draw() * torch.minimum(math.log(ranges.tilt) * reach, farthest)
    turn = draw(-1.0, 1.0) * math.radians(ranges.rotation) * reach
    wide = (draw() < ranges.wide_rotation * difficulty) & ~small
    turn = torch.where(wide, draw(-math.pi, math.pi), turn)
    return Motion(
        ratio, tilt, turn, draw(-0.2, 0.2) * difficulty, ranges.perspective * reach,
        ranges.translation * reach,
    )


def place_views(
    sizes: torch.Tensor, side: int, minimum_scale: float, motion: Motion,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Place both views of each pair at random where the photograph has room.

    The first view has s photo pixels per crop pixel; the second s·r, and s·r·√t along and s·r/√t
    across the axis of its tilt t. The scale s is drawn so that all of these lie between
    ``minimum_scale`` and what makes the view as large as the photograph's short side; with r and t
    beyond what the photograph allows, ``minimum_scale`` is kept and the view leaves the photograph.

    Args:
        sizes: (B, 2) width and height of the photographs, pixels.
        side: S of the crops, pixels.
        minimum_scale: photo pixels per crop pixel in every direction, but for perspective.
        motion: how the views differ.
        generator: on the device of ``sizes``.

    Returns:
        Two (B, 3, 3) float32 homographies, crop pixels of each view to photo pixels.
    """
    b = sizes.shape[0]

    def draw(shape: tuple[int, ...], low: float, high: float) -> torch.Tensor:
        return _uniform(generator, shape, low, high, sizes.device)

    sizes = sizes.float()
    low = (motion.tilt / 2 - motion.ratio).clamp(min=0.0)
    high = span_of(sizes, side, minimum_scale) - motion.ratio.clamp(min=0.0)
    room = (high - low).clamp(min=0.0)
    first_log = math.log(minimum_scale) + low + draw((b,), 0.0, 1.0) * room
    second_log = first_log + motion.ratio
    slant = _stretching(draw((b,), 0.0, math.pi), motion.tilt.exp())
    square = _unit_square(sizes.device) * (side - 1)
    widest = side * torch.maximum(first_log, second_log).exp()
    free = (sizes - 1 - widest[:, None]).clamp(min=0.0)
    centre = (sizes - 1) / 2 + draw((b, 2), -0.5, 0.5) * free
    views = []
    for log_scale, turned, shift in (
        (first_log, _rotation(motion.lean), torch.zeros_like(motion.shift)),
        (second_log, slant @ _rotation(motion.lean + motion.turn), motion.shift),
    ):
        scale = log_scale.exp()
        bend = draw((b, 4, 2), -0.5, 0.5) * motion.bend[:, None, None] * side
        corners = (square + bend) @ turned.transpose(1, 2) * scale[:, None, None]
        moved = draw((b, 2), -1.0, 1.0) * (shift * side * scale)[:, None]
        views.append(_corner_homography(corners + (centre + moved)[:, None], side))
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

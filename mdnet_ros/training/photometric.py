"""Photometric changes: what light, lens, sensor and codec do to a view.

Whole batches on the device, with static shapes: nothing waits for a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class PhotometricRanges:
    """How strong the changes are at full difficulty, and how often each happens.

    Attributes:
        contrast: largest factor (and its inverse).
        brightness: largest shift; the image spans [0, 1].
        gamma: largest exponent (and its inverse).
        shading: strength of smooth light and shadow over the image, in [0, 1].
        blur: largest Gaussian sigma, pixels.
        motion: longest motion blur, pixels.
        noise: largest standard deviation; the image spans [0, 1].
        jpeg: coarsest quantisation as a factor on the standard table (8: quality near 6).
        probability: probability of each single change but contrast and brightness, which always
            happen.
    """

    contrast: float = 1.5
    brightness: float = 0.15
    gamma: float = 1.6
    shading: float = 0.6
    blur: float = 2.6
    motion: float = 9.0
    noise: float = 0.03
    jpeg: float = 5.0
    probability: float = 0.25


_KERNEL = 11

# The luminance table of ITU-T T.81, Annex K.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


@lru_cache(maxsize=4)
def _dct_kernels(device: torch.device) -> torch.Tensor:
    """(64, 1, 8, 8): the orthonormal 8x8 DCT as a convolution."""
    n = torch.arange(8, dtype=torch.float32)
    matrix = torch.cos(math.pi * (2 * n[None] + 1) * n[:, None] / 16) * 0.5
    matrix[0] /= math.sqrt(2.0)
    return torch.einsum('ux,vy->uvxy', matrix, matrix).reshape(64, 1, 8, 8).to(device)


@lru_cache(maxsize=4)
def _luminance(device: torch.device) -> torch.Tensor:
    """(1, 64, 1, 1): the standard table for images in [0, 1]."""
    table = torch.tensor(_LUMINANCE, device=device, dtype=torch.float32)
    return (table / 255.0).reshape(1, 64, 1, 1)


def quantise_blocks(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Do to gray what JPEG does: round the 8x8 DCT to multiples of the table times a factor.

    Args:
        images: (B, 1, S, S) in [0, 1], S a multiple of 8.
        factor: (B,) on the standard luminance table.
    """
    kernels = _dct_kernels(images.device)
    coefficients = F.conv2d(images, kernels, stride=8)
    step = _luminance(images.device) * factor.reshape(-1, 1, 1, 1)
    return F.conv_transpose2d((coefficients / step).round() * step, kernels, stride=8)


def _blur_kernels(
    sigma: torch.Tensor, length: torch.Tensor, angle: torch.Tensor
) -> torch.Tensor:
    """(B, 1, 11, 11): a line of a length (motion) smeared by a Gaussian (focus)."""
    r = _KERNEL // 2
    steps = torch.arange(-r, r + 1, device=sigma.device, dtype=torch.float32)
    y, x = torch.meshgrid(steps, steps, indexing='ij')
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    along, across = x * cos + y * sin, y * cos - x * sin
    beyond = (along.abs() - length[:, None, None] / 2).clamp(min=0.0)
    spread = 2 * sigma[:, None, None] ** 2
    kernel = torch.exp(-(beyond**2 + across**2) / spread)
    return (kernel / kernel.sum((1, 2), keepdim=True))[:, None]


def change_light(
    images: torch.Tensor, ranges: PhotometricRanges, difficulty: float, generator: torch.Generator
) -> torch.Tensor:
    """Draw changes for each image on its own, and apply them.

    Args:
        images: (B, 1, S, S) float32 in [0, 1], S a multiple of 8.
        ranges: at full difficulty.
        difficulty: in [0, 1].
        generator: decides all; on the device of the images.

    Returns:
        (B, 1, S, S) float32 in [0, 1], clipped (saturation) and rounded to 8 bits.
    """
    b, _, side, _ = images.shape
    device = images.device
    keep = 1.0 - ranges.probability

    def draw(low: float, high: float) -> torch.Tensor:
        return torch.rand(b, generator=generator, device=device) * (high - low) + low

    def sometimes(strength: torch.Tensor) -> torch.Tensor:
        return strength * (draw(0.0, 1.0) > keep)

    def column(values: torch.Tensor) -> torch.Tensor:
        return values.reshape(b, 1, 1, 1)

    def chosen(share: float) -> torch.Tensor:
        """A share of the images, always as many: the shapes stay the same from step to step."""
        return draw(0.0, 1.0).argsort()[: max(1, round(share * b))]

    # shading: a smooth random field, sometimes with a hard edge as shadows have
    field = torch.randn(b, 1, 4, 4, generator=generator, device=device)
    field = F.interpolate(field, size=(side, side), mode='bicubic', align_corners=False)
    hard = draw(0.0, 1.0) < 0.3
    field = torch.where(column(hard), torch.tanh(field * 12.0), torch.tanh(field))
    strength = sometimes(draw(0.0, ranges.shading * difficulty))
    x = images * torch.exp(column(strength) * field)
    # sensor response
    exponent = torch.exp(sometimes(draw(-1.0, 1.0)) * math.log(ranges.gamma) * difficulty)
    x = x.clamp(min=1e-4) ** column(exponent)
    gain = torch.exp(draw(-1.0, 1.0) * math.log(ranges.contrast) * difficulty)
    mean = x.mean((2, 3), keepdim=True)
    x = (x - mean) * column(gain) + mean
    x = x + column(draw(-ranges.brightness, ranges.brightness) * difficulty)
    # lens and motion: focus, movement or both
    if ranges.probability > 0:
        which = chosen(1.0 - keep**2)
        kind = draw(0.0, 2.0 - ranges.probability)[which]
        sigma = draw(0.3, max(0.3, ranges.blur * difficulty))[which] * (kind < 1.0)
        length = draw(0.0, ranges.motion * difficulty)[which] * (kind > 1.0 - ranges.probability)
        kernels = _blur_kernels(sigma.clamp(min=0.3), length, draw(0.0, math.pi)[which])
        r = _KERNEL // 2
        padded = F.pad(x[which].transpose(0, 1), (r, r, r, r), mode='replicate')
        smooth = F.conv2d(padded, kernels, groups=len(which))
        x = x.index_copy(0, which, smooth.transpose(0, 1))
    noise = torch.randn(x.shape, generator=generator, device=device)
    x = (x + noise * column(sometimes(draw(0.0, ranges.noise * difficulty)))).clamp(0.0, 1.0)
    if ranges.probability > 0:
        which = chosen(ranges.probability)
        factor = draw(0.3, max(0.3, ranges.jpeg * difficulty))[which]
        x = x.index_copy(0, which, quantise_blocks(x[which], factor))
    return (x.clamp(0.0, 1.0) * 255.0).round() / 255.0

"""Where an image has contrast above the noise of its sensor.

A cell of 4 x 4 pixels has texture where contrast > 3 x noise. Without this test a network finds
keypoints in any image, also in a black one or on a blank wall.

- Contrast L: root mean square over 3 x 3 cells of the cells' means, less their mean over 5 x 5
  cells, which removes shading; times 4, so that white noise of standard deviation s has L = s.
- Noise S1: standard deviation of the noise around the cell, estimated by the mean absolute value
  of the difference of two Laplacians (Immerkaer, CVIU 1996, eq. 3), which is blind to shading and
  to straight edges.
- Noise S2: the same at half the resolution, times 2, for noise that demosaicing or compression
  spread over neighbouring pixels. L must be above 3.3 x S2, too.

Noise of independent pixels has L / S1 = 1, and in practice never 3; keypoints of ordinary images
have 4 to 200. S1 and S2 are clamped to the range that real sensors have, because fine texture looks
like noise to them. Where S1 is hardly above what rounding to gray levels leaves, compression may
have removed the fine noise and left the coarse noise: there L must be above what compression
leaves.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

#: Side of a cell, pixels.
_CELL = 4
#: Contrast-to-noise thresholds for white and for correlated noise.
_WHITE, _SHARED = 3.0, 3.3
#: Range of the standard deviations that sensors have, gray levels: rounding alone gives the least;
#: above the greatest it is texture.
_LEAST, _GREATEST_WHITE, _GREATEST_SHARED = 0.5, 8.0, 4.0
#: Where S1 is below the first number, L must be above the second, gray levels.
_SMOOTHED, _LEFT_BY_COMPRESSION = 0.4, 6.0
#: Standard deviation of the noise for each unit of the mean absolute value of Immerkaer's operator.
_IMMERKAER = (torch.pi / 2) ** 0.5 / 6


def find_texture(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Find where images have contrast above their noise.

    Args:
        images: (B, 1, H, W) uint8.
        size: (H, W), at least 16 each: plain numbers, so that the work can be exported.

    Returns:
        (B, 1, H, W) bool on the same device.
    """
    height, width = size
    rows, columns = height // _CELL * _CELL, width // _CELL * _CELL
    fine = images[..., :rows, :columns].float()
    half = _halved(fine)
    cells = _halved(half)
    # Odd (anti-symmetric) reflection padding: shading continues beyond the edge of the image.
    beyond = 2.0 * F.pad(cells, (2,) * 4, mode='replicate') - F.pad(cells, (2,) * 4, mode='reflect')
    band = cells - _mean(beyond, 5)
    contrast = _box(band * band, 3).sqrt() * _CELL
    white = _noise(fine, _CELL)
    shared = torch.maximum(white, 2.0 * _noise(half, _CELL // 2))
    least = torch.maximum(
        _WHITE * white.clamp(_LEAST, _GREATEST_WHITE),
        _SHARED * shared.clamp(_LEAST, _GREATEST_SHARED),
    )
    least = torch.where(white < _SMOOTHED, least.clamp(min=_LEFT_BY_COMPRESSION), least)
    found = (contrast > least).float()
    found = F.interpolate(found, scale_factor=_CELL, mode='nearest')
    padding = (0, width - columns, 0, height - rows)
    return F.pad(found, padding, mode='replicate') > 0.5 if any(padding) else found > 0.5


def _halved(maps: torch.Tensor) -> torch.Tensor:
    """Return the 2 x 2 average pooling of maps."""
    if maps.device.type == 'cuda':
        return F.avg_pool2d(maps, 2)
    pairs = maps[..., ::2, :] + maps[..., 1::2, :]
    return (pairs[..., ::2] + pairs[..., 1::2]) * 0.25


def _noise(images: torch.Tensor, cell: int) -> torch.Tensor:
    """Return the standard deviation of the noise around each cell, (B, 1, rows, columns) of cells.

    Args:
        images: (B, 1, H, W) float32.
        cell: side of a cell, pixels of these images. One row of each cell is used.
    """
    padded = F.pad(images, (1, 1, 1, 1), mode='replicate')
    above, row, below = (padded[..., 1 + i : padded.shape[-2] - 1 : cell, :] for i in range(-1, 2))
    rows = images.shape[-2] // cell
    down = above[..., :rows, :] + below[..., :rows, :] - 2.0 * row[..., :rows, :]
    response = (down[..., :-2] + down[..., 2:] - 2.0 * down[..., 1:-1]).abs()
    while response.shape[-1] > images.shape[-1] // cell:
        response = (response[..., ::2] + response[..., 1::2]) * 0.5
    return _box(response, 5) * _IMMERKAER


def _box(maps: torch.Tensor, side: int) -> torch.Tensor:
    """Return the mean over a window of an odd side length around each value; edges are repeated."""
    return _mean(F.pad(maps, (side // 2,) * 4, mode='replicate'), side)


def _mean(maps: torch.Tensor, side: int) -> torch.Tensor:
    """Return the mean over every window inside the maps: (..., H - side + 1, W - side + 1).

    Sums of shifted maps are several times faster here than ``avg_pool2d`` on the CPU; on a GPU
    each of them is a kernel more.
    """
    if maps.device.type == 'cuda':
        return F.avg_pool2d(maps, side, 1)
    for axis in (-2, -1):
        count = maps.shape[axis] - side + 1
        total = maps.narrow(axis, 0, count)
        for i in range(1, side):
            total = total + maps.narrow(axis, i, count)
        maps = total
    return maps * (1.0 / side**2)

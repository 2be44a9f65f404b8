"""Keypoints from dense maps: NMS, border, top-k, sub-pixel refinement, descriptor sampling.

Shapes depend on the settings and on the size and number of the images, never on their content, so
that everything can be captured as one CUDA graph or exported with static shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from mdnet_ros.errors import SettingError
from mdnet_ros.features.network import NetworkOutput
from mdnet_ros.features.types import PaddedFeatures

#: Logit of a pixel that must not be detected.
_EXCLUDED = -1e4
#: Above the resolution of float32 for logits below 32, far below that of a trained score.
_TIE_STEP = 4e-6
#: In a larger window the ramp that breaks ties would repeat.
MAX_NMS_RADIUS = 7
#: Sub-pixel refinement uses a window of (2·r + 1)² heatmap pixels.
_REFINE_RADIUS = 3
#: A smaller border acts as this: the window of the sub-pixel refinement must lie in the image.
MIN_BORDER = _REFINE_RADIUS


@dataclass(frozen=True)
class DetectionSettings:
    """Settings of the keypoint detection.

    Attributes:
        max_keypoints: the most keypoints of one image, at least 1, shared by the sets as evenly
            as possible.
        score_threshold: keypoints scoring less are not valid; in [0, 1].
        nms_radius: before sub-pixel refinement, keypoints of a set are more than this apart
            (Chebyshev distance), pixels; in [0, ``MAX_NMS_RADIUS``].
        border: before sub-pixel refinement, keypoints closer to the image's edge than this are
            left out, pixels; at least 0, and less than ``MIN_BORDER`` acts as ``MIN_BORDER``.

    Raises:
        SettingError: if a setting is out of its range.
    """

    max_keypoints: int = 2048
    score_threshold: float = 0.0
    nms_radius: int = 2
    border: int = 8

    def __post_init__(self) -> None:
        if self.max_keypoints < 1:
            raise SettingError(f'max_keypoints: expected at least 1, got {self.max_keypoints}')
        if not 0.0 <= self.score_threshold <= 1.0:
            raise SettingError(f'score_threshold: expected 0 to 1, got {self.score_threshold}')
        if not 0 <= self.nms_radius <= MAX_NMS_RADIUS:
            raise SettingError(f'nms_radius: expected 0 to {MAX_NMS_RADIUS}, got {self.nms_radius}')
        if self.border < 0:
            raise SettingError(f'border: expected at least 0, got {self.border}')


def local_maxima(logits: torch.Tensor, radius: int) -> torch.Tensor:
    """Return where a pixel is the maximum of its (2·radius + 1)² window.

    Of equal maxima in a window only one counts, so that no two are within the radius of each
    other: at half precision many neighbours are equal.

    Args:
        logits: (B, K, H, W).
        radius: radius of the window, pixels.

    Returns:
        (B, K, H, W) bool.
    """
    h, w = logits.shape[-2:]
    if logits.device.type != 'cpu' or torch.jit.is_tracing():
        z = logits + _ramp(h, w, logits.device, logits.dtype)
        return z == (_pool_max if z.is_cuda else slide_max)(z, radius)
    maps = (logits.detach() + _ramp_on_cpu(h, w)).numpy()
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    peaks = np.empty(maps.shape, bool)
    for i in np.ndindex(maps.shape[:2]):  # OpenCV's dilation ignores what is outside
        np.equal(maps[i], cv2.dilate(maps[i], kernel), out=peaks[i])
    return torch.from_numpy(peaks)


def _ramp(height: int, width: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return (H, W) values, negligible but different for all pixels of 16 x 16: they break ties."""
    steps = torch.arange(16, device=device, dtype=dtype) * _TIE_STEP
    tile = steps[:, None] * 16 + steps[None, :]
    return tile.repeat(-(-height // 16), -(-width // 16))[:height, :width]


@lru_cache(maxsize=4)
def _ramp_on_cpu(height: int, width: int) -> torch.Tensor:
    """Return :func:`_ramp` in float32 from a cache: images have few different sizes."""
    return _ramp(height, width, torch.device('cpu'), torch.float32).contiguous()


def _pool_max(maps: torch.Tensor, radius: int) -> torch.Tensor:
    """Return what :func:`slide_max` does, in two kernels: on a GPU their number is what counts."""
    rows = F.max_pool2d(maps, (1, 2 * radius + 1), 1, (0, radius))
    return F.max_pool2d(rows, (2 * radius + 1, 1), 1, (radius, 0))


def slide_max(maps: torch.Tensor, radius: int) -> torch.Tensor:
    """Return the maximum of the (2·radius + 1)² window around each pixel of (B, K, H, W) maps."""
    return _slide_max(_slide_max(maps, radius, 2), radius, 3)


def _slide_max(maps: torch.Tensor, radius: int, axis: int) -> torch.Tensor:
    """Return the maximum of a window along one axis.

    The window is doubled until it is long enough, which takes log2 of its length element-wise
    maxima. On the CPU that is several times faster than ``max_pool2d``, which does not vectorise
    over planar maps.
    """
    length = 2 * radius + 1
    pad = [0, 0, radius, radius] if axis == 2 else [radius, radius, 0, 0]
    x = F.pad(maps, pad, value=-torch.inf)
    size, done = maps.shape[axis], 1
    while done < length:
        step = min(done, length - done)
        keep = x.shape[axis] - step
        x = torch.maximum(x.narrow(axis, 0, keep), x.narrow(axis, step, keep))
        done += step
    return x.narrow(axis, 0, size)


def window_at(maps: torch.Tensor, index: torch.Tensor, radius: int) -> torch.Tensor:
    """Return the (2·radius + 1)² values around pixels, row by row.

    Args:
        maps: (B, K, H, W).
        index: (B, K, M) int64, flat pixel index y·W + x; clamped so that the window is inside.
        radius: radius of the window, pixels.

    Returns:
        (B, K, M, (2·radius + 1)²).
    """
    b, k, h, w = maps.shape
    x = (index % w).clamp(radius, w - 1 - radius)
    y = (index // w).clamp(radius, h - 1 - radius)
    steps = torch.arange(-radius, radius + 1, device=maps.device)
    offsets = (steps[:, None] * w + steps[None, :]).reshape(-1)
    flat = (y * w + x)[..., None] + offsets
    values = maps.reshape(b, k, -1).gather(2, flat.reshape(b, k, -1))
    return values.reshape(*index.shape, -1)


def refine(logits: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return the sub-pixel position of heatmap peaks, the soft arg-max of the window's logits.

    The soft arg-max makes the position differentiable, so that training can improve it (as in
    ALIKE, Zhao et al. 2022).

    Args:
        logits: (B, K, H, W).
        index: (B, K, M) int64, flat pixel index of the peaks.

    Returns:
        (B, K, M, 2) x and y in pixels.
    """
    r, w = _REFINE_RADIUS, logits.shape[-1]
    weight = window_at(logits, index, r).float().softmax(dim=-1)
    steps = torch.arange(-r, r + 1, device=logits.device, dtype=torch.float32)
    offsets = torch.stack([steps.repeat(2 * r + 1), steps.repeat_interleave(2 * r + 1)], 1)
    return torch.stack([index % w, index // w], dim=-1) + weight @ offsets


def sample_descriptors(
    output: NetworkOutput, keypoints: torch.Tensor, size: tuple[int, int]
) -> torch.Tensor:
    """Return unit-norm descriptors at keypoints: bilinear sampling, then the network's projection.

    Args:
        output: the network's output for B images.
        keypoints: (B, N, 2) x and y in pixels of the images.
        size: (H, W) of the images.

    Returns:
        (B, N, D) float32.
    """
    b, c, rows, cols = output.descriptors.shape
    x, y = keypoints.float().unbind(-1)
    # In cells of the map, by their centres; outside the outermost centres the map is constant.
    x = ((x + 0.5) * (cols / size[1]) - 0.5).clamp(0, cols - 1)
    y = ((y + 0.5) * (rows / size[0]) - 0.5).clamp(0, rows - 1)
    left, top = x.floor().clamp(max=cols - 2), y.floor().clamp(max=rows - 2)
    image = torch.arange(b, device=x.device)[:, None] * (rows * cols)
    corner = (top * cols + left).long() + image
    # The values of a cell are adjacent in memory: several times faster than grid_sample.
    cells = output.descriptors.permute(0, 2, 3, 1).reshape(-1, c)
    index = torch.stack([corner, corner + 1, corner + cols, corner + cols + 1])
    value = cells.index_select(0, index.reshape(-1)).reshape(4, b, -1, c).float()
    right, down = (x - left)[..., None], (y - top)[..., None]
    above = torch.lerp(value[0], value[1], right)
    below = torch.lerp(value[2], value[3], right)
    sampled = torch.lerp(above, below, down)
    projected = F.linear(sampled, output.weight.float(), output.bias.float())
    return F.normalize(projected, dim=-1)


def _strongest(
    logits: torch.Tensor, allowed: torch.Tensor, radius: int, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the greatest allowed local maxima in descending order, and their positions.

    Args:
        logits: (B, K, H, W).
        allowed: (B or 1, 1, H, W) bool.
        radius: radius of the window of a local maximum, pixels.
        count: M, number of maxima, at most H·W.

    Returns:
        (B, K, M) logits, ``_EXCLUDED`` where there are fewer; (B, K, M) int64 flat indices.
    """
    peaks = local_maxima(logits, radius) & allowed
    if logits.device.type != 'cpu' or torch.jit.is_tracing():
        return logits.masked_fill(~peaks, _EXCLUDED).flatten(2).topk(count, dim=-1)
    # On the CPU sorting a few thousand candidates is cheap, passing over all pixels is not.
    b, k = logits.shape[:2]
    best = torch.full((b, k, count), _EXCLUDED)
    index = torch.zeros((b, k, count), dtype=torch.int64)
    for i in np.ndindex(b, k):
        candidates = torch.from_numpy(np.flatnonzero(peaks[i].numpy()))
        values, order = logits[i].view(-1)[candidates].topk(min(count, len(candidates)))
        best[i][: len(order)] = values
        index[i][: len(order)] = candidates[order]
    return best, index


def limit_keypoints(valid: torch.Tensor, max_keypoints: int) -> torch.Tensor:
    """Leave no more valid slots than the most keypoints of one image.

    The sets share the number as evenly as possible: where it is no multiple of theirs, the first
    sets may have one keypoint more than the others.

    Args:
        valid: (B, K, M) bool, best keypoints first; M is at most ``max_keypoints`` / K, rounded
            up.
        max_keypoints: the most keypoints of one image.

    Returns:
        (B, K, M) bool.
    """
    sets, slots = (int(length) for length in valid.shape[-2:])  # a tracer's are tensors
    share, remainder = divmod(max_keypoints, sets)
    if slots <= share:
        return valid
    row = torch.arange(sets, device=valid.device)[:, None]
    slot = torch.arange(slots, device=valid.device)
    return valid & ((slot < share) | (row < remainder))


def detect(
    output: NetworkOutput,
    settings: DetectionSettings,
    image_size: tuple[int, int],
    mask: torch.Tensor | None = None,
) -> PaddedFeatures:
    """Detect keypoints in the network's output and sample their descriptors.

    Args:
        output: the network's output for B images, possibly padded at the right and bottom.
        settings: settings of the detection.
        image_size: (height, width) of the images without padding.
        mask: (B, 1, H, W) bool, where keypoints may lie; everywhere if None.

    Returns:
        K sets of M slots, in pixels of the network's input; M is ``max_keypoints`` / K, rounded
        up, and at most ``max_keypoints`` slots of an image are valid.
    """
    logits = output.logits.contiguous().float()  # in this order each pass is over contiguous memory
    b, k, h, w = logits.shape
    height, width = image_size
    m = min(-(-settings.max_keypoints // int(k)), h * w)  # of a tensor ONNX would round to zero
    edge = max(settings.border, MIN_BORDER)
    inside = torch.zeros((1, 1, h, w), dtype=torch.bool, device=logits.device)
    inside[..., edge : height - edge, edge : width - edge] = True
    allowed = inside if mask is None else inside & mask
    best, index = _strongest(logits, allowed, settings.nms_radius, m)
    scores = best.sigmoid()
    valid = (best > _EXCLUDED) & (scores >= settings.score_threshold)
    valid = limit_keypoints(valid, settings.max_keypoints)
    keypoints = refine(logits, index)
    descriptors = sample_descriptors(
        output, keypoints.reshape(b, -1, 2), (h, w)
    ).reshape(b, k, index.shape[-1], -1)
    return PaddedFeatures(keypoints, scores * valid, descriptors, valid)

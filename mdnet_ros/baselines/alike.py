"""ALIKE (Zhao et al., IEEE T-MM 2022), written from the paper; loads the authors' checkpoints.

Four blocks at strides 1, 2, 8 and 32, each reduced to dim/4 channels, brought to full resolution
and concatenated; one or two 1x1 convolutions give the descriptor map and the score map. Keypoints
are local maxima of the score map, refined by the soft arg-max of their 5x5 window.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from mdnet_ros.baselines.common import (
    BaselineInfo,
    BaselineSettings,
    TorchExtractor,
    build_features,
    load_checkpoint,
    load_state,
    rgb_tensor,
)
from mdnet_ros.features.types import Features


@dataclass(frozen=True)
class AlikeConfig:
    """Size of a network: widths of the four blocks, descriptor length, one head layer or two."""

    channels: tuple[int, int, int, int]
    dim: int
    single_head: bool = True


CONFIGS = {
    'alike-t': AlikeConfig((8, 16, 32, 64), 64),
    'alike-s': AlikeConfig((8, 16, 48, 96), 96),
    'alike-n': AlikeConfig((16, 32, 64, 128), 128),
    'alike-l': AlikeConfig((32, 64, 128, 128), 128, single_head=False),
}
INFOS = {
    name: BaselineInfo(
        name,
        'ALIKE, Zhao et al., IEEE Transactions on Multimedia 2022',
        'BSD-3-Clause',
        'https://github.com/Shiaoming/ALIKE (models/)',
        weights=(f'{name}.pth',),
        library='torch',
    )
    for name in CONFIGS
}
_RADIUS = 2
#: Of the soft arg-max; the authors' tuned value.
_TEMPERATURE = 0.1
_STRIDE = 32


class _Block(nn.Module):
    """Two 3x3 convolutions with batch norm; ``residual`` adds the input."""

    def __init__(self, c_in: int, c_out: int, residual: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.downsample = nn.Conv2d(c_in, c_out, 1) if residual else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y if self.downsample is None else y + self.downsample(x))


class AlikeNetwork(nn.Module):
    """Network that maps an RGB image to a score map and a descriptor map at full resolution.

    Sub-modules carry the names of the published checkpoints.
    """

    def __init__(self, config: AlikeConfig) -> None:
        super().__init__()
        c1, c2, c3, c4 = config.channels
        dim, part = config.dim, config.dim // 4
        self.block1 = _Block(3, c1, residual=False)
        self.block2 = _Block(c1, c2, residual=True)
        self.block3 = _Block(c2, c3, residual=True)
        self.block4 = _Block(c3, c4, residual=True)
        self.conv1 = nn.Conv2d(c1, part, 1, bias=False)
        self.conv2 = nn.Conv2d(c2, part, 1, bias=False)
        self.conv3 = nn.Conv2d(c3, part, 1, bias=False)
        self.conv4 = nn.Conv2d(c4, part, 1, bias=False)
        self.convhead1 = None if config.single_head else nn.Conv2d(dim, dim, 1, bias=False)
        self.convhead2 = nn.Conv2d(dim, dim + 1, 1, bias=False)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the network.

        Args:
            image: (B, 3, H, W) RGB in [0, 1]; H and W multiples of 32.

        Returns:
            (B, H, W) scores in [0, 1] and (B, D, H, W) unit-norm descriptors.
        """
        x1 = self.block1(image)
        x2 = self.block2(F.max_pool2d(x1, 2))
        x3 = self.block3(F.max_pool2d(x2, 4))
        x4 = self.block4(F.max_pool2d(x3, 4))
        size = image.shape[-2:]
        parts = [F.relu(self.conv1(x1))]
        for x, reduce in ((x2, self.conv2), (x3, self.conv3), (x4, self.conv4)):
            # Corners aligned: what the checkpoints were trained with.
            parts.append(
                F.interpolate(F.relu(reduce(x)), size, mode='bilinear', align_corners=True)
            )
        merged = torch.cat(parts, dim=1)
        if self.convhead1 is not None:
            merged = F.relu(self.convhead1(merged))
        head = self.convhead2(merged)
        return head[:, -1].sigmoid(), F.normalize(head[:, :-1], dim=1)


def suppress(scores: torch.Tensor, radius: int) -> torch.Tensor:
    """Zero all scores but local maxima, in three rounds.

    Each further round keeps the local maxima among scores outside the windows of those before.

    Args:
        scores: (H, W), positive.
        radius: radius of the square window, pixels.
    """

    def pool(x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(x[None, None], 2 * radius + 1, stride=1, padding=radius)[0, 0]

    maxima = scores == pool(scores)
    for _ in range(2):
        near = pool(maxima.float()) > 0
        rest = scores.masked_fill(near, 0.0)
        maxima = maxima | ((rest == pool(rest)) & ~near)
    return scores * maxima


class AlikeExtractor(TorchExtractor):
    """ALIKE at the image's own scale, with an :class:`AlikeNetwork`."""

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> Features:
        """Extract features; see :class:`mdnet_ros.Extractor`."""
        x = rgb_tensor(image, self.device)
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % _STRIDE, 0, -height % _STRIDE))
        scores, descriptors = self.network(x)
        score, dense = scores[0, :height, :width], descriptors[:, :, :height, :width]
        peaks = suppress(score, _RADIUS)
        inside = torch.zeros_like(peaks)
        inside[_RADIUS + 1 : height - _RADIUS, _RADIUS + 1 : width - _RADIUS] = 1.0
        best, index = (peaks * inside).flatten().topk(min(self.max_keypoints, peaks.numel()))
        index = index[best > 0]
        xy = self._refine(score, index)
        scale = xy.new_tensor([2.0 / max(width - 1, 1), 2.0 / max(height - 1, 1)])
        grid = (xy * scale - 1.0)[None, None]
        described = F.grid_sample(dense, grid, align_corners=True)[0, :, 0].T
        value = F.grid_sample(score[None, None], grid, align_corners=True)[0, 0, 0]
        return build_features(xy, value, described, (width, height), self.max_keypoints)

    @staticmethod
    def _refine(score: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """Refine the peaks at flat ``index`` to (N, 2) sub-pixel positions."""
        width = score.shape[1]
        x, y = index % width, index // width
        steps = torch.arange(-_RADIUS, _RADIUS + 1, device=score.device)
        dy, dx = torch.meshgrid(steps, steps, indexing='ij')
        window = score[y[:, None] + dy.flatten(), x[:, None] + dx.flatten()]
        weight = (window / _TEMPERATURE).softmax(dim=1)
        offset = weight @ torch.stack([dx.flatten(), dy.flatten()], dim=1).float()
        return torch.stack([x, y], dim=1) + offset


def create(name: str, settings: BaselineSettings, weights: Path | None) -> AlikeExtractor:
    """Create the extractor of the size that ``name`` says, from the authors' checkpoint.

    Raises:
        WeightsError: the file is not that checkpoint.
    """
    assert weights is not None, 'the registry passes the weights file'
    network = AlikeNetwork(CONFIGS[name])
    load_state(network, load_checkpoint(weights), weights)
    return AlikeExtractor(name, network, settings.max_keypoints, settings.device)

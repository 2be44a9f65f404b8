"""EdgePoint2 features (Yao et al., arXiv:2504.17280, 2025) from the authors' checkpoints.

The network is written from the paper. An encoder computes features of the gray image at strides 2,
4, 8 and 32. The detection head sums 1x1 convolutions of the features at strides 2, 8 and 32 at half
resolution and turns the sum into one score per pixel (pixel shuffle). The description head
concatenates the features at strides 4, 8 and 32 at quarter resolution.
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
class EdgePoint2Config:
    """Widths of an EdgePoint2 network.

    Attributes:
        channels: of the first convolution; of strides 2 and 4; of stride 8; of stride 32.
        detector: channels of the detection head.
        dim: length of a descriptor.
    """

    channels: tuple[int, int, int, int]
    detector: int
    dim: int


#: Size letter in the paper -> channels of the features and of the detection head.
_SIZES = {
    't': ((8, 8, 16, 24), 8),
    's': ((8, 8, 24, 32), 8),
    'm': ((8, 16, 32, 48), 8),
    'l': ((8, 16, 48, 64), 8),
    'e': ((16, 16, 48, 64), 16),
}
#: Name of the extractor -> its network, for each published checkpoint. The tiny network has no
#: checkpoint with 64 dimensions.
CONFIGS = {
    f'edgepoint2-{size}{dim}': EdgePoint2Config(channels, detector, dim)
    for size, (channels, detector) in _SIZES.items()
    for dim in (32, 48, 64)
    if (size, dim) != ('t', 64)
}
INFOS = {
    name: BaselineInfo(
        name,
        'EdgePoint2, Yao et al., arXiv:2504.17280, 2025',
        'MIT',
        'https://github.com/HITCSC/EdgePoint2 (weights/)',
        weights=(f'{name.partition("-")[2].upper()}.pth',),
        library='torch',
    )
    for name in CONFIGS
}
#: A keypoint has the highest score within this many pixels in x and y.
_RADIUS = 2
#: Keypoints this close to the image's border are left out, pixels.
_BORDER = 4
#: Lowest score (a logit) of a keypoint, as in the authors' code.
_THRESHOLD = -5.0
_STRIDE = 32
#: Channels per group of the grouped convolution in the description head.
_GROUP = 16


def _conv_norm(
    c_in: int, c_out: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Make a convolution without bias, padded by 1, and its batch norm."""
    convolution = nn.Conv2d(c_in, c_out, kernel, stride, padding=1, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(c_out)]


class _Layer(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.layer = nn.Sequential(*_conv_norm(c_in, c_out, kernel, stride, groups), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class _ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: a 1x1 convolution where the width changes."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            *_conv_norm(c_in, c_out), nn.ReLU(), *_conv_norm(c_out, c_out)
        )
        self.skip = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.layer(x) + self.skip(x))


def _upsample(x: torch.Tensor, factor: int) -> torch.Tensor:
    """Upsample a feature map bilinearly by a whole factor."""
    return F.interpolate(x, scale_factor=factor, mode='bilinear', align_corners=False)


class EdgePoint2Network(nn.Module):
    """Convolutional network that maps a gray image to a score map and a descriptor map.

    Sub-modules have the names that the published checkpoints use.
    """

    def __init__(self, config: EdgePoint2Config) -> None:
        super().__init__()
        c1, c2, c3, c4 = config.channels
        total, width = c2 + c3 + c4, config.detector
        self.block1 = nn.Sequential(
            _Layer(1, c1, kernel=4, stride=2), _Layer(c1, c2), _ResidualBlock(c2, c2)
        )
        self.block2 = _ResidualBlock(c2, c3)
        self.block3 = _ResidualBlock(c3, c4)
        self.desc_head = nn.Sequential(
            nn.Conv2d(total, total, 1),
            _Layer(total, total, groups=total // _GROUP),
            nn.Conv2d(total, config.dim, 1),
        )
        self.conv1 = nn.Conv2d(c2, width, 1)
        self.conv2 = nn.Conv2d(c3, width, 1)
        self.conv3 = nn.Conv2d(c4, width, 1)
        self.score_head = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 4, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the network.

        Args:
            image: (B, 1, H, W) gray; H and W multiples of 32. Each image is standardised here.

        Returns:
            (B, H, W) scores (logits) and (B, D, H/4, W/4) descriptors, not normalised.
        """
        half = self.block1(F.instance_norm(image))
        quarter = F.avg_pool2d(half, 2)
        eighth = self.block2(F.avg_pool2d(quarter, 2))
        coarse = self.block3(F.avg_pool2d(eighth, 4))
        merged = torch.cat([quarter, _upsample(eighth, 2), _upsample(coarse, 8)], dim=1)
        summed = (
            self.conv1(half)
            + _upsample(self.conv2(eighth), 4)
            + _upsample(self.conv3(coarse), 16)
        )
        return self.score_head(summed)[:, 0], self.desc_head(merged)


class EdgePoint2Extractor(TorchExtractor):
    """Extractor of EdgePoint2 features at the image's own scale."""

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> Features:
        """Extract features; see :class:`mdnet_ros.Extractor`."""
        x = rgb_tensor(image, self.device).mean(dim=1, keepdim=True)
        height, width = x.shape[-2:]
        inner = [max(_STRIDE, side // _STRIDE * _STRIDE) for side in (height, width)]
        if inner != [height, width]:
            x = F.interpolate(x, inner, mode='bilinear', align_corners=True)
        scores, dense = self.network(x)
        xy, values = self._detect(scores[0])
        size = xy.new_tensor([inner[1], inner[0]])
        grid = ((xy + 0.5) / size * 2.0 - 1.0)[None, None]
        described = F.grid_sample(dense, grid, align_corners=False)[0, :, 0].T
        # The resize above maps corner pixels onto corner pixels, and so does this. The authors
        # multiply by the ratio of the sides instead, which differs by up to 0.03 px.
        ratio = (xy.new_tensor([width, height]) - 1.0) / (size - 1.0)
        return build_features(
            xy * ratio, values, described, (width, height), self.max_keypoints
        )

    def _detect(self, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Find the local maxima with the highest scores.

        Args:
            scores: (H, W) logits.

        Returns:
            (N, 2) x and y, pixels, and (N,) scores, descending.
        """
        side = 2 * _RADIUS + 1
        peaks = scores == F.max_pool2d(scores[None, None], side, stride=1, padding=_RADIUS)[0, 0]
        peaks &= scores > _THRESHOLD
        inside = torch.zeros_like(peaks)
        inside[_BORDER:-_BORDER, _BORDER:-_BORDER] = True
        rows, columns = (peaks & inside).nonzero(as_tuple=True)
        values = scores[rows, columns]
        best, order = values.topk(min(self.max_keypoints, len(values)))
        return torch.stack([columns, rows], dim=1)[order].float(), best


def create(name: str, settings: BaselineSettings, weights: Path | None) -> EdgePoint2Extractor:
    """Make the extractor called ``name`` from the authors' checkpoint.

    Raises:
        WeightsError: the file is not that checkpoint.
    """
    assert weights is not None, 'the registry passes the weights file'
    network = EdgePoint2Network(CONFIGS[name])
    load_state(network, load_checkpoint(weights), weights)
    return EdgePoint2Extractor(name, network, settings.max_keypoints, settings.device)

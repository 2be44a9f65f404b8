"""R2D2 (Revaud et al., NeurIPS 2019), written from the paper; loads the authors' checkpoints.

An L2-Net without any downsampling (strides became dilations, the last 8x8 convolution three 2x2
ones) gives a descriptor per pixel; two 1x1 convolutions on its squares give the reliability and
the repeatability. Keypoints are local maxima of the repeatability where both are high enough;
their score is the product.
"""

from __future__ import annotations

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
from mdnet_ros.errors import WeightsError
from mdnet_ros.features.types import Features

INFOS = {
    name: BaselineInfo(
        name,
        f'R2D2 {scales}, Revaud et al., NeurIPS 2019',
        'CC BY-NC-SA 3.0 (non-commercial)',
        'https://github.com/naver/r2d2 (models/)',
        weights=('r2d2_WASF_N16.pt', 'r2d2_WAF_N16.pt'),
        library='torch',
    )
    for name, scales in (('r2d2', 'at one scale'), ('r2d2-ms', 'at several scales'))
}
_DIM = 128
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: The authors' thresholds for both maps, and their range of scales.
_THRESHOLD = 0.7
_SCALE_STEP = 2.0**0.25
_MIN_SIZE, _MAX_SIZE = 256, 1024


class R2D2Network(nn.Module):
    """Network that gives descriptor, reliability and repeatability of each pixel of an image.

    Sub-modules carry the names of the published checkpoints.
    """

    def __init__(self) -> None:
        super().__init__()
        # (output channels, kernel, dilation, batch norm, ReLU)
        layers = [
            (32, 3, 1, True, True),
            (32, 3, 1, True, True),
            (64, 3, 1, True, True),
            (64, 3, 2, True, True),
            (128, 3, 2, True, True),
            (128, 3, 4, True, True),
            (128, 2, 4, True, False),
            (128, 2, 8, True, False),
            (_DIM, 2, 16, False, False),
        ]
        self.ops = nn.ModuleList()
        channels = 3
        for width, kernel, dilation, norm, relu in layers:
            padding = (kernel - 1) * dilation // 2
            self.ops.append(
                nn.Conv2d(channels, width, kernel, padding=padding, dilation=dilation)
            )
            if norm:
                self.ops.append(nn.BatchNorm2d(width, affine=False))
            if relu:
                self.ops.append(nn.ReLU(inplace=True))
            channels = width
        self.clf = nn.Conv2d(_DIM, 2, 1)
        self.sal = nn.Conv2d(_DIM, 1, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Run the network.

        Args:
            image: (B, 3, H, W) RGB, normalised as for ImageNet.

        Returns:
            (B, 128, H, W) unit-norm descriptors, (B, H, W) reliability and (B, H, W)
            repeatability, both in [0, 1].
        """
        x = image
        for op in self.ops:
            x = op(x)
        squared = x**2
        reliability = self.clf(squared).softmax(dim=1)[:, 1]
        salient = F.softplus(self.sal(squared))[:, 0]
        return F.normalize(x, dim=1), reliability, salient / (1.0 + salient)


class R2D2Extractor(TorchExtractor):
    """R2D2, whose score is reliability · repeatability.

    Args:
        name: name of the extractor.
        network: network with its weights loaded.
        max_keypoints: the best this many are kept.
        device: device as :func:`mdnet_ros.features.extractor.choose_device` takes it.
        multiscale: look at copies of the image shrunk in steps of 2^0.25, those whose longer side
            has 256 to 1024 pixels (the authors' default); otherwise only at the image itself.
    """

    def __init__(
        self,
        name: str,
        network: R2D2Network,
        max_keypoints: int,
        device: str = 'auto',
        multiscale: bool = False,
    ) -> None:
        super().__init__(name, network, max_keypoints, device)
        self.multiscale = multiscale

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> Features:
        """Extract features; see :class:`mdnet_ros.Extractor`."""
        x = rgb_tensor(image, self.device)
        height, width = x.shape[-2:]
        x = (x - x.new_tensor(_MEAN)[:, None, None]) / x.new_tensor(_STD)[:, None, None]
        found = []
        for size in self._sizes(height, width):
            if x.shape[-2:] != size:
                x = F.interpolate(x, size, mode='bilinear', align_corners=False)
            xy, score, dense = self._detect(x)
            scale = xy.new_tensor([width / size[1], height / size[0]])
            found.append(((xy + 0.5) * scale - 0.5, score, dense))
        keypoints, scores, descriptors = (
            torch.cat([part[i] for part in found]) for i in range(3)
        )
        return build_features(keypoints, scores, descriptors, (width, height), self.max_keypoints)

    def _sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return (height, width) of the copies of the image to look at, descending."""
        if not self.multiscale:
            return [(height, width)]
        longer = max(height, width)
        sizes, scale = [], 1.0
        while scale + 0.001 >= _MIN_SIZE / longer:
            if scale - 0.001 <= _MAX_SIZE / longer:
                sizes.append((round(height * scale), round(width * scale)))
            scale /= _SCALE_STEP
        return sizes or [(height, width)]

    def _detect(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (N, 2) keypoints in pixels of ``x``, (N,) scores and (N, D) descriptors."""
        dense, (reliability,), (repeatability,) = self.network(x)
        pooled = F.max_pool2d(repeatability[None, None], 3, stride=1, padding=1)[0, 0]
        chosen = repeatability == pooled
        chosen &= (repeatability >= _THRESHOLD) & (reliability >= _THRESHOLD)
        rows, columns = chosen.nonzero(as_tuple=True)
        scores = (reliability * repeatability)[rows, columns]
        return torch.stack([columns, rows], dim=1).float(), scores, dense[0, :, rows, columns].T


def create(name: str, settings: BaselineSettings, weights: Path | None) -> R2D2Extractor:
    """Create the extractor with the authors' checkpoint.

    Raises:
        WeightsError: the file is not that checkpoint.
    """
    assert weights is not None, 'the registry passes the weights file'
    state = load_checkpoint(weights).get('state_dict')
    if not isinstance(state, dict):
        raise WeightsError(f"weights '{weights}': expected an R2D2 checkpoint with 'state_dict'")
    network = R2D2Network()
    load_state(network, {k.removeprefix('module.'): v for k, v in state.items()}, weights)
    return R2D2Extractor(
        name, network, settings.max_keypoints, settings.device, multiscale=name == 'r2d2-ms'
    )

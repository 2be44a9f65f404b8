"""XFeat (Potje et al., CVPR 2024) by kornia; the network from a checkpoint or an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mdnet_ros.baselines.common import (
    BaselineInfo,
    BaselineSettings,
    TorchExtractor,
    build_features,
    kornia_feature,
    load_checkpoint,
    load_state,
    rgb_tensor,
)
from mdnet_ros.errors import MissingDependencyError, WeightsError
from mdnet_ros.features.types import Features

INFOS = {
    'xfeat': BaselineInfo(
        'xfeat',
        'XFeat, sparse, Potje et al., CVPR 2024',
        'Apache-2.0',
        'https://github.com/verlab/accelerated_features (weights/xfeat.pt)',
        weights=('xfeat.pt', 'xfeat.onnx'),
        library='kornia',
    )
}
#: Channels of the network's outputs: descriptors, keypoint logits, reliability.
_CHANNELS = (64, 65, 1)
_STRIDE = 32


class OnnxNetwork(nn.Module):
    """XFeat's network run by onnxruntime.

    Args:
        path: an ONNX file whose one input is the (1, C, H, W) image, with H and W free, and whose
            outputs at 1/8 resolution have 64, 65 and 1 channels, in any order.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        WeightsError: the file cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        try:
            import onnxruntime
        except ImportError:
            raise MissingDependencyError('onnxruntime', 'onnx', "extractor 'xfeat'") from None
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), providers=['CPUExecutionProvider']
            )
        except Exception as error:  # onnxruntime's errors have no common base of their own
            reason = ' '.join(str(error).split())[:120]
            raise WeightsError(f"weights '{path}': not an ONNX model: {reason}") from None
        self._path = path
        self._input = self._session.get_inputs()[0]

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute descriptors, keypoint logits and reliability of a (1, C, H, W) image."""
        if self._input.shape[1] == 1:
            image = image.mean(dim=1, keepdim=True)
        outputs = self._session.run(None, {self._input.name: image.cpu().numpy()})
        by_channels = {output.shape[1]: output for output in outputs if output.ndim == 4}
        if not set(_CHANNELS) <= set(by_channels):
            raise WeightsError(
                f"weights '{self._path}': expected outputs of 64, 65 and 1 channels, got "
                f'{[output.shape for output in outputs]}'
            )
        return tuple(torch.from_numpy(by_channels[count]).to(image) for count in _CHANNELS)


class XFeatExtractor(TorchExtractor):
    """XFeat by kornia, with sparse keypoints."""

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> Features:
        """Extract features; see :class:`mdnet_ros.Extractor`."""
        x = rgb_tensor(image, self.device)
        height, width = x.shape[-2:]
        found = self.network.detectAndCompute(x)[0]
        # kornia scales by r; with integer pixel centres (r - 1)/2 must be added.
        ratio = np.array([width, height]) / [
            max(_STRIDE, side // _STRIDE * _STRIDE) for side in (width, height)
        ]
        return build_features(
            found['keypoints'].cpu().numpy() + (ratio - 1.0) / 2.0,
            found['scores'], found['descriptors'], (width, height), self.max_keypoints,
        )


def create(name: str, settings: BaselineSettings, weights: Path | None) -> XFeatExtractor:
    """Create the extractor with the authors' checkpoint, or an ONNX file of its network.

    Raises:
        MissingDependencyError: kornia is not installed or too old.
        WeightsError: the file is neither.
    """
    assert weights is not None, 'the registry passes the weights file'
    model = kornia_feature('XFeat', name)(top_k=settings.max_keypoints)
    if weights.suffix == '.onnx':
        model.net = OnnxNetwork(weights)
    else:
        load_state(model.net, load_checkpoint(weights), weights)
    return XFeatExtractor(name, model, settings.max_keypoints, settings.device)

"""ALIKED (Zhao et al., IEEE T-IM 2023) by kornia."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

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
from mdnet_ros.features.types import Features

INFOS = {
    name: BaselineInfo(
        name,
        'ALIKED, Zhao et al., IEEE Transactions on Instrumentation and Measurement 2023',
        'BSD-3-Clause',
        'https://github.com/Shiaoming/ALIKED (models/)',
        weights=(f'{name}.pth',),
        library='kornia',
    )
    for name in ('aliked-t16', 'aliked-n16', 'aliked-n16rot', 'aliked-n32')
}


class AlikedExtractor(TorchExtractor):
    """ALIKED by kornia: keypoints from a score map, descriptors by deformable sampling."""

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> Features:
        """Extract features; see :class:`mdnet_ros.Extractor`."""
        x = rgb_tensor(image, self.device)
        found = self.network(x)[0]
        size = (x.shape[3], x.shape[2])
        return build_features(
            found.keypoints, found.keypoint_scores, found.descriptors, size, self.max_keypoints
        )


def create(name: str, settings: BaselineSettings, weights: Path | None) -> AlikedExtractor:
    """Create the extractor of the size that ``name`` says, from the authors' checkpoint.

    Raises:
        MissingDependencyError: kornia is not installed or too old.
        WeightsError: the file is not that checkpoint.
    """
    assert weights is not None, 'the registry passes the weights file'
    network = kornia_feature('ALIKED', name)(
        name, max_num_keypoints=settings.max_keypoints, detection_threshold=0.0
    )
    # kornia keeps the detector's constant grid among the tensors, the authors do not.
    constants = {k: v for k, v in network.state_dict().items() if k.startswith('dkd.')}
    load_state(network, {**constants, **load_checkpoint(weights)}, weights)
    return AlikedExtractor(name, network, settings.max_keypoints, settings.device)

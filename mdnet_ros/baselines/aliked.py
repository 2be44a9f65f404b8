"""ALIKED (Zhao et al., IEEE T-IM 2023) by kornia."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mdnet_ros.baselines.common import (
    BaselineInfo,
    BaselineSettings,
    build_features,
    kornia_feature,
    load_checkpoint,
    load_state,
    rgb_tensor,
)
from mdnet_ros.features.extractor import choose_device
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


class AlikedExtractor:
    """kornia's ALIKED, the best ``max_keypoints``.

    Raises:
        MissingDependencyError: kornia is not installed.
    """

    def __init__(self, name: str, max_keypoints: int, device: str = 'auto') -> None:
        self.name = name
        self.max_keypoints = max_keypoints
        self.device = choose_device(device)
        network = kornia_feature('ALIKED', name)(
            name, max_num_keypoints=max_keypoints, detection_threshold=0.0
        )
        self.network = network.eval().to(self.device)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> Features:
        """Extract features; see :class:`mdnet_ros.Extractor`."""
        x = rgb_tensor(image, self.device)
        found = self.network(x)[0]
        return build_features(
            found.keypoints.cpu().numpy(),
            found.keypoint_scores.cpu().numpy(),
            found.descriptors.cpu().numpy(),
            (x.shape[3], x.shape[2]),
            self.max_keypoints,
        )


def create(name: str, settings: BaselineSettings, weights: Path | None) -> AlikedExtractor:
    """The size that ``name`` says, from the authors' checkpoint.

    Raises:
        WeightsError: if the file is not that checkpoint.
    """
    assert weights is not None, 'the registry finds the weights of all that name some'
    extractor = AlikedExtractor(name, settings.max_keypoints, settings.device)
    # kornia keeps the detector's constant grid among the tensors, the authors do not.
    constants = {k: v for k, v in extractor.network.state_dict().items() if k.startswith('dkd.')}
    load_state(extractor.network, {**constants, **load_checkpoint(weights)}, weights)
    return extractor

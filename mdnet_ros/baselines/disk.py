"""DISK features (Tyszkiewicz et al., NeurIPS 2020), run by kornia."""

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
    'disk': BaselineInfo(
        'disk',
        'DISK trained on depth, Tyszkiewicz et al., NeurIPS 2020',
        'Apache-2.0',
        'https://github.com/cvlab-epfl/disk (depth-save.pth)',
        weights=('depth-save.pth', 'disk-depth-save.pth'),
        library='kornia',
    )
}


class DiskExtractor(TorchExtractor):
    """Extractor of DISK features with kornia's network."""

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> Features:
        """Extract features; see :class:`mdnet_ros.Extractor`."""
        x = rgb_tensor(image, self.device)
        found = self.network(x, n=self.max_keypoints, pad_if_not_divisible=True)[0]
        size = (x.shape[3], x.shape[2])
        return build_features(
            found.keypoints, found.detection_scores, found.descriptors, size, self.max_keypoints
        )


def create(name: str, settings: BaselineSettings, weights: Path | None) -> DiskExtractor:
    """Create the extractor with the authors' checkpoint.

    Raises:
        MissingDependencyError: kornia is not installed.
        WeightsError: the file is not that checkpoint.
    """
    assert weights is not None, 'the registry passes the weights file'
    network = kornia_feature('DISK', name)()
    load_state(network, load_checkpoint(weights).get('extractor', {}), weights)
    return DiskExtractor(name, network, settings.max_keypoints, settings.device)

"""DISK features (Tyszkiewicz et al., NeurIPS 2020), run by kornia."""

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
    'disk': BaselineInfo(
        'disk',
        'DISK trained on depth, Tyszkiewicz et al., NeurIPS 2020',
        'Apache-2.0',
        'https://github.com/cvlab-epfl/disk (depth-save.pth)',
        weights=('depth-save.pth', 'disk-depth-save.pth'),
        library='kornia',
    )
}


class DiskExtractor:
    """Extractor of DISK features with kornia's network.

    Args:
        max_keypoints: the most keypoints of one image; those with the highest scores are kept.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        MissingDependencyError: kornia is not installed.
    """

    name = 'disk'

    def __init__(self, max_keypoints: int, device: str = 'auto') -> None:
        self.max_keypoints = max_keypoints
        self.device = choose_device(device)
        self.network = kornia_feature('DISK', self.name)().eval().to(self.device)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> Features:
        """Extract features; see :class:`mdnet_ros.Extractor`."""
        x = rgb_tensor(image, self.device)
        found = self.network(x, n=self.max_keypoints, pad_if_not_divisible=True)[0]
        return build_features(
            found.keypoints.cpu().numpy(),
            found.detection_scores.cpu().numpy(),
            found.descriptors.cpu().numpy(),
            (x.shape[3], x.shape[2]),
            self.max_keypoints,
        )


def create(name: str, settings: BaselineSettings, weights: Path | None) -> DiskExtractor:
    """Make the extractor from the authors' checkpoint.

    Raises:
        WeightsError: the file is not that checkpoint.
    """
    assert weights is not None, 'the registry passes the weights file'
    extractor = DiskExtractor(settings.max_keypoints, settings.device)
    load_state(extractor.network, load_checkpoint(weights).get('extractor', {}), weights)
    return extractor

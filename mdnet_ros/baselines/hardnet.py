"""HardNet (Mishchuk et al., NIPS 2017) by kornia, on OpenCV's SIFT keypoints."""

from __future__ import annotations

from pathlib import Path

import cv2
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
)
from mdnet_ros.baselines.sift import SIFT_OFFSET
from mdnet_ros.features.extractor import to_gray
from mdnet_ros.features.types import Features

INFOS = {
    'hardnet': BaselineInfo(
        'hardnet',
        'HardNet on DoG keypoints, Mishchuk et al., NIPS 2017',
        'MIT (weights), Apache-2.0 (kornia, OpenCV)',
        'https://github.com/DagnyT/hardnet (pretrained/)',
        weights=('HardNet++.pth', 'HardNetPP.pth', 'checkpoint_liberty_with_aug.pth'),
        library='kornia',
    )
}
_DIM = 128
#: Half the side of a patch in units of a keypoint's size (2 sigma): 12 sigma a side, as SIFT.
_HALF_SIDE = 3.0


class HardNetExtractor(TorchExtractor):
    """SIFT keypoints, described by HardNet from 32x32 px patches turned upright."""

    def __init__(
        self, name: str, network: torch.nn.Module, max_keypoints: int, device: str = 'auto'
    ) -> None:
        super().__init__(name, network, max_keypoints, device)
        self._sift = cv2.SIFT.create(nfeatures=max_keypoints)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> Features:
        """Extract features; see :class:`mdnet_ros.Extractor`."""
        gray = to_gray(image)
        size = (gray.shape[1], gray.shape[0])
        found = self._sift.detect(gray, None)
        if not found:
            return Features.empty(size, _DIM)
        centres = np.array([k.pt for k in found], np.float32) - SIFT_OFFSET
        patches = self.patches(
            gray, centres, np.array([k.size for k in found]), np.array([k.angle for k in found])
        )
        scores = np.array([k.response for k in found], np.float32)
        return build_features(centres, scores, self.network(patches), size, self.max_keypoints)

    def patches(
        self, gray: np.ndarray, centres: np.ndarray, sizes: np.ndarray, angles: np.ndarray
    ) -> torch.Tensor:
        """Cut upright patches around keypoints.

        Args:
            gray: (H, W) uint8.
            centres: (N, 2) pixels.
            sizes: (N,) OpenCV's keypoint sizes, pixels.
            angles: (N,) OpenCV's keypoint angles, degrees, clockwise as seen.

        Returns:
            (N, 1, 32, 32) float32.
        """
        frames = kornia_feature('laf_from_center_scale_ori', self.name)(
            torch.from_numpy(centres)[None],
            torch.from_numpy(_HALF_SIDE * sizes).float()[None, :, None, None],
            torch.from_numpy(-angles).float()[None, :, None],
        )
        pixels = torch.from_numpy(gray)[None, None].float().to(self.device) / 255.0
        extract = kornia_feature('extract_patches_from_pyramid', self.name)
        return extract(pixels, frames.to(self.device), 32)[0]


def create(name: str, settings: BaselineSettings, weights: Path | None) -> HardNetExtractor:
    """Create the extractor with the authors' checkpoint.

    Raises:
        MissingDependencyError: kornia is not installed.
        WeightsError: the file is not that checkpoint.
    """
    assert weights is not None, 'the registry passes the weights file'
    network = kornia_feature('HardNet', name)(pretrained=False)
    state = load_checkpoint(weights)
    load_state(network, state.get('state_dict', state), weights)
    return HardNetExtractor(name, network, settings.max_keypoints, settings.device)

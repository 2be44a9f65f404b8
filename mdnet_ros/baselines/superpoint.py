"""SuperPoint (DeTone et al., CVPR workshops 2018) by transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mdnet_ros.baselines.common import (
    BaselineInfo,
    BaselineSettings,
    TorchExtractor,
    build_features,
)
from mdnet_ros.errors import MissingDependencyError, WeightsError
from mdnet_ros.features.extractor import to_gray
from mdnet_ros.features.types import Features

INFOS = {
    'superpoint': BaselineInfo(
        'superpoint',
        'SuperPoint, DeTone et al., CVPR workshops 2018',
        'Magic Leap: academic, non-commercial',
        'https://huggingface.co/magic-leap-community/superpoint (the whole folder)',
        weights=('superpoint',),
        library='transformers',
    )
}
#: Smaller images leave no 8x8 px cell inside the border, pixels.
_MIN_SIDE = 32


class SuperPointExtractor(TorchExtractor):
    """SuperPoint of transformers, with the thresholds of its configuration."""

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> Features:
        """Extract features; see :class:`mdnet_ros.Extractor`."""
        gray = to_gray(image)
        height, width = gray.shape
        if min(height, width) < _MIN_SIDE:
            return Features.empty((width, height), self.network.config.descriptor_decoder_dim)
        x = torch.from_numpy(gray).to(self.device)[None, None].float() / 255.0
        found = self.network(x.expand(1, 3, height, width))
        mask = found.mask[0].bool()
        keypoints = found.keypoints[0][mask].cpu().numpy() * [width, height]
        return build_features(
            np.round(keypoints),  # whole pixels, divided by the size inside
            found.scores[0][mask], found.descriptors[0][mask], (width, height), self.max_keypoints,
        )


def create(name: str, settings: BaselineSettings, weights: Path | None) -> SuperPointExtractor:
    """Create the extractor with the published weights.

    Args:
        name: name of the extractor.
        settings: settings of the extractor.
        weights: folder with ``config.json`` and ``model.safetensors``.

    Raises:
        MissingDependencyError: transformers is not installed.
        WeightsError: the folder does not hold the model.
    """
    assert weights is not None, 'the registry passes the weights file'
    try:
        from transformers import SuperPointForKeypointDetection
    except ImportError:
        raise MissingDependencyError('transformers', 'evaluate', f"extractor '{name}'") from None
    try:
        network = SuperPointForKeypointDetection.from_pretrained(
            str(weights), local_files_only=True, use_safetensors=True,
            max_keypoints=settings.max_keypoints,
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = ' '.join(str(error).split())[:120]
        raise WeightsError(f"weights '{weights}': not a SuperPoint model: {reason}") from None
    return SuperPointExtractor(name, network, settings.max_keypoints, settings.device)

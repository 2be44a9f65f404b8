"""SuperPoint (DeTone et al., CVPR workshops 2018) by transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mdnet_ros.baselines.common import BaselineInfo, BaselineSettings, build_features
from mdnet_ros.errors import MissingDependencyError, WeightsError
from mdnet_ros.features.extractor import choose_device, to_gray
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
#: Below this the network's grid of 8x8 px cells has no inside.
_MIN_SIDE = 32


class SuperPointExtractor:
    """SuperPoint with the thresholds of its configuration, the best ``max_keypoints``.

    Args:
        folder: with ``config.json`` and ``model.safetensors``.
        max_keypoints: how many to keep.
        device: as :func:`mdnet_ros.features.extractor.choose_device` takes it.

    Raises:
        MissingDependencyError: transformers is not installed.
        WeightsError: the folder does not hold the model.
    """

    name = 'superpoint'

    def __init__(self, folder: Path, max_keypoints: int, device: str = 'auto') -> None:
        try:
            from transformers import SuperPointForKeypointDetection
        except ImportError:
            raise MissingDependencyError(
                'transformers', 'evaluate', "extractor 'superpoint'"
            ) from None
        self.max_keypoints = max_keypoints
        self.device = choose_device(device)
        try:
            network = SuperPointForKeypointDetection.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True,
                max_keypoints=max_keypoints,
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = ' '.join(str(error).split())[:120]
            raise WeightsError(f"weights '{folder}': not a SuperPoint model: {reason}") from None
        self._network = network.eval().to(self.device)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> Features:
        """Extract features; see :class:`mdnet_ros.Extractor`."""
        gray = to_gray(image)
        height, width = gray.shape
        if min(height, width) < _MIN_SIDE:
            return Features.empty((width, height), self._network.config.descriptor_decoder_dim)
        x = torch.from_numpy(gray).to(self.device)[None, None].float() / 255.0
        found = self._network(x.expand(1, 3, height, width))
        mask = found.mask[0].bool()
        keypoints = found.keypoints[0][mask].cpu().numpy() * [width, height]
        return build_features(
            np.round(keypoints),  # whole pixels, divided by the size inside
            found.scores[0][mask].cpu().numpy(),
            found.descriptors[0][mask].cpu().numpy(),
            (width, height),
            self.max_keypoints,
        )


def create(name: str, settings: BaselineSettings, weights: Path | None) -> SuperPointExtractor:
    """The extractor with the published weights.

    Raises:
        WeightsError: if the folder does not hold them.
    """
    assert weights is not None, 'the registry finds the weights of all that name some'
    return SuperPointExtractor(weights, settings.max_keypoints, settings.device)

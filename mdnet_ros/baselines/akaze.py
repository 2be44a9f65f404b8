"""AKAZE (Alcantarilla et al., BMVC 2013) by OpenCV."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mdnet_ros.baselines.common import (
    BaselineInfo,
    BaselineSettings,
    binary_to_float,
    from_opencv,
)
from mdnet_ros.features.extractor import to_gray
from mdnet_ros.features.types import Features

INFOS = {
    'akaze': BaselineInfo(
        'akaze', 'AKAZE, Alcantarilla et al., BMVC 2013', 'Apache-2.0 (OpenCV)',
        'opencv-python-headless', single_threaded=True,
    )
}
_BITS = 486


class AkazeExtractor:
    """OpenCV's AKAZE, with its bits as ±1/sqrt(486), so that cosine follows Hamming distance."""

    name = 'akaze'

    def __init__(self, max_keypoints: int) -> None:
        self.max_keypoints = max_keypoints
        self._akaze = cv2.AKAZE.create()

    def __call__(self, image: np.ndarray) -> Features:
        """Extract features; see :class:`mdnet_ros.Extractor`."""
        gray = to_gray(image)
        found, packed = self._akaze.detectAndCompute(gray, None)
        descriptors = None if packed is None else binary_to_float(packed, _BITS)
        size = (gray.shape[1], gray.shape[0])
        return from_opencv(found, descriptors, _BITS, size, self.max_keypoints)


def create(name: str, settings: BaselineSettings, weights: Path | None) -> AkazeExtractor:
    """Create the extractor."""
    return AkazeExtractor(settings.max_keypoints)

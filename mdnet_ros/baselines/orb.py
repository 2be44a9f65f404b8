"""ORB (Rublee et al., ICCV 2011) by OpenCV."""

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
    'orb': BaselineInfo(
        'orb', 'ORB, Rublee et al., ICCV 2011', 'Apache-2.0 (OpenCV)', 'opencv-python-headless',
        single_threaded=True,
    )
}
_BITS = 256
_SCALE = 1.2


class OrbExtractor:
    """OpenCV's ORB, with its bits as ±1/16, so that cosine follows Hamming distance."""

    name = 'orb'

    def __init__(self, max_keypoints: int) -> None:
        self.max_keypoints = max_keypoints
        self._orb = cv2.ORB.create(nfeatures=max_keypoints, scaleFactor=_SCALE)

    def __call__(self, image: np.ndarray) -> Features:
        """Extract features; see :class:`mdnet_ros.Extractor`."""
        gray = to_gray(image)
        found, packed = self._orb.detectAndCompute(gray, None)
        descriptors = None if packed is None else binary_to_float(packed, _BITS)
        size = (gray.shape[1], gray.shape[0])
        for keypoint in found:
            # OpenCV multiplies by the level's nominal scale. The level has whole pixels, though,
            # and centres of pixels are what its own resizing maps onto each other.
            scale = _SCALE**keypoint.octave
            keypoint.pt = tuple(  # type: ignore[assignment]
                (value / scale + 0.5) * side / round(side / scale) - 0.5
                for value, side in zip(keypoint.pt, size, strict=True)
            )
        return from_opencv(found, descriptors, _BITS, size, self.max_keypoints)


def create(name: str, settings: BaselineSettings, weights: Path | None) -> OrbExtractor:
    """Create the extractor."""
    return OrbExtractor(settings.max_keypoints)

"""SIFT (Lowe, IJCV 2004) by OpenCV: plain or Root descriptors, with or without orientation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mdnet_ros.baselines.common import BaselineInfo, BaselineSettings, from_opencv
from mdnet_ros.features.extractor import to_gray
from mdnet_ros.features.types import Features

_LICENCE = 'Apache-2.0 (OpenCV); the SIFT patent has expired'
INFOS = {
    name: BaselineInfo(name, title, _LICENCE, 'opencv-python-headless', single_threaded=True)
    for name, title in {
        'sift': 'SIFT, Lowe, IJCV 2004',
        'rootsift': 'RootSIFT, Arandjelovic and Zisserman, CVPR 2012',
        'upright-sift': 'SIFT without orientation',
        'upright-rootsift': 'RootSIFT without orientation',
    }.items()
}
_DIM = 128
#: OpenCV finds extrema in an image doubled with half-pixel centres, then halves coordinates
#: without shifting back: every keypoint lies this many pixels too far right and down.
SIFT_OFFSET = 0.25


class SiftExtractor:
    """OpenCV's SIFT.

    Args:
        max_keypoints: the strongest this many are kept.
        upright: describe along the image's axes instead of the dominant gradient; keypoints
            that only differ in orientation are then one.
        root: L1-normalise and take the square root (Arandjelović and Zisserman, CVPR 2012).
    """

    def __init__(self, name: str, max_keypoints: int, upright: bool, root: bool) -> None:
        self.name = name
        self.max_keypoints = max_keypoints
        self.upright = upright
        self.root = root
        self._sift = cv2.SIFT.create(nfeatures=0 if upright else max_keypoints)

    def __call__(self, image: np.ndarray) -> Features:
        """Extract features; see :class:`mdnet_ros.Extractor`."""
        gray = to_gray(image)
        size = (gray.shape[1], gray.shape[0])
        if self.upright:
            keypoints, descriptors = self._sift.compute(gray, self._detect_upright(gray))
        else:
            keypoints, descriptors = self._sift.detectAndCompute(gray, None)
        if self.root and descriptors is not None:
            total = np.abs(descriptors).sum(axis=1, keepdims=True)
            descriptors = np.sqrt(descriptors / np.maximum(total, 1e-12))
        features = from_opencv(keypoints, descriptors, _DIM, size, self.max_keypoints)
        features.keypoints[:] -= SIFT_OFFSET
        return features

    def _detect_upright(self, gray: np.ndarray) -> list[cv2.KeyPoint]:
        """Detect the strongest keypoints with angle 0, each position and scale once."""
        unique: dict[tuple[Any, float], cv2.KeyPoint] = {}
        for keypoint in self._sift.detect(gray, None):
            unique.setdefault((keypoint.pt, keypoint.size), keypoint)
        best = sorted(unique.values(), key=lambda k: -k.response)[: self.max_keypoints]
        for keypoint in best:
            keypoint.angle = 0.0
        return best


def create(name: str, settings: BaselineSettings, weights: Path | None) -> SiftExtractor:
    """Create the variant that ``name`` says."""
    return SiftExtractor(
        name,
        settings.max_keypoints,
        upright=name.startswith('upright-'),
        root=name.endswith('rootsift'),
    )

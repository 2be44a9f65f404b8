"""RTAB-Map's Python detector (``PyDetector/Path``): MD-Net keypoints and descriptors.

RTAB-Map calls ``init(cuda)`` once, then ``detect(image)`` for each image (its source:
corelib/src/python/PyDetector.cpp). It passes no further settings, so they are environment
variables:

====================== ===================================================================
MDNET_WEIGHTS          name or path of the network, default ``md2net``
MDNET_MAX_KEYPOINTS    default 2048; RTAB-Map's ``Vis/MaxFeatures`` then keeps the best
MDNET_SCORE_THRESHOLD  default 0
MDNET_MAX_SIDE         larger images are shrunk to this longer side first; default 0: never
====================== ===================================================================
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

# RTAB-Map's own interpreter does not search the environment this package is installed in.
sys.path.append(str(Path(__file__).resolve().parents[3]))

if TYPE_CHECKING:
    from mdnet_ros.features.extractor import MDNetExtractor

_extractor: MDNetExtractor | None = None


def init(cuda: int) -> None:
    """Load the network.

    Args:
        cuda: ``PyDetector/Cuda``, 0 or 1; without a CUDA device 1 means the CPU, too.

    Raises:
        MDNetError: weights or settings cannot be used; RTAB-Map logs it.
    """
    global _extractor
    # Imported in the function: torch takes seconds to load, and RTAB-Map may not need it.
    from mdnet_ros.features.extractor import MDNetExtractor

    _extractor = MDNetExtractor(
        os.environ.get('MDNET_WEIGHTS') or None,
        'auto' if cuda else 'cpu',
        int(_number('MDNET_MAX_KEYPOINTS', 2048)),
        score_threshold=_number('MDNET_SCORE_THRESHOLD', 0.0),
        max_side=int(_number('MDNET_MAX_SIDE', 0)),
    )


def detect(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Extract features.

    Args:
        image: (H, W) uint8 gray in RTAB-Map's own memory, valid during the call only.

    Returns:
        (N, 3) float32, x and y in pixels and the score, best first; and (N, D + 8) float32
        descriptors, see :data:`mdnet_ros.integrations.rtabmap.SET_COLUMNS`. Both C-contiguous:
        RTAB-Map reads their memory directly.

    Raises:
        ImageError: the image cannot be used.
        RuntimeError: ``init`` was not called.
    """
    from mdnet_ros.integrations.rtabmap import SET_COLUMNS

    if _extractor is None:
        raise RuntimeError('detect: init(cuda) was not called or failed')
    features = _extractor(np.asarray(image))
    best_first = np.argsort(-features.scores, kind='stable')
    keypoints = np.column_stack([features.keypoints, features.scores])[best_first]
    sets = np.eye(SET_COLUMNS, dtype=np.float32)[features.sets]
    descriptors = np.concatenate([features.descriptors, sets], axis=1)[best_first]
    return (
        np.ascontiguousarray(keypoints, np.float32),
        np.ascontiguousarray(descriptors, np.float32),
    )


def _number(name: str, default: float) -> float:
    """Read a number from an environment variable."""
    from mdnet_ros.errors import SettingError

    text = os.environ.get(name, '')
    try:
        return float(text) if text else default
    except ValueError:
        raise SettingError(f"{name}: expected a number, got '{text}'") from None

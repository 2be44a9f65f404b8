"""RTAB-Map's Python matcher (``PyMatcher/Path``): mutual nearest neighbours inside the sets.

It matches the descriptors of ``mdnet_rtabmap_detector.py`` and no others. RTAB-Map calls
``init`` once, then ``match`` for each pair of images (its source:
corelib/src/python/PyMatcher.cpp).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

# RTAB-Map's own interpreter does not search the environment this package is installed in.
sys.path.append(str(Path(__file__).resolve().parents[3]))

if TYPE_CHECKING:
    from mdnet_ros.features.types import Features

_min_similarity = 0.0


def init(
    descriptor_dim: int, match_threshold: float, iterations: int, cuda: int, model: str
) -> None:
    """Set the matcher up.

    Args:
        descriptor_dim: length of the descriptors.
        match_threshold: ``PyMatcher/Threshold``, the least cosine of two matched descriptors.
        iterations: not used.
        cuda: not used; the products take less time than the copy to a device.
        model: not used.

    Raises:
        SettingError: the descriptors are not the detector's.
    """
    global _min_similarity
    from mdnet_ros.errors import SettingError
    from mdnet_ros.integrations.rtabmap import SET_COLUMNS

    if descriptor_dim <= SET_COLUMNS:
        raise SettingError(
            f'descriptors: expected those of mdnet_rtabmap_detector.py, got length {descriptor_dim}'
        )
    _min_similarity = match_threshold


def match(
    keypoints_from: np.ndarray,
    keypoints_to: np.ndarray,
    scores_from: np.ndarray,
    scores_to: np.ndarray,
    descriptors_from: np.ndarray,
    descriptors_to: np.ndarray,
    image_width: int,
    image_height: int,
) -> np.ndarray:
    """Match two images.

    Args:
        keypoints_from: (N, 2) float32 pixels.
        keypoints_to: (M, 2) float32 pixels.
        scores_from: (N,) float32.
        scores_to: (M,) float32.
        descriptors_from: (N, D + 8) float32.
        descriptors_to: (M, D + 8) float32.
        image_width: pixels.
        image_height: pixels.

    Returns:
        (P, 2) int64, C-contiguous: a row of the first image and its partner in the second.

    Raises:
        SettingError: for descriptors that are not the detector's.
    """
    from mdnet_ros.features.matching import match_mutual_nearest

    size = (image_width, image_height)
    matches = match_mutual_nearest(
        _features(keypoints_from, scores_from, descriptors_from, size),
        _features(keypoints_to, scores_to, descriptors_to, size),
        min_similarity=_min_similarity,
    )
    return np.ascontiguousarray(matches.indices, np.int64)


def _features(
    keypoints: np.ndarray, scores: np.ndarray, descriptors: np.ndarray, size: tuple[int, int]
) -> Features:
    """Build the features of an image; the last columns of the descriptors give the sets."""
    from mdnet_ros.errors import SettingError
    from mdnet_ros.features.types import Features
    from mdnet_ros.integrations.rtabmap import SET_COLUMNS

    columns = descriptors[:, -SET_COLUMNS:]
    sets = columns.argmax(axis=1)
    if not np.array_equal(columns, np.eye(SET_COLUMNS)[sets]):
        raise SettingError('descriptors: expected those of mdnet_rtabmap_detector.py')
    return Features(
        keypoints, scores, sets.astype(np.int32), descriptors[:, :-SET_COLUMNS], size, SET_COLUMNS
    )

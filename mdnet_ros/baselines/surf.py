"""SURF (Bay et al., ECCV 2006) by mahotas; OpenCV's wheels lack it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mdnet_ros.baselines.common import BaselineInfo, BaselineSettings, build_features
from mdnet_ros.errors import MissingDependencyError
from mdnet_ros.features.extractor import to_gray
from mdnet_ros.features.types import Features

INFOS = {
    'surf': BaselineInfo(
        'surf', 'SURF, Bay et al., ECCV 2006', 'MIT (mahotas)', 'mahotas', library='mahotas',
        single_threaded=True,
    )
}
_DIM = 64
#: Hessian threshold, low so that ``max_keypoints`` is the limit.
_THRESHOLD = 0.1
#: The box filters of the largest octave must fit.
_MIN_SIDE = 32


class SurfExtractor:
    """The strongest interest points of mahotas' SURF.

    Raises:
        MissingDependencyError: mahotas is not installed.
    """

    name = 'surf'

    def __init__(self, max_keypoints: int) -> None:
        try:
            from mahotas.features import surf
        except ImportError:
            raise MissingDependencyError('mahotas', 'evaluate', "extractor 'surf'") from None
        self.max_keypoints = max_keypoints
        self._surf: Any = surf

    def __call__(self, image: np.ndarray) -> Features:
        """Extract features; see :class:`mdnet_ros.Extractor`."""
        gray = to_gray(image)
        height, width = gray.shape
        if min(height, width) < _MIN_SIDE:
            return Features.empty((width, height), _DIM)
        # A row: y, x, scale, score, sign of the Laplacian, angle, descriptor.
        rows = self._surf.surf(gray, threshold=_THRESHOLD, max_points=self.max_keypoints)
        rows = rows[np.isfinite(rows).all(axis=1)]
        return build_features(
            rows[:, 1::-1], rows[:, 3], rows[:, 6:], (width, height), self.max_keypoints
        )


def create(name: str, settings: BaselineSettings, weights: Path | None) -> SurfExtractor:
    """Create the extractor."""
    return SurfExtractor(settings.max_keypoints)

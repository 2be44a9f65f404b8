"""Which matches agree with a geometric model of two views."""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np

Verification = Literal['none', 'fundamental', 'homography']
VERIFICATIONS: tuple[str, ...] = get_args(Verification)
#: Below these counts a model says nothing: every match passes.
_MIN_MATCHES = {'fundamental': 8, 'homography': 4}
# More of either finds the same share of inliers on the bags' frames, at twice the time.
_CONFIDENCE, _ITERATIONS = 0.99, 1000


def inlier_mask(
    points_a: np.ndarray, points_b: np.ndarray, verification: Verification, max_error: float
) -> np.ndarray:
    """Fit a model robustly (OpenCV's USAC, MAGSAC++) and mark the matches that agree.

    Args:
        points_a: (M, 2) pixels in one image.
        points_b: (M, 2) pixels in the other.
        verification: which model; ``none`` passes every match.
        max_error: distance up to which a match agrees, pixels.

    Returns:
        (M,) bool. All false if no model can be found, all true with too few matches for one.
    """
    count = len(points_a)
    if verification == 'none' or count < _MIN_MATCHES[verification]:
        return np.ones(count, bool)
    fit = cv2.findFundamentalMat if verification == 'fundamental' else cv2.findHomography
    try:
        _, mask = fit(
            points_a.astype(np.float64), points_b.astype(np.float64),
            cv2.USAC_MAGSAC, max_error, confidence=_CONFIDENCE, maxIters=_ITERATIONS,
        )  # type: ignore[call-overload]
    except cv2.error:
        mask = None
    if mask is None or mask.size != count:
        return np.zeros(count, bool)
    return mask.ravel().astype(bool)

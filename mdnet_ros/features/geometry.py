"""Geometric verification: marks the matches that agree with a model of two views."""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np

Verification = Literal['none', 'fundamental', 'homography']
VERIFICATIONS: tuple[str, ...] = get_args(Verification)
#: How many matches a model needs at least.
MIN_MATCHES: dict[str, int] = {'none': 0, 'fundamental': 8, 'homography': 4}
# Larger values find the same share of inliers on the frames of the bags, and as many of the
# correct matches where 70 per cent are wrong.
_CONFIDENCE, _ITERATIONS = 0.9, 1000
#: Local optimisation of each model that is better than all before: iterations and sample size.
_LOCAL_STEPS, _LOCAL_SAMPLE = 5, 14


def inlier_mask(
    points_a: np.ndarray,
    points_b: np.ndarray,
    verification: Verification,
    max_error: float,
    similarity: np.ndarray | None = None,
) -> np.ndarray:
    """Fit a model robustly (OpenCV's USAC with MSAC scores) and mark the inliers.

    Args:
        points_a: (M, 2) pixels in one image.
        points_b: (M, 2) pixels in the other image.
        verification: the model; with ``none`` every match is an inlier.
        max_error: distance to the model up to which a match is an inlier, pixels.
        similarity: (M,) cosine of the descriptors. Samples are then drawn from the most similar
            matches first (PROSAC, Chum and Matas 2005), which finds a model sooner. None: samples
            are drawn uniformly.

    Returns:
        (M,) bool. All False if no model is found; all True if there are fewer matches than
        :data:`MIN_MATCHES`.
    """
    count = len(points_a)
    if verification == 'none' or count < MIN_MATCHES[verification]:
        return np.ones(count, bool)
    order = np.arange(count)
    sampling = cv2.SAMPLING_UNIFORM
    if similarity is not None:
        order = np.argsort(-similarity, kind='stable')
        sampling = cv2.SAMPLING_PROSAC
    fit = cv2.findFundamentalMat if verification == 'fundamental' else cv2.findHomography
    a, b = points_a[order].astype(np.float64), points_b[order].astype(np.float64)
    try:
        model, found = fit(a, b, _settings(sampling, max_error))  # type: ignore[call-overload]
    except cv2.error:
        # Of one set of matches in some hundred, however good they are, USAC makes a degenerate
        # model on which it fails (OpenCV 4.14: an assertion in usac/estimator.cpp), often for
        # every seed. OpenCV's plain RANSAC does not, but it finds fewer inliers.
        model, found = fit(a, b, cv2.RANSAC, max_error)
    inlier = np.zeros(count, bool)
    # Without a model OpenCV leaves the mask of a fundamental matrix uninitialised.
    if model is not None and found is not None and found.size == count:
        inlier[order] = found.ravel().astype(bool)
    return inlier


def _settings(sampling: int, max_error: float) -> cv2.UsacParams:
    settings = cv2.UsacParams()
    settings.sampler = sampling
    settings.score = cv2.SCORE_METHOD_MSAC
    settings.threshold = max_error
    settings.confidence = _CONFIDENCE
    settings.maxIterations = _ITERATIONS
    settings.loMethod = cv2.LOCAL_OPTIM_INNER_LO
    settings.loIterations = _LOCAL_STEPS
    settings.loSampleSize = _LOCAL_SAMPLE
    settings.randomGeneratorState = 0  # the same result for the same input
    settings.isParallel = False
    return settings

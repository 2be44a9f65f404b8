"""Left-right matches of a stereo pair, checked against its calibration, without ROS.

The ``camera_info`` messages of a calibrated pair hold the rectification: R turns each camera so
that both look in the same direction, and the fourth column of P holds the baseline. In rectified
coordinates a point is displaced along the baseline only, by the disparity: it is in the same row
of both images if the cameras are side by side, in the same column if one is above the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.errors import DataError
from mdnet_ros.features.geometry import Verification, inlier_mask
from mdnet_ros.features.matching import match_mutual_nearest
from mdnet_ros.features.types import Features

#: A shorter baseline means that there is none, metres.
_MIN_BASELINE = 1e-6


@dataclass(frozen=True)
class StereoMatches:
    """Matches between the left and the right image.

    Attributes:
        indices: (M,) int64, row in the left image's features.
        indices_right: (M,) int64, row in the right image's features.
        similarity: (M,) float32, cosine of the two descriptors.
        inlier: (M,) bool, whether the match agrees with the calibration or, without one, with the
            geometric model.
        disparity: (M,) float32, pixels of the rectified images; NaN without calibration.
        depth: (M,) float32, metres along the rectified left camera's axis; infinite where the
            disparity is not above 0, NaN without calibration.
    """

    indices: np.ndarray
    indices_right: np.ndarray
    similarity: np.ndarray
    inlier: np.ndarray
    disparity: np.ndarray
    depth: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class StereoGeometry:
    """Epipolar geometry of a calibrated pair.

    Attributes:
        left: the left camera.
        right: the right camera.
        focal: focal length of the rectified left image, pixels.
        baseline: (2,) float64, from the left to the right camera in the rectified frame's x and
            y, metres.
    """

    left: CameraModel
    right: CameraModel
    focal: float
    baseline: np.ndarray

    @staticmethod
    def of(left: CameraModel, right: CameraModel) -> StereoGeometry:
        """Return the geometry of two cameras that were calibrated together.

        Raises:
            DataError: if their R and P are not those of a stereo pair.
        """
        for side, camera in (('left', left), ('right', right)):
            r = camera.r
            if not camera.has_projection:
                raise DataError(f'camera_info: expected focal lengths above 0 in P of the {side} '
                                'camera; calibrate the cameras as a stereo pair')
            if not np.allclose(r @ r.T, np.eye(3), atol=1e-3) or np.linalg.det(r) < 0:
                raise DataError(f'camera_info: expected a rotation in R of the {side} camera')
        centres = [-c.p[:2, 3] / np.diagonal(c.p)[:2] for c in (left, right)]
        baseline = centres[1] - centres[0]
        if not np.linalg.norm(baseline) > _MIN_BASELINE:
            raise DataError(
                'camera_info: expected the baseline in the fourth column of P of the right '
                'camera; calibrate the cameras as a stereo pair'
            )
        return StereoGeometry(left, right, float(left.p[0, 0]), baseline)

    def measure(
        self, points_left: np.ndarray, points_right: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return how well pairs of pixels agree with the calibration, and their disparities.

        Args:
            points_left: (M, 2) pixels of the left image.
            points_right: (M, 2) pixels of the right image.

        Returns:
            (M,) distance from the epipolar line and (M,) disparity, both in pixels of the
            rectified left image; NaN where the distortion has no inverse.
        """
        shift = self.left.rectify(points_left) - self.right.rectify(points_right)
        x, y = self.baseline / np.linalg.norm(self.baseline)
        error = self.focal * np.abs(shift @ (-y, x))
        return error, self.focal * (shift @ (x, y))


def match_stereo(
    left: Features,
    right: Features,
    geometry: StereoGeometry | None = None,
    *,
    min_similarity: float = 0.0,
    verification: Verification = 'fundamental',
    max_error: float = 2.0,
    exact: bool = False,
) -> StereoMatches:
    """Match the left and the right image by mutual nearest neighbour inside each set.

    With a calibration, a match is an inlier if it lies on its epipolar line and in front of the
    cameras (both within ``max_error``: a point far away has no disparity). Without one, a
    geometric model is fitted to the matches as between two frames.

    Args:
        left: features of the left image.
        right: features of the right image.
        geometry: geometry of the calibrated pair, or None.
        min_similarity: matches with a lower cosine are dropped.
        verification: the geometric model where there is no calibration.
        max_error: distance up to which a match is an inlier, pixels.
        exact: compare descriptors in float32, see
            :func:`~mdnet_ros.features.matching.mutual_nearest`.

    Raises:
        ValueError: if the descriptors differ in length.
    """
    matches = match_mutual_nearest(left, right, min_similarity=min_similarity, exact=exact)
    rows, rows_right = matches.indices.T
    points_left, points_right = left.keypoints[rows], right.keypoints[rows_right]
    if geometry is None:
        inlier = inlier_mask(
            points_left, points_right, verification, max_error, matches.similarity
        )
        disparity = depth = np.full(len(rows), np.nan, np.float32)
    else:
        error, disparity = geometry.measure(points_left, points_right)
        inlier = (error <= max_error) & (disparity >= -max_error)
        reach = geometry.focal * float(np.linalg.norm(geometry.baseline))
        positive = disparity > 0
        depth = np.where(positive, reach / np.where(positive, disparity, 1.0), np.inf)
        depth[np.isnan(disparity)] = np.nan
    return StereoMatches(
        rows, rows_right, matches.similarity, inlier,
        disparity.astype(np.float32), depth.astype(np.float32),
    )

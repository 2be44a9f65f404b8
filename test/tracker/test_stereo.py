"""Left-right matches and what a calibration says of them, against OpenCV."""

import cv2
import numpy as np
import pytest

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.errors import DataError
from mdnet_ros.features.types import Features
from mdnet_ros.tracker.stereo import StereoGeometry, match_stereo

SIZE = (640, 480)
K_LEFT = np.array([[450.0, 0, 322.5], [0, 455.0, 238.0], [0, 0, 1]])
K_RIGHT = np.array([[460.0, 0, 310.0], [0, 458.0, 245.0], [0, 0, 1]])
DISTORTIONS = {
    'plumb_bob': (np.array([-0.28, 0.07, 1e-4, -2e-4, 0.01]),
                  np.array([-0.25, 0.06, -2e-4, 1e-4, 0.0])),
    'rational_polynomial': (np.array([0.2, -0.1, 1e-4, 2e-4, 0.02, 0.25, -0.09, 0.01]),
                            np.array([0.18, -0.1, 1e-4, 1e-4, 0.02, 0.2, -0.08, 0.01])),
    'equidistant': (np.array([0.02, -0.01, 0.003, -0.001]),
                    np.array([0.01, -0.008, 0.002, -0.001])),
}


def rig(model='plumb_bob', baseline=(0.12, 0.0)):
    """(left, right) as a stereo calibration gives them, and the right camera's (R, t)."""
    turn = cv2.Rodrigues(np.array([0.01, -0.03, 0.02]))[0]
    # t is where the left camera's centre lies in the right one.
    t = -turn @ np.array([*baseline, 0.002])
    d = DISTORTIONS[model]
    if model == 'equidistant':
        r1, r2, p1, p2, _ = cv2.fisheye.stereoRectify(
            K_LEFT, d[0], K_RIGHT, d[1], SIZE, turn, t, cv2.CALIB_ZERO_DISPARITY
        )
    else:
        r1, r2, p1, p2, *_ = cv2.stereoRectify(K_LEFT, d[0], K_RIGHT, d[1], SIZE, turn, t)
    return (
        CameraModel(*SIZE, K_LEFT, d[0], model, r1, p1),
        CameraModel(*SIZE, K_RIGHT, d[1], model, r2, p2),
        (turn, t),
    )


def project(points, camera, turn, t):
    """Pixels of points with OpenCV's forward model."""
    rvec = cv2.Rodrigues(turn)[0]
    points = points[:, None]
    if camera.distortion_model == 'equidistant':
        return cv2.fisheye.projectPoints(points, rvec, t[:, None], camera.k, camera.d)[0][:, 0]
    return cv2.projectPoints(points, rvec, t, camera.k, camera.d)[0][:, 0]


def scene(count=60):
    rng = np.random.default_rng(1)
    depth = rng.uniform(1.0, 12.0, count)
    rays = rng.uniform([-0.4, -0.35], [0.4, 0.35], (count, 2))
    return np.concatenate([rays * depth[:, None], depth[:, None]], axis=1)


def features(points, sets=None, seed=3):
    count = len(points)
    descriptors = np.linalg.qr(np.random.default_rng(seed).normal(size=(64, 64)))[0][:count]
    sets = np.zeros(count, np.int32) if sets is None else sets
    return Features(
        points.astype(np.float32), np.ones(count, np.float32), sets,
        descriptors.astype(np.float32), SIZE, 2,
    )


def opencv_rectified(pixels, camera):
    """(N, 2) pixels of the rectified image, from OpenCV's own inverse, iterated to its end."""
    if camera.is_fisheye:
        return cv2.fisheye.undistortPoints(
            pixels[:, None], camera.k, camera.d, None, camera.r, camera.p
        )[:, 0]
    until = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-9)
    return cv2.undistortPointsIter(
        pixels[:, None], camera.k, camera.d, camera.r, camera.p, until
    )[:, 0]


@pytest.mark.parametrize('model', DISTORTIONS)
def test_rectified_rays_are_those_of_opencv(model):
    left, right, _ = rig(model)
    pixels = np.random.default_rng(0).uniform([60, 60], [580, 420], (50, 2))
    for camera in (left, right):
        rectified = opencv_rectified(pixels, camera)
        rays = camera.rectify(pixels)
        f, c = np.diagonal(camera.p)[:2], camera.p[:2, 2]
        np.testing.assert_allclose(rays * f + c, rectified, atol=1e-6)


@pytest.mark.parametrize('model', DISTORTIONS)
@pytest.mark.parametrize('baseline', [(0.12, 0.0), (0.0, 0.2)], ids=['beside', 'above'])
def test_true_pairs_lie_on_their_line_and_tell_their_depth(model, baseline):
    left, right, (turn, t) = rig(model, baseline)
    points = scene()
    geometry = StereoGeometry.of(left, right)
    here, there = project(points, left, np.eye(3), np.zeros(3)), project(points, right, turn, t)
    error, disparity = geometry.measure(here, there)
    assert error.max() < 0.02
    depth = geometry.focal * np.linalg.norm(geometry.baseline) / disparity
    np.testing.assert_allclose(depth, (points @ left.r.T)[:, 2], rtol=1e-3)
    assert np.linalg.norm(geometry.baseline) == pytest.approx(np.linalg.norm(t), rel=1e-6)
    # A pair that is not on its line is as far from it as it was moved.
    across = np.array([0.0, 5.0]) if baseline[0] else np.array([5.0, 0.0])
    off, _ = geometry.measure(here, there + across)
    assert 3.0 < np.median(off) < 7.0


def test_matches_are_checked_by_the_calibration():
    left, right, (turn, t) = rig()
    points = scene(40)
    here, there = project(points, left, np.eye(3), np.zeros(3)), project(points, right, turn, t)
    there[0] += (0, 9)  # beside its line
    there[1] = here[1] + (60, 0)  # behind the cameras: the disparity is negative
    matches = match_stereo(
        features(here), features(there), StereoGeometry.of(left, right), max_error=1.0
    )
    np.testing.assert_array_equal(matches.indices, matches.indices_right)
    assert len(matches) == 40
    assert not matches.inlier[:2].any()
    assert matches.inlier[2:].all()
    assert matches.disparity[1] < 0
    assert np.isinf(matches.depth[1])
    np.testing.assert_allclose(
        matches.depth[2:], (points @ left.r.T)[2:, 2], rtol=5e-3
    )
    np.testing.assert_allclose(matches.similarity, 1, atol=1e-5)


def test_points_far_away_may_have_no_disparity():
    left, right, (turn, t) = rig()
    far = scene(20) * 1e6
    here, there = project(far, left, np.eye(3), np.zeros(3)), project(far, right, turn, t)
    there[::2, 0] += 0.4  # found a little to the side
    matches = match_stereo(
        features(here), features(there), StereoGeometry.of(left, right), max_error=1.0
    )
    assert (matches.disparity[::2] < 0).all()
    assert matches.inlier.all()


def test_sets_are_not_mixed_and_dissimilar_ones_dropped():
    points = scene(10)[:, :2] * 50 + 300
    sets = np.repeat([0, 1], 5).astype(np.int32)
    apart = match_stereo(features(points, sets), features(points, sets))
    np.testing.assert_array_equal(apart.indices, apart.indices_right)
    other = features(points, np.zeros(10, np.int32))
    matches = match_stereo(features(points, sets), other, min_similarity=0.5)
    assert (matches.indices < 5).all()
    assert len(matches) == 5


def test_without_calibration_a_model_of_two_views_marks_outliers():
    left, right, (turn, t) = rig()
    points = scene(60)
    here, there = project(points, left, np.eye(3), np.zeros(3)), project(points, right, turn, t)
    there[:6] += np.random.default_rng(0).uniform(20, 60, (6, 2))
    matches = match_stereo(features(here), features(there), max_error=1.0)
    assert matches.inlier[6:].mean() > 0.95
    assert matches.inlier[:6].mean() < 0.5
    assert np.isnan(matches.disparity).all()
    assert np.isnan(matches.depth).all()
    free = match_stereo(features(here), features(there), verification='none')
    assert free.inlier.all()


def test_no_features_no_matches():
    none = Features.empty(SIZE, 64, 2)
    left, right, _ = rig()
    assert len(match_stereo(none, none, StereoGeometry.of(left, right))) == 0
    assert len(match_stereo(none, features(scene(5)[:, :2]))) == 0


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        (lambda r, p: (r, np.zeros((3, 4))), 'focal lengths above 0 in P of the right'),
        (lambda r, p: (r, p * np.nan), 'focal lengths above 0 in P of the right'),
        (lambda r, p: (r * 0, p), 'a rotation in R of the right'),
        (lambda r, p: (-r, p), 'a rotation in R of the right'),
        (lambda r, p: (r, p * [1, 1, 1, 0]), 'baseline'),
    ],
    ids=['no P', 'NaN', 'no R', 'mirrored', 'no baseline'],
)
def test_what_is_no_stereo_calibration_is_named(change, named):
    left, right, _ = rig()
    r, p = change(right.r, right.p)
    with pytest.raises(DataError, match=named) as raised:
        StereoGeometry.of(left, CameraModel(*SIZE, right.k, right.d, 'plumb_bob', r, p))
    assert '\n' not in str(raised.value)


def test_images_that_are_rectified_already_have_their_own_calibration():
    left, right, (turn, t) = rig()
    points = scene()
    pairs = []
    for camera, pose in ((left, (np.eye(3), np.zeros(3))), (right, (turn, t))):
        pixels = project(points, camera, *pose)
        pairs.append(opencv_rectified(pixels, camera))
    assert np.abs(pairs[0][:, 1] - pairs[1][:, 1]).max() < 1e-4  # the same row
    geometry = StereoGeometry.of(left.of_rectified_images(), right.of_rectified_images())
    error, disparity = geometry.measure(*pairs)
    assert error.max() < 1e-4
    np.testing.assert_allclose(disparity, pairs[0][:, 0] - pairs[1][:, 0], atol=1e-6)
    with pytest.raises(DataError, match='focal lengths'):
        CameraModel(*SIZE, K_LEFT, np.zeros(0)).of_rectified_images()

"""Calibrations as cameras and drivers write them, and rays that are right over the whole image."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mdnet_ros.data.camera import CameraModel, camera_of_info, is_calibrated
from mdnet_ros.data.distortion import LensDistortion
from mdnet_ros.errors import DataError

#: Published calibrations: size, fx, fy, cx, cy, model and coefficients.
LENSES = {
    'EuRoC cam0': (
        (752, 480), (458.654, 457.296, 367.215, 248.375), 'plumb_bob',
        (-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05),
    ),
    'KITTI raw': (
        (1392, 512), (984.2439, 980.8141, 690.0, 233.1966), 'plumb_bob',
        (-0.3728755, 0.2037299, 0.002219027, 0.001383707, -0.07233722),
    ),
    'TUM freiburg1': (
        (640, 480), (517.306408, 516.469215, 318.643040, 255.313989), 'plumb_bob',
        (0.262383, -0.953104, -0.005358, 0.002628, 1.163314),
    ),
    'OAK-D wide, 95 degrees': (
        (1280, 800), (571.70019531, 571.70019531, 635.62854, 400.0), 'rational_polynomial',
        (4.98541975, 1.37784016, -1.5737e-05, 0.000189168, 0.01261237, 5.35630274, 2.90515161,
         0.16195995, 0, 0, 0, 0, 0, 0),
    ),
    'Azure Kinect': (
        (2048, 1536), (975.5, 975.2, 1021.8, 776.0), 'rational_polynomial',
        (0.513059, -2.77779, -0.000323, 0.000703, 1.62693, 0.391017, -2.593868, 1.548565),
    ),
    'TUM VI fisheye': (
        (512, 512), (190.978477, 190.973307, 254.931706, 256.897443), 'equidistant',
        (0.00348238940, 0.00071503485, -0.00205323614, 0.00020293674),
    ),
    'T265 fisheye': (
        (848, 800), (285.646698, 286.684998, 424.574005, 408.199310), 'Kannala Brandt4',
        (-0.00217445590, 0.0376055203, -0.0364043117, 0.00593686197, 0.0),
    ),
}  # fmt: skip


def matrix(fx, fy, cx, cy):
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


def lens(name):
    size, k, model, d = LENSES[name]
    return CameraModel(*size, matrix(*k), np.array(d, np.float64), model)


def grid(width, height):
    """(N, 2) pixels over the whole image, its border included."""
    x, y = np.meshgrid(np.linspace(-0.5, width - 0.5, 61), np.linspace(-0.5, height - 0.5, 41))
    return np.stack([x.ravel(), y.ravel()], axis=1)


def opencv_projection(camera, rays):
    """(N, 2) pixels of (N, 2) rays by OpenCV's formulas alone."""
    project = cv2.fisheye.projectPoints if camera.is_fisheye else cv2.projectPoints
    points = np.column_stack([rays, np.ones(len(rays))])[:, None]
    return project(points, np.zeros(3), np.zeros(3), camera.k, camera.d)[0].reshape(-1, 2)


@pytest.mark.parametrize('name', LENSES)
def test_pixel_to_ray_and_back_over_the_whole_image(name):
    camera = lens(name)
    pixels = grid(camera.width, camera.height)
    rays = camera.normalise(pixels)
    found = np.isfinite(rays).all(axis=1)
    off = np.linalg.norm(opencv_projection(camera, rays[found]) - pixels[found], axis=1)
    assert off.max() <= 0.01
    if camera.is_fisheye:
        # All pixels that look less than 90 degrees away from the axis, and no others.
        k = np.r_[1.0, camera.d]
        edge = sum(c * (np.pi / 2) ** (2 * i + 1) for i, c in enumerate(k))
        plane = (pixels - camera.k[:2, 2]) / np.diagonal(camera.k)[:2]
        np.testing.assert_array_equal(found, np.linalg.norm(plane, axis=1) < edge)
    else:
        assert found.all()


@pytest.mark.parametrize('name', LENSES)
def test_the_ray_is_the_one_the_pixel_came_from(name):
    # Projecting back would not tell a ray from a second one that the polynomial folds onto it.
    camera = lens(name)
    widest = 5.0 if camera.is_fisheye else 0.7
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    rays = np.concatenate([
        radius * np.column_stack([np.cos(angle), np.sin(angle)])
        for radius in np.linspace(0.01, widest, 40)
    ])
    got = camera.normalise(opencv_projection(camera, rays))
    np.testing.assert_allclose(got, rays, atol=1e-4 * (1 + widest))
    projected = camera.project(np.column_stack([rays, np.ones(len(rays))]) * 3.0)
    np.testing.assert_allclose(projected, opencv_projection(camera, rays), atol=1e-9)


def test_a_pixel_beyond_the_end_of_the_distortion_has_no_ray():
    # r - 0.4 r^3 grows up to r = 0.913, where it is 0.609.
    camera = CameraModel(640, 480, matrix(400, 400, 320, 240), np.array([-0.4, 0, 0, 0]))
    radius = np.array([0.1, 0.5, 0.6, 0.62, 0.75])
    pixels = np.column_stack([320 + 400 * radius, np.full(5, 240.0)])
    rays = camera.normalise(pixels)[:, 0]
    assert np.isfinite(rays).tolist() == [True, True, True, False, False]
    assert (rays[:3] < 0.913).all()
    # And a point beyond it is not seen, although the formula gives a pixel in the image.
    assert np.isfinite(opencv_projection(camera, np.array([[1.2, 0.0]]))).all()
    assert np.isnan(camera.project(np.array([[1.2, 0.0, 1.0]]))).all()
    assert np.isnan(camera.project(np.array([[0.1, 0.0, -1.0], [0.1, 0, 0], [np.nan, 0, 1]]))).all()


def test_a_fisheye_that_grows_faster_than_its_angle_is_inverted():
    # OpenCV cuts the radius at pi / 2, so that its own inverse fails here.
    d = np.array([0.3, 0, 0, 0])
    camera = CameraModel(1200, 1200, matrix(300, 300, 600, 600), d, 'fisheye')
    theta = np.radians([10.0, 60, 80, 89])
    pixels = np.column_stack([600 + 300 * (theta + 0.3 * theta**3), np.full(4, 600.0)])
    np.testing.assert_allclose(camera.normalise(pixels)[:, 0], np.tan(theta), rtol=1e-5)


@pytest.mark.parametrize('d', [np.zeros(4), np.zeros(0), np.zeros(5)])
@pytest.mark.parametrize('model', ['equidistant', 'fisheye', 'kannala_brandt', 'KB4'])
def test_a_fisheye_without_coefficients_is_no_pinhole(model, d):
    camera = CameraModel(640, 480, matrix(300, 300, 319.5, 239.5), d, model)
    theta = np.radians([10, 30, 60])
    pixels = np.column_stack([319.5 + 300 * theta, np.full(3, 239.5)])
    np.testing.assert_allclose(camera.normalise(pixels)[:, 0], np.tan(theta), rtol=1e-9)


@pytest.mark.parametrize(
    ('model', 'd', 'expected', 'count'),
    [
        ('equidistant', [-0.00217, 0.0376, -0.0364, 0.00594, 0.0], 'equidistant', 4),  # T265
        ('fisheye', [0.1, 0, 0, 0], 'equidistant', 4),
        ('Kannala-Brandt', [0.1, 0, 0, 0], 'equidistant', 4),
        ('plumb_bob', [0.1, 0, 0, 0, 0.2, 0, 0], 'plumb_bob', 5),
        ('plumb_bob', [0.1, 0, 0, 0, 0, 0.2, 0, 0], 'plumb_bob', 8),  # OpenCV's formula anyway
        ('Plumb Bob', [0.1, 0, 0, 0], 'plumb_bob', 4),
        ('radtan', [0.1, 0, 0, 0], 'plumb_bob', 4),
        ('rational_polynomial', [0.1] * 8 + [0] * 3, 'rational_polynomial', 8),
        ('rational_polynomial', [0.1] * 14, 'rational_polynomial', 14),
        ('', [0.0] * 5, 'plumb_bob', 0),
        ('none', [], 'plumb_bob', 0),
        ('None', [0.0], 'plumb_bob', 0),
        ('Inverse Brown Conrady', [0.0] * 5, 'plumb_bob', 0),  # RealSense
    ],
)
def test_what_drivers_call_the_models(model, d, expected, count):
    camera = CameraModel(640, 480, matrix(300, 300, 320, 240), np.array(d), model)
    assert camera.distortion_model == expected
    assert camera.d.tolist() == list(map(float, d[:count]))


@pytest.mark.parametrize(
    ('model', 'd'),
    [
        ('equidistant', [0.1, 0, 0, 0, 0.2]),
        ('equidistant', [0.1, 0.2]),
        ('plumb_bob', [0.1] * 3),
        ('plumb_bob', [0.1] * 6),
        ('plumb_bob', [1e7, 0, 0, 0]),
        ('plumb_bob', [np.nan, 0, 0, 0]),
        ('', [0.1, 0, 0, 0]),
        ('none', [0.1, 0, 0, 0]),
        ('Inverse Brown Conrady', [0.1, 0, 0, 0, 0]),
        ('unified', []),  # a model that is no pinhole even without coefficients
        ('ftheta', [0.0] * 4),
    ],
)
def test_coefficients_that_do_not_go_with_their_model_are_refused(model, d):
    with pytest.raises(DataError, match='camera_info: ') as error:
        CameraModel(640, 480, matrix(300, 300, 320, 240), np.array(d), model)
    assert '\n' not in str(error.value)


def info(ros1=False, **changes):
    """A camera_info's fields, without ROS; of ROS 1 in capitals."""
    fields = {
        'width': 640, 'height': 480, 'distortion_model': 'plumb_bob', 'd': [0.1, 0, 0, 0, 0],
        'k': [500.0, 0, 320, 0, 500, 240, 0, 0, 1], 'r': [1.0, 0, 0, 0, 1, 0, 0, 0, 1],
        'p': [400.0, 0, 310, -40, 0, 400, 230, 0, 0, 0, 1, 0], 'binning_x': 0, 'binning_y': 0,
        'roi': SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0, do_rectify=False),
        **changes,
    }  # fmt: skip
    if ros1:
        fields = {name.upper() if len(name) == 1 else name: v for name, v in fields.items()}
    return SimpleNamespace(**fields)


def roi(x, y, width, height):
    return SimpleNamespace(
        x_offset=x, y_offset=y, width=width, height=height, do_rectify=False
    )


@pytest.mark.parametrize('ros1', [False, True])
@pytest.mark.parametrize('rectified', [False, True])
@pytest.mark.parametrize(
    ('binning', 'region', 'size'),
    [
        ((2, 2), roi(0, 0, 0, 0), (320, 240)),
        ((1, 1), roi(100, 40, 320, 200), (320, 200)),
        ((4, 2), roi(100, 40, 320, 200), (80, 100)),
        ((2, 0), roi(0, 0, 640, 480), (320, 480)),
        ((0, 0), roi(100, 40, 0, 0), (540, 440)),
    ],
)
def test_binning_and_region_of_interest_are_applied(binning, region, size, rectified, ros1):
    whole = camera_of_info(info(ros1), rectified)
    camera = camera_of_info(
        info(ros1, binning_x=binning[0], binning_y=binning[1], roi=region), rectified
    )
    assert (camera.width, camera.height) == size
    points = np.random.default_rng(0).uniform([-1, -1, 3], [1, 1, 5], (30, 3))
    steps = np.maximum(binning, 1)
    expected = (whole.project(points) - [region.x_offset, region.y_offset]) / steps
    np.testing.assert_allclose(camera.project(points), expected, atol=1e-9)
    rays = points[:, :2] / points[:, 2:]
    np.testing.assert_allclose(camera.normalise(expected), rays, atol=1e-6)
    # The baseline of the pair stays what it is, in metres.
    assert camera.p[0, 3] / camera.p[0, 0] == pytest.approx(-0.1)
    assert camera.for_image(size) is camera


def test_a_calibration_is_fitted_to_the_image_or_refused():
    binned = camera_of_info(info(binning_x=2, binning_y=2, width=641))
    assert binned.for_image((320, 240)).k[0, 0] == 250
    assert binned.for_image((321, 240)).width == 321  # drivers round up, too
    # Announced, but not done.
    assert binned.for_image((641, 480)).k[0, 0] == 500
    with pytest.raises(DataError, match=r'320x240 \(binned or cropped from 641x480\), .*160x'):
        binned.for_image((160, 120))
    with pytest.raises(DataError, match='camera_info is for 640x480, the image is 320x240'):
        camera_of_info(info()).for_image((320, 240))
    unknown = camera_of_info(info(width=0, height=0)).for_image((64, 48))
    assert (unknown.width, unknown.height) == (64, 48)
    with pytest.raises(DataError, match='expected a binning below the image of 640x480'):
        camera_of_info(info(binning_x=2**32 - 1))
    with pytest.raises(DataError, match='region of interest inside 640x480'):
        camera_of_info(info(roi=roi(600, 0, 320, 200)))


@pytest.mark.parametrize('rectified', [False, True])
def test_a_rectified_camera_has_only_p(rectified):
    message = info(k=[0.0] * 9, d=[0.0] * 5)
    assert is_calibrated(message)
    camera = camera_of_info(message, rectified)
    np.testing.assert_allclose(camera.normalise(np.array([[350.0, 230.0]])), [[0.1, 0]])
    assert camera.p[0, 3] == -40
    assert not is_calibrated(info(k=[0.0] * 9, p=[0.0] * 12))


def test_rectified_images_have_the_calibration_of_p():
    message = info(r=[0.0, -1, 0, 1, 0, 0, 0, 0, 1])
    raw, rectified = camera_of_info(message), camera_of_info(message, rectified=True)
    np.testing.assert_array_equal(raw.r[0], [0, -1, 0])
    np.testing.assert_allclose(rectified.normalise(np.array([[350.0, 230.0]])), [[0.1, 0]])
    np.testing.assert_array_equal(rectified.r, np.eye(3))
    # What K, D and R say does not matter for them.
    strange = info(k=[np.nan] * 9, d=[np.inf], distortion_model='magic', r=[0.0] * 9)
    assert camera_of_info(strange, rectified=True).k[0, 0] == 400
    assert camera_of_info(info(p=[0.0] * 12)).k[0, 0] == 500
    for p in ([0.0] * 12, [np.nan] * 12, [*[400.0, 0, 310, np.nan], *[0.0, 400, 230, 0], *[0] * 4]):
        with pytest.raises(DataError, match='above 0 in P'):
            camera_of_info(info(p=p), rectified=True)
        assert camera_of_info(info(p=p)).k[0, 0] == 500  # P is not needed for these


@pytest.mark.parametrize(
    ('change', 'named'),
    [
        ({'k': [0.0] * 9}, 'focal'),
        ({'k': [float('nan')] * 9}, 'finite'),
        ({'k': [1e300] * 9}, 'finite'),
        ({'k': [500.0] * 8}, '9 numbers in k'),
        ({'k': [1.0, 0, 0, 0, 1, 0, 0, 0, 1]}, 'focal lengths of at least'),  # "not calibrated"
        ({'k': [500.0, 0, 0, 0, 500, 0, 320, 240, 1]}, 'fx, skew, cx'),  # column by column
        ({'d': [float('inf')] * 5}, 'finite'),
        ({'distortion_model': 'magic'}, "'magic'"),
    ],
)
def test_a_calibration_that_cannot_be_is_named(change, named):
    with pytest.raises(DataError, match=named):
        camera_of_info(info(**change))


def test_skew_and_a_missing_last_one_are_taken():
    camera = camera_of_info(info(k=[500.0, 4, 320, 0, 480, 240, 0, 0, 0]))
    points = np.array([[0.3, -0.2, 2.0], [-0.4, 0.1, 1.5]])
    plane = LensDistortion('plumb_bob', np.array([0.1, 0, 0, 0])).distort(
        points[:, :2] / points[:, 2:]
    )
    expected = np.column_stack([
        500 * plane[:, 0] + 4 * plane[:, 1] + 320, 480 * plane[:, 1] + 240
    ])
    pixels = camera.project(points)
    np.testing.assert_allclose(pixels, expected)
    np.testing.assert_allclose(camera.normalise(pixels), points[:, :2] / points[:, 2:], atol=1e-6)


def test_a_ray_that_points_backwards_in_the_rectified_camera_is_none():
    turn = cv2.Rodrigues(np.array([0.0, np.radians(100), 0]))[0]
    camera = CameraModel(640, 480, matrix(300, 300, 320, 240), np.zeros(0), r=turn)
    assert np.isnan(camera.rectify(np.array([[320.0, 240]]))).all()
    assert np.isfinite(camera.rectify(np.array([[20.0, 240]]))).all()


def test_points_that_are_nowhere_near_the_image_have_no_ray_and_no_warning(recwarn):
    for name in LENSES:
        pixels = np.array([[np.nan, 1], [np.inf, 0], [1e12, -1e12], [320, 240]])
        rays = lens(name).normalise(pixels)
        assert np.isfinite(rays).all(axis=1).tolist()[:2] == [False, False]
        assert np.isfinite(rays[3]).all()
    assert not recwarn.list


def test_no_points_give_no_rays():
    for name in LENSES:
        assert lens(name).normalise(np.zeros((0, 2))).shape == (0, 2)
        assert lens(name).project(np.zeros((0, 3))).shape == (0, 2)

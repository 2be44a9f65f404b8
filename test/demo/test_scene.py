"""The demo scene: what its depth and poses say is what its images show."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mdnet_ros.demo.flight import camera_pose
from mdnet_ros.demo.lighting import gain
from mdnet_ros.demo.scene import Scene, SceneSettings
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.tracks.position import depth_at, reproject

#: Without blur and noise an image is the scene itself.
CLEAN = SceneSettings(duration_s=1.0, rate_hz=10, width=320, height=240, exposure_s=0.0, noise=0.0)


@pytest.fixture(scope='module')
def scene():
    return Scene(CLEAN)


def grid(settings, step=7, margin=12):
    x, y = np.meshgrid(
        np.arange(margin, settings.width - margin, step),
        np.arange(margin, settings.height - margin, step),
    )
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)


@pytest.mark.parametrize('gap', [1, 4])
def test_points_move_as_depth_and_poses_say(scene, gap):
    """A point carried over by depth and pose finds its own depth and its own gray value."""
    first, second = scene.frame(2), scene.frame(2 + gap)
    points = grid(CLEAN)
    depth = depth_at(first.depth, points)
    assert np.isfinite(depth).all()
    motion = second.pose.inverse() @ first.pose
    moved = reproject(scene.camera, motion, points, depth)
    inside = (
        (moved > 2).all(axis=1) & (moved < np.array([CLEAN.width, CLEAN.height]) - 3).all(axis=1)
    )
    assert inside.mean() > 0.5
    assert np.linalg.norm(moved - points, axis=1).mean() > 2 * gap  # there is something to see
    expected = ((np.c_[scene.camera.normalise(points), np.ones(len(points))] * depth[:, None])
                @ motion.rotation.T + motion.translation)[:, 2]
    found = depth_at(second.depth, moved)
    visible = inside & (np.abs(found / expected - 1) < 0.01)  # the others are hidden
    assert visible.sum() > 0.8 * inside.sum()
    assert np.median(np.abs(found / expected - 1)[visible]) < 1e-5

    def gray(image, where):
        where = where.astype(np.float32)
        return cv2.remap(image, where[:, :1], where[:, 1:], cv2.INTER_LINEAR).ravel().astype(float)

    def difference(shift):
        value = gray(second.image, moved + shift) / gain(0.1 * (2 + gap))
        return np.abs(value - gray(first.image, points) / gain(0.2))[visible].mean()

    exact = difference(np.zeros(2))
    for shift in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        assert exact < 0.75 * difference(np.array(shift))


def test_images_are_where_poses_say_to_a_twentieth_of_a_pixel(scene):
    """Phase correlation of two renderings whose cameras differ by a known small turn."""
    pose = camera_pose(0.3)
    turned = cv2.Rodrigues(np.array([0.0, 2.0 / scene.camera.k[0, 0], 0.0]))[0]  # two pixels
    first, _ = scene._render_sample(pose, (0.0, 0.0), 0.5)
    turned_pose = type(pose)(pose.rotation @ turned, pose.translation)
    second, _ = scene._render_sample(turned_pose, (0, 0), 0.5)
    middle = np.s_[60:180, 80:240]
    (dx, dy), _ = cv2.phaseCorrelate(
        first[middle].astype(np.float64), second[middle].astype(np.float64),
        cv2.createHanningWindow((160, 120), cv2.CV_64F),
    )
    assert dx == pytest.approx(-2.0, abs=0.05)
    assert dy == pytest.approx(0.0, abs=0.05)


def test_the_same_seed_gives_the_same_frames():
    settings = SceneSettings(duration_s=0.2, width=160, height=120, seed=3)
    first, second = list(Scene(settings)), list(Scene(settings))
    assert len(first) == settings.frame_count == 6
    for a, b in zip(first, second, strict=True):
        assert a.stamp_ns == b.stamp_ns
        assert (a.image == b.image).all()
        assert (a.depth == b.depth).all()
    alone = Scene(settings).frame(4)  # whatever was rendered before
    assert (alone.image == first[4].image).all()
    other = Scene(SceneSettings(duration_s=0.2, width=160, height=120, seed=4)).frame(0)
    assert (other.image != first[0].image).mean() > 0.5


def test_the_shutter_blurs_and_the_sensor_is_noisy(scene):
    """Blur takes away fine detail, noise adds some that differs from frame to frame."""

    def detail(settings):
        image = Scene(settings).frame(8).image.astype(float)
        return cv2.Laplacian(image, cv2.CV_64F).var()

    changes = {'duration_s': 1.0, 'rate_hz': 10, 'width': 320, 'height': 240}
    sharp = detail(CLEAN)
    assert detail(SceneSettings(**changes, exposure_s=0.05, noise=0.0)) < 0.7 * sharp
    noisy = Scene(SceneSettings(**changes, exposure_s=0.0, noise=3.0)).frame(8).image.astype(float)
    clean = scene.frame(8).image
    unclipped = (clean > 15) & (clean < 240)
    assert (noisy - clean)[unclipped].std() > 2.5
    assert abs((noisy - clean)[unclipped].mean()) < 0.1


def test_the_flight_has_everything_it_promises():
    times = np.arange(0, 10, 1 / 30)
    poses = [camera_pose(t) for t in times]
    rolls = np.array([np.arctan2(p.rotation[1, 0], p.rotation[1, 1]) for p in poses])
    assert np.ptp(np.degrees(rolls)) > 50  # roll
    places = np.stack([p.translation for p in poses])
    assert np.ptp(places, axis=0).min() > 0.8  # parallax on all axes
    assert np.linalg.norm(np.diff(places, axis=0), axis=1).min() > 0.005
    gains = np.array([gain(t) for t in times])
    assert gains.max() / gains.min() > 2
    assert np.abs(np.diff(gains)).max() > 0.25  # the step


@pytest.mark.filterwarnings('error')
def test_every_pixel_has_a_depth_on_a_whole_lap():
    """Nothing is flown through, and the sides of the hall have no seams, at the ends too."""
    settings = SceneSettings(
        duration_s=75.0, rate_hz=30, width=160, height=120, exposure_s=0.0, noise=0.0
    )
    scene = Scene(settings)
    for index in [*range(0, settings.frame_count, 45), 780]:
        depth = scene.frame(index).depth
        assert np.isfinite(depth).all(), index
        assert 0.5 < depth.min() < depth.max() < 50, index


def test_the_course_is_smooth_and_comes_back():
    times = np.arange(0, 150, 0.05)
    poses = [camera_pose(t) for t in times]
    places = np.stack([p.translation for p in poses])
    speeds = np.linalg.norm(np.diff(places, axis=0), axis=1) / 0.05
    assert 0.2 < speeds.min() < speeds.max() < 3.5
    turns = [
        np.linalg.norm(cv2.Rodrigues(a.rotation.T @ b.rotation)[0]) / 0.05
        for a, b in zip(poses, poses[1:], strict=False)
    ]
    assert np.degrees(max(turns)) < 150  # degrees per second
    forward = np.array([p.rotation[2, 2] for p in poses])
    assert (forward < -0.9).any()  # it has turned round
    assert (forward[times > 75] > 0.9).any()  # twice
    assert places[:, 2].max() < 29
    assert places[:, 2].min() > -5


def test_speed_and_light_are_settings():
    changes = {'duration_s': 1.0, 'rate_hz': 10, 'width': 64, 'height': 48}
    slow, fast = Scene(SceneSettings(**changes)), Scene(SceneSettings(**changes, speed=2.0))
    np.testing.assert_array_equal(fast.poses().translations[4], slow.poses().translations[8])
    frame = fast.frame(4)
    np.testing.assert_array_equal(frame.pose.translation, slow.poses().translations[8])
    steady = Scene(SceneSettings(**changes, noise=0.0, steady_light=True)).frame(9).image
    changing = Scene(SceneSettings(**changes, noise=0.0)).frame(9).image
    dark = (steady > 20) & (steady < 180)
    ratio = changing[dark].astype(float) / steady[dark]
    assert np.median(ratio) == pytest.approx(gain(0.9), abs=0.02)
    assert gain(26.0) < 0.7 * gain(25.9)  # the step comes again


def test_long_blur_has_no_gaps():
    """A fast turn with an open shutter: the image has no echoes of single sub-frame samples."""
    settings = SceneSettings(speed=2.0, exposure_s=0.03)
    scene = Scene(settings)
    counts = [scene._sample_count(t) for t in np.arange(0, 40, 0.5)]
    assert {count % 10 for count in counts} == {5}
    assert max(counts) > 5


def test_wrong_settings_are_named():
    with pytest.raises(DataError, match='above 0'):
        SceneSettings(duration_s=0)
    with pytest.raises(DataError, match='above 0'):
        SceneSettings(duration_s=float('nan'))
    with pytest.raises(DataError, match='above 0'):
        SceneSettings(duration_s=float('inf'))
    with pytest.raises(DataError, match='16x16'):
        SceneSettings(width=8)
    with pytest.raises(DataError, match='speed above 0'):
        SceneSettings(speed=0)
    with pytest.raises(DataError, match='exposure from 0 to'):
        SceneSettings(exposure_s=0.1)

"""Tracks in the form VINS-Mono and VINS-Fusion read."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.features.tracking import FrameTracker
from mdnet_ros.features.types import Features
from mdnet_ros.tracker.vins import ID_RANGE, VinsTracker

K = np.array([[450.0, 0, 322.5], [0, 455.0, 238.0], [0, 0, 1]])
DT_NS = 33_333_333
PLUMB_BOB = CameraModel(640, 480, K, np.array([-0.28, 0.07, 1e-4, -2e-4, 0.01]), 'plumb_bob')
RATIONAL = CameraModel(
    640, 480, K, np.array([0.2, -0.1, 1e-4, 2e-4, 0.02, 0.25, -0.09, 0.01]),
    'rational_polynomial',
)
FISHEYE = CameraModel(640, 480, K, np.array([0.02, -0.01, 0.003, -0.001]), 'equidistant')


def pixels(camera, rays):
    """Project normalised coordinates with OpenCV's own forward model."""
    if not len(rays):
        return rays
    points = np.concatenate([rays, np.ones((len(rays), 1))], axis=1)[:, None]
    zero = np.zeros(3)
    project = (
        cv2.fisheye.projectPoints if camera.distortion_model == 'equidistant'
        else cv2.projectPoints
    )
    return project(points, zero, zero, camera.k, camera.d)[0].reshape(-1, 2)


class World:
    """Points with distinct descriptors that move linearly in the normalised plane."""

    def __init__(self, camera=PLUMB_BOB, count=40, seed=0):
        rng = np.random.default_rng(seed)
        self.camera = camera
        self.start = rng.uniform([-0.5, -0.4], [0.5, 0.4], (count, 2))
        self.velocity = rng.uniform(-0.3, 0.3, (count, 2))
        self.descriptors = np.linalg.qr(rng.normal(size=(64, 64)))[0][:count].astype(np.float32)
        self.tracker = FrameTracker(verification='none', max_gap=2, min_similarity=0.9)

    def frame(self, index, seen=None):
        seen = np.arange(len(self.start)) if seen is None else np.asarray(seen, int)
        stamp = 10**18 + index * DT_NS
        rays = self.start[seen] + self.velocity[seen] * (index * DT_NS * 1e-9)
        features = Features(
            pixels(self.camera, rays).astype(np.float32),
            np.ones(len(seen), np.float32),
            np.zeros(len(seen), np.int32),
            self.descriptors[seen],
            (640, 480),
        )
        return self.tracker.update(features, stamp), rays


class Estimator:
    """What VINS does with a feature message: observations of an id are consecutive frames."""

    def __init__(self):
        self.observations = {}
        self.frames = 0

    def take(self, tracks, layout):
        points, channels = tracks.points(), [values for _, values in tracks.channels(layout)]
        assert {c.dtype for c in channels} == {np.dtype(np.float32)}
        if layout == 'mono':
            assert len(channels) == 5
            ids, u, v, vx, vy = channels
        else:
            assert len(channels) == 9
            ids, camera, u, v, vx, vy = channels[:6]
            assert not camera.any()
        assert (points[:, 2] == 1).all()
        ids = (ids.astype(np.float64) + 0.5).astype(int)  # as C++ computes it, in double
        assert len(set(ids)) == len(ids)
        for track_id in ids:
            seen = self.observations.setdefault(track_id, [])
            assert not seen or seen[-1] == self.frames - 1, 'an id came back after a gap'
            seen.append(self.frames)
        self.frames += 1
        return ids, points[:, :2], np.stack([u, v], 1), np.stack([vx, vy], 1)


@pytest.mark.parametrize('layout', ['mono', 'fusion'])
@pytest.mark.parametrize('camera', [PLUMB_BOB, RATIONAL, FISHEYE], ids=lambda c: c.distortion_model)
def test_positions_and_velocities_are_those_of_the_world(camera, layout):
    world, vins, estimator = World(camera), VinsTracker(), Estimator()
    frame, _ = world.frame(0)
    assert vins.update(frame, camera) is None
    for index in (1, 2, 3):
        frame, rays = world.frame(index)
        ids, normalised, uv, velocity = estimator.take(vins.update(frame, camera), layout)
        np.testing.assert_array_equal(ids, frame.track_ids)
        np.testing.assert_allclose(normalised, rays, atol=2e-5)
        np.testing.assert_allclose(uv, pixels(camera, rays), atol=1e-3)
        np.testing.assert_allclose(velocity, world.velocity, atol=2e-3)


def test_tracks_whose_pixels_have_no_ray_are_left_out_and_counted():
    # r - 0.6 r^3 ends at 0.497, so that the pixels farther out than that have no ray.
    calibration = CameraModel(640, 480, K, np.array([-0.6, 0, 0, 0]))
    world, vins = World(), VinsTracker()  # the images come from another lens
    vins.update(world.frame(0)[0], calibration)
    frame, _ = world.frame(1)
    tracks = vins.update(frame, calibration)
    known = np.isfinite(calibration.normalise(frame.features.keypoints)).all(axis=1)
    assert 0 < len(tracks) < len(frame.features)
    assert len(tracks) + tracks.without_ray == len(frame.correspondences)
    assert set(tracks.ids) <= set(frame.track_ids[known])
    assert np.isfinite(tracks.points()).all()
    assert np.isfinite(tracks.velocity).all()


def test_only_tracks_seen_before_are_given():
    world, vins = World(), VinsTracker()
    vins.update(world.frame(0, range(10))[0], world.camera)
    frame, _ = world.frame(1, range(5, 30))
    assert len(vins.update(frame, world.camera)) == 5


def test_an_interrupted_track_goes_on_under_a_new_id():
    world, vins, estimator = World(), VinsTracker(), Estimator()
    everything = np.arange(40)
    for index in range(12):
        seen = np.delete(everything, [3, 4]) if index in (4, 8) else everything
        frame, rays = world.frame(index, seen)
        tracks = vins.update(frame, world.camera)
        if index:
            ids, normalised, _, velocity = estimator.take(tracks, 'mono')
            assert len(ids) == len(seen)
            # The velocity over the gap is that of the gap's length.
            np.testing.assert_allclose(velocity, world.velocity[seen], atol=2e-3)
    assert len(estimator.observations) == 40 + 2 * 2
    assert max(estimator.observations) < ID_RANGE
    assert len(set(frame.track_ids)) == 40
    assert frame.track_ids.max() == 39  # while the tracker itself never lost them


def test_outliers_are_left_out():
    world, vins = World(), VinsTracker()
    vins.update(world.frame(0)[0], world.camera)
    frame, _ = world.frame(1)
    frame.correspondences.inlier[::2] = False
    assert len(vins.update(frame, world.camera)) == 20


def test_restart_skips_a_frame_and_lets_no_id_go_on():
    world, vins = World(), VinsTracker()
    vins.update(world.frame(0)[0], world.camera)
    before = vins.update(world.frame(1)[0], world.camera).ids
    vins.restart()
    assert vins.update(world.frame(2)[0], world.camera) is None
    after = vins.update(world.frame(3)[0], world.camera).ids
    assert not set(before) & set(after)


def test_ids_stay_exact_beyond_what_float32_holds():
    world, vins = World(), VinsTracker()
    world.tracker._next_id = ID_RANGE - 20
    vins.update(world.frame(0)[0], world.camera)
    ids = vins.update(world.frame(1)[0], world.camera)
    values = dict(ids.channels('mono'))['id_of_point']
    assert len(set(values.tolist())) == 40
    np.testing.assert_array_equal(values.astype(np.int64), ids.ids)


def test_empty_frames_and_repeated_stamps_give_no_tracks():
    world, vins = World(), VinsTracker()
    vins.update(world.frame(0)[0], world.camera)
    assert len(vins.update(world.frame(1, [])[0], world.camera)) == 0
    vins.update(world.frame(2)[0], world.camera)
    assert len(vins.update(world.frame(2)[0], world.camera)) == 0
    with pytest.raises(ValueError, match='mono or fusion'):
        vins.update(world.frame(3)[0], world.camera).channels('none')


def test_tracks_that_could_not_be_refined_are_published():
    world, vins = World(), VinsTracker()
    vins.update(world.frame(0)[0], world.camera)
    first = vins.update(replace(world.frame(1)[0], refined=np.ones(40, bool)), world.camera)
    second = vins.update(replace(world.frame(2)[0], refined=np.zeros(40, bool)), world.camera)
    assert sorted(second.ids) == sorted(first.ids)


def test_refined_tracks_begin_and_published_ones_go_on():
    """Both come before older tracks of the same cell; here the image is one cell."""
    world, vins = World(), VinsTracker()
    world.frame(0, np.delete(np.arange(40), 23))
    vins.update(world.frame(1)[0], world.camera)  # track 23 is the youngest
    frame, _ = world.frame(2)
    chosen = vins.update(replace(frame, refined=np.arange(40) == 23), world.camera, 1)
    assert chosen.indices.tolist() == [23]
    frame, _ = world.frame(3)
    again = vins.update(replace(frame, refined=np.zeros(40, bool)), world.camera, 1)
    assert again.indices.tolist() == [23]
    assert again.ids.tolist() == chosen.ids.tolist()


@pytest.mark.parametrize('max_tracks', [5, 15])
def test_a_budget_keeps_the_ids_of_old_tracks(max_tracks):
    """Never more than asked; a track keeps its id for as long as it stays published."""
    world, vins, estimator = World(), VinsTracker(), Estimator()
    kept = []
    for index in range(8):
        frame, _ = world.frame(index, range(20) if index < 4 else range(40))
        tracks = vins.update(frame, world.camera, max_tracks)
        if tracks is None:
            continue
        estimator.take(tracks, 'mono')
        assert len(tracks) == max_tracks
        kept.append(set(tracks.ids.tolist()))
        if index >= 5:  # the younger half never takes the place of an older one in its cell
            assert frame.ages[tracks.indices].max() == index
    assert len(kept[-1] & kept[0]) >= max_tracks // 3

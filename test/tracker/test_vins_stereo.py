"""Both cameras' observations as VINS-Fusion reads them."""

import numpy as np
import pytest

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.features.tracking import FrameTracker
from mdnet_ros.features.types import Features
from mdnet_ros.tracker.stereo import StereoGeometry, match_stereo
from mdnet_ros.tracker.vins import StereoVinsTracker, VinsTracker

FOCAL, BASELINE, DT_NS = 400.0, 0.2, 50_000_000
K = np.array([[FOCAL, 0, 320], [0, FOCAL, 240], [0, 0, 1]])
P = np.hstack([K, [[0], [0], [0]]])
P_RIGHT = P + [[0, 0, 0, -FOCAL * BASELINE], [0] * 4, [0] * 4]
BENT = np.array([-0.1, 0.02, 0, 0, 0])
LEFT = CameraModel(640, 480, K, BENT, 'plumb_bob', p=P)
RIGHT = CameraModel(640, 480, K, BENT, 'plumb_bob', p=P_RIGHT)
GEOMETRY = StereoGeometry.of(LEFT, RIGHT)


class World:
    """Points that move in front of a stereo pair; the left camera is the origin."""

    def __init__(self, count=30):
        rng = np.random.default_rng(5)
        self.points = np.concatenate(
            [rng.uniform(-1, 1, (count, 2)), rng.uniform(4, 9, (count, 1))], axis=1
        )
        self.velocity = rng.uniform(-0.5, 0.5, (count, 3))
        self.descriptors = np.linalg.qr(rng.normal(size=(64, 64)))[0][:count].astype(np.float32)
        self.trackers = FrameTracker(verification='none'), FrameTracker(verification='none')
        self.vins, self.right_vins = VinsTracker(), StereoVinsTracker()

    def rays(self, index):
        """(N, 2) of the left and of the right camera."""
        points = self.points + self.velocity * (index * DT_NS * 1e-9)
        shifted = points - [BASELINE, 0, 0]
        return [p[:, :2] / p[:, 2:] for p in (points, shifted)]

    def see(self, index, right=None, off=()):
        """What is published of a frame, left and right; ``off`` are beside their line."""
        stamp, frames = 10**18 + index * DT_NS, []
        for tracker, rays in zip(self.trackers, self.rays(index), strict=True):
            second = tracker is self.trackers[1]
            seen = np.arange(len(rays)) if right is None or not second else np.asarray(right, int)
            r2 = (rays**2).sum(1, keepdims=True)
            pixels = rays * (1 + BENT[0] * r2 + BENT[1] * r2**2) * FOCAL + [320, 240]
            if second:
                pixels[list(off), 1] += 20
            frames.append(tracker.update(Features(
                pixels[seen].astype(np.float32), np.ones(len(seen), np.float32),
                np.zeros(len(seen), np.int32), self.descriptors[seen], (640, 480),
            ), stamp))
        left = self.vins.update(frames[0], LEFT)
        matches = match_stereo(frames[0].features, frames[1].features, GEOMETRY, min_similarity=0.9)
        if left is None:
            return None, None
        return left, self.right_vins.update(left, frames[1], matches, RIGHT)


def test_the_right_camera_has_the_ids_of_the_left_one():
    world = World()
    assert world.see(0) == (None, None)
    for index in range(1, 4):
        left, right = world.see(index)
        assert len(left) == len(right) == 30
        rays_left, rays_right = world.rays(index)
        np.testing.assert_allclose(left.normalised, rays_left[left.ids], atol=1e-5)
        np.testing.assert_allclose(right.normalised, rays_right[right.ids], atol=1e-5)
        before = world.rays(index - 1)[1]
        expected = (rays_right - before)[right.ids] / (DT_NS * 1e-9) if index > 1 else 0
        np.testing.assert_allclose(right.velocity, np.zeros((30, 2)) + expected, atol=1e-3)


def test_what_the_right_camera_does_not_see_or_sees_elsewhere_is_left_out():
    world = World()
    world.see(0)
    world.see(1)
    left, right = world.see(2, right=range(4, 30), off=[10, 11])
    assert len(left) == 30
    assert sorted(right.ids) == [*range(4, 10), *range(12, 30)]
    left, right = world.see(3)
    # Without an observation in the message before there is no velocity.
    assert not right.velocity[np.isin(right.ids, [0, 1, 2, 3, 10, 11])].any()
    assert right.velocity[np.isin(right.ids, range(12, 30))].any(axis=1).all()
    left, right = world.see(4, right=[])
    assert len(left) == 30
    assert len(right) == 0


def read_as_vins_fusion(left, right):
    """Id -> observations in their order, as an estimator collects them by the channels."""
    observations = {}
    for side, tracks in ((0, left), (1, right)):
        channels = tracks.channels('fusion', side)
        for row, point in enumerate(tracks.points()):
            values = [float(column[row]) for _, column in channels]
            assert point[2] == 1
            observations.setdefault(int(values[0]), []).append((int(values[1]), values[2:6]))
    return observations


@pytest.mark.parametrize('right', [range(30), range(0, 30, 2), []], ids=['all', 'half', 'none'])
def test_a_reader_finds_camera_0_first_and_camera_1_only_beside_it(right):
    world = World()
    world.see(0)
    got = read_as_vins_fusion(*world.see(1, right=right))
    assert len(got) == 30
    assert [len(seen) for seen in got.values()].count(2) == len(right)
    for seen in got.values():
        assert [camera for camera, _ in seen] == [0, 1][: len(seen)]
        if len(seen) == 2:
            (_, (u, v, *_)), (_, (u_right, v_right, *_)) = seen
            assert u > u_right
            assert abs(v - v_right) < 2

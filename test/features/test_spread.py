"""A choice of points that covers the image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdnet_ros.features.spread import spread_evenly

SIZE = (640, 480)


@pytest.mark.parametrize('count', [150, 300, 500])
def test_crowded_points_are_thinned_and_lonely_ones_kept(count):
    rng = np.random.default_rng(0)
    crowd = rng.uniform((0, 0), (160, 120), (1500, 2))  # a sixteenth of the image
    lonely = rng.uniform((160, 120), (639, 479), (100, 2))
    points = np.concatenate([crowd, lonely])
    chosen = spread_evenly(points, np.zeros(len(points), int), count, SIZE)
    assert len(chosen) == count
    assert (np.diff(chosen) > 0).all()
    # All cells with a point keep one: more of the lonely ones than their share.
    side = np.sqrt(640 * 480 / count)

    def cells(some):
        return set(map(tuple, np.floor((some + 0.5) / side).astype(int).tolist()))

    assert cells(points[chosen]) == cells(points)
    assert (chosen >= 1500).mean() > 4 * 100 / 1600 or count == 500


def test_old_tracks_come_first():
    points = np.array([[10, 10], [12, 10], [11, 12], [400, 300], [402, 300]], float)
    ages = np.array([3, 9, 9, 1, 2])
    assert spread_evenly(points, ages, 2, SIZE).tolist() == [1, 4]
    assert spread_evenly(points, ages, 3, SIZE).tolist() == [1, 2, 4]
    assert spread_evenly(points, ages, 9, SIZE).tolist() == [0, 1, 2, 3, 4]
    assert spread_evenly(points, ages, 0, SIZE).tolist() == []


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 200), st.integers(1, 250), st.integers(0, 2**32 - 1))
def test_any_input_gives_as_many_as_asked_and_the_same_again(total, count, seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform((-0.5, -0.5), (639.5, 479.5), (total, 2)).astype(np.float32)
    ages = rng.integers(0, 5, total)
    chosen = spread_evenly(points, ages, count, SIZE)
    assert len(np.unique(chosen)) == len(chosen) == min(count, total)
    np.testing.assert_array_equal(chosen, spread_evenly(points, ages, count, SIZE))

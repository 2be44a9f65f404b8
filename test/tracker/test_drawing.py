"""Tracks drawn on images."""

import numpy as np
import pytest

from mdnet_ros.errors import ImageError
from mdnet_ros.features.types import Correspondences, Features, TrackedFrame
from mdnet_ros.tracker.drawing import TrackDrawer, draw_tracks, keypoint_colours


def tracked(points, ids, ages=None, sets=None, previous=None, inlier=None):
    """A frame of a 100x80 image; ``previous`` is where every point was."""
    n = len(points)
    links = np.arange(n if previous is not None else 0)
    return TrackedFrame(
        Features(
            np.array(points, np.float32).reshape(n, 2),
            np.ones(n, np.float32),
            np.array(sets if sets is not None else [0] * n, np.int32),
            np.zeros((n, 8), np.float32),
            (100, 80),
            2,
        ),
        np.array(ids, np.int64),
        np.array(ages if ages is not None else [0] * n, np.int32),
        Correspondences(
            links, links,
            np.array(previous if previous is not None else [], np.float32).reshape(-1, 2),
            np.zeros(len(links), np.int64),
            np.ones(len(links), np.float32),
            np.array(inlier if inlier is not None else [True] * len(links), bool),
        ),
        0,
    )


def test_dots_lie_on_the_keypoints_and_nowhere_else():
    image = np.full((80, 100, 3), 7, np.uint8)
    drawn = draw_tracks(image, tracked([(20, 30), (70, 50)], [0, 1]))
    assert (image == 7).all()
    changed = np.argwhere((drawn != 7).any(axis=2))
    assert {tuple(p) for p in changed} >= {(30, 20), (50, 70)}
    distance = np.linalg.norm(changed[:, None] - np.array([(30, 20), (50, 70)]), axis=2).min(1)
    assert distance.max() <= 3


def test_one_step_back_is_drawn_from_correspondences():
    drawn = draw_tracks(
        np.zeros((80, 100), np.uint8), tracked([(60, 40)], [0], [1], previous=[(20, 40)])
    )
    assert drawn.shape == (80, 100, 3)
    assert drawn[40, 20:60].any(axis=1).all()
    assert not drawn[:, :15].any()


def test_trails_bridge_a_missed_frame_and_end_after_their_length():
    drawer = TrackDrawer(length=3)
    image = np.zeros((80, 100), np.uint8)
    drawer(image, tracked([(10, 20)], [5]))
    drawer(image, tracked([(90, 70)], [6]))  # track 5 is missing here
    drawn = drawer(image, tracked([(50, 20)], [5], [1]))
    assert drawn[20, 10:50].any(axis=1).all()
    for x in (55, 60, 65):
        drawn = drawer(image, tracked([(x, 20)], [5], [2]))
    assert not drawn[20, :45].any()
    drawer.reset()
    assert not drawer(image, tracked([(70, 20)], [5], [3]))[20, :65].any()


def test_false_steps_are_no_part_of_a_trail():
    image = np.zeros((80, 100), np.uint8)
    for colour_by, shown in (('age', False), ('inlier', True)):
        drawer = TrackDrawer(length=3, colour_by=colour_by)
        drawer(image, tracked([(10, 20)], [5]))
        wrong = tracked([(50, 20)], [5], [1], previous=[(10, 20)], inlier=[False])
        assert drawer(image, wrong)[20, 20:40].any() == shown
        right = tracked([(60, 20)], [5], [2], previous=[(50, 20)])
        drawn = drawer(image, right)
        assert drawn[20, 50:60].any(axis=1).all()
        assert not drawn[20, 20:40].any()


def test_colours_tell_age_set_and_inlier_apart():
    frame = tracked(
        [(1, 1), (2, 2), (3, 3)], [0, 1, 2], ages=[0, 5, 500], sets=[0, 1, 1],
        previous=[(0, 0)] * 3, inlier=[True, False, True],
    )
    by_age = keypoint_colours(frame, 'age')
    assert len(np.unique(by_age, axis=0)) == 3
    assert by_age[0, 0] > by_age[0, 2]  # new: more blue than red
    assert by_age[2, 2] > by_age[2, 0]
    by_set = keypoint_colours(frame, 'set')
    assert (by_set[1] == by_set[2]).all()
    assert (by_set[0] != by_set[1]).any()
    by_inlier = keypoint_colours(frame, 'inlier')
    assert (by_inlier[0] == by_inlier[2]).all()
    assert (by_inlier[0] != by_inlier[1]).any()


def test_no_keypoints_leave_the_image_as_it_is():
    image = np.arange(80 * 100 * 3, dtype=np.uint32).astype(np.uint8).reshape(80, 100, 3)
    assert (TrackDrawer()(image, tracked([], [])) == image).all()


def test_wrong_images_and_colourings_are_refused():
    frame = tracked([(1, 1)], [0])
    with pytest.raises(ImageError, match='uint8'):
        draw_tracks(np.zeros((80, 100), np.float32), frame)
    with pytest.raises(ImageError, match='expected'):
        draw_tracks(np.zeros((80, 100, 4), np.uint8), frame)
    with pytest.raises(ValueError, match='age, set, inlier'):
        draw_tracks(np.zeros((80, 100), np.uint8), frame, colour_by='size')  # type: ignore[arg-type]

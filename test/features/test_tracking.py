"""Identity over time, on features made by hand and on warped photographs."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st

from mdnet_ros import Features, FrameTracker, MDNetExtractor, TrackedFrame
from mdnet_ros.errors import SettingError
from mdnet_ros.features.tracking import TrackingSettings

DIM = 16
#: Descriptors of a hundred landmarks; no two resemble each other by more than 0.9.
LANDMARKS = np.random.default_rng(0).normal(size=(100, DIM))
LANDMARKS = (LANDMARKS / np.linalg.norm(LANDMARKS, axis=1, keepdims=True)).astype(np.float32)
PLACES = np.random.default_rng(1).uniform([50, 50], [590, 430], (100, 2)).astype(np.float32)


def frame(seen: list[int] | range, shift: float = 0.0, size: tuple[int, int] = (640, 480),
          num_sets: int = 1) -> Features:
    """What a camera sees of the landmarks, grouped by set."""
    order = sorted(seen, key=lambda i: (i % num_sets, i))
    count = len(order)
    return Features(
        PLACES[order] + np.float32(shift), np.ones(count, np.float32),
        np.array([i % num_sets for i in order], np.int32),
        LANDMARKS[order], size, num_sets,
    )


def ids(tracked: TrackedFrame, num_sets: int = 1) -> dict[int, int]:
    """Landmark -> track id; the landmark is known by its descriptor."""
    landmark = (tracked.features.descriptors @ LANDMARKS.T).argmax(axis=1)
    return dict(zip(landmark.tolist(), tracked.track_ids.tolist(), strict=True))


def tracker(**changes: object) -> FrameTracker:
    """One that takes only certain matches, so that the tests know what must happen."""
    return FrameTracker(**{'min_similarity': 0.95, 'verification': 'none', **changes})


def test_first_frame() -> None:
    first = tracker().update(frame(range(5)), stamp_ns=123)
    assert first.track_ids.tolist() == [0, 1, 2, 3, 4]
    assert first.ages.tolist() == [0] * 5
    assert len(first.correspondences) == 0
    assert first.stamp_ns == 123


def test_ids_persist_and_ages_grow() -> None:
    t = tracker()
    start = ids(t.update(frame(range(10)), 1))
    for step in range(1, 6):
        seen = list(np.random.default_rng(step).permutation(10))
        tracked = t.update(frame(seen, shift=step), step + 1)
        assert ids(tracked) == start
        assert tracked.ages.tolist() == [step] * 10


def test_links_point_at_the_previous_row_place_and_stamp() -> None:
    t = tracker()
    before = t.update(frame([3, 1, 2]), 10)
    now = t.update(frame([2, 5, 3], shift=4), 20)
    links = now.correspondences
    assert len(links) == 2
    for row, row_prev, place, stamp, cosine in zip(
        links.indices, links.indices_prev, links.keypoints_prev, links.stamps_prev,
        links.similarity, strict=True,
    ):
        assert now.track_ids[row] == before.track_ids[row_prev]
        np.testing.assert_array_equal(place, before.features.keypoints[row_prev])
        np.testing.assert_allclose(now.features.keypoints[row] - place, 4, atol=1e-4)
        assert stamp == 10
        assert cosine == pytest.approx(1.0, abs=1e-5)
    assert links.inlier.all()


def test_new_landmarks_get_new_ids() -> None:
    t = tracker()
    t.update(frame(range(5)), 1)
    tracked = t.update(frame(range(3, 8)), 2)
    assert ids(tracked) == {3: 3, 4: 4, 5: 5, 6: 6, 7: 7}
    assert tracked.ages.tolist() == [1, 1, 0, 0, 0]


@pytest.mark.parametrize('max_gap', [0, 1, 2, 4])
@pytest.mark.parametrize('missing', [1, 2, 3, 5])
def test_a_track_survives_as_long_a_gap_as_asked(max_gap: int, missing: int) -> None:
    t = tracker(max_gap=max_gap)
    t.update(frame(range(10)), 100)
    for step in range(missing):
        t.update(frame(range(5)), 101 + step)
    back = t.update(frame(range(10)), 200)
    survived = missing <= max_gap
    assert all(ids(back)[i] == i for i in range(5))
    assert all((ids(back)[i] == i) == survived for i in range(5, 10))
    links = back.correspondences
    assert len(links) == (10 if survived else 5)
    if survived:  # linked to where and when they were last seen
        old = links.stamps_prev == 100
        assert old.sum() == 5
        assert sorted(back.track_ids[links.indices[old]]) == [5, 6, 7, 8, 9]
        np.testing.assert_array_equal(
            links.keypoints_prev[old], back.features.keypoints[links.indices[old]]
        )
        assert set(back.ages.tolist()) == {1, missing + 1}


def test_a_frame_the_tracker_never_saw_costs_no_id() -> None:
    t = tracker(max_gap=0)
    start = ids(t.update(frame(range(20), 0), 0))
    assert ids(t.update(frame(range(20), 6), 2)) == start  # the frame at 1 was dropped


def test_an_empty_frame_is_a_gap() -> None:
    t = tracker(max_gap=1)
    start = ids(t.update(frame(range(5)), 1))
    nothing = t.update(frame([]), 2)
    assert len(nothing.track_ids) == len(nothing.correspondences) == 0
    assert ids(t.update(frame(range(5)), 3)) == start


def test_a_lost_track_does_not_take_a_keypoint_that_the_last_frame_explains() -> None:
    """Two tracks of the same look: the one seen last frame goes on, the lost one waits."""
    t = tracker(max_gap=3)
    twin = frame([7])
    both = Features(
        np.array([[100, 100], [300, 300]], np.float32), np.ones(2, np.float32),
        np.zeros(2, np.int32), np.repeat(twin.descriptors, 2, axis=0), (640, 480), 1,
    )
    t.update(both, 1)
    kept = t.update(twin, 2).track_ids.tolist()
    assert t.update(twin, 3).track_ids.tolist() == kept


def test_reset_forgets_tracks_but_not_the_count() -> None:
    t = tracker()
    t.update(frame(range(5)), 1)
    t.reset()
    after = t.update(frame(range(5)), 2)
    assert after.track_ids.tolist() == [5, 6, 7, 8, 9]
    assert after.ages.tolist() == [0] * 5
    assert len(after.correspondences) == 0


def test_another_image_size_starts_new_tracks() -> None:
    t = tracker()
    t.update(frame(range(5)), 1)
    changed = t.update(frame(range(5), size=(320, 240)), 2)
    assert changed.track_ids.tolist() == [5, 6, 7, 8, 9]
    assert ids(t.update(frame(range(5), size=(320, 240)), 3)) == ids(changed)


def test_other_descriptors_start_new_tracks() -> None:
    """Weights may be replaced while the camera runs."""
    t = tracker()
    t.update(frame(range(5)), 1)
    other = Features.empty((640, 480), dim=2 * DIM)
    assert len(t.update(other, 2).track_ids) == 0
    assert t.update(frame(range(5)), 3).track_ids.tolist() == [5, 6, 7, 8, 9]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sets(st.integers(0, 29), max_size=30), min_size=1, max_size=8),
    st.integers(0, 3), st.integers(1, 4),
)
def test_ids_are_unique_in_a_frame_and_never_reused(
    observations: list[set[int]], max_gap: int, num_sets: int
) -> None:
    """Against a model that remembers when each landmark was last seen."""
    t = tracker(max_gap=max_gap)
    track_of: dict[int, tuple[int, int, int]] = {}  # landmark -> id, age, frame last seen
    used: set[int] = set()
    for number, seen in enumerate(observations):
        tracked = t.update(frame(sorted(seen), num_sets=num_sets), number)
        got = ids(tracked)
        assert len(set(got.values())) == len(seen)
        ages = dict(zip(tracked.track_ids.tolist(), tracked.ages.tolist(), strict=True))
        for landmark, track in got.items():
            known = track_of.get(landmark)
            if known is not None and number - known[2] <= max_gap + 1:
                assert (track, ages[track]) == (known[0], known[1] + 1)
            else:
                assert track not in used
                assert ages[track] == 0
            used.add(track)
            track_of[landmark] = (track, ages[track], number)


def test_sets_do_not_mix() -> None:
    t = tracker()
    one = frame([4], num_sets=1)
    in_set = [
        Features(one.keypoints, one.scores, np.array([s], np.int32), one.descriptors,
                 one.image_size, 2)
        for s in (0, 1)
    ]
    t.update(in_set[0], 1)
    assert t.update(in_set[1], 2).track_ids.tolist() == [1]
    t = tracker(across_sets=True)
    t.update(in_set[0], 1)
    assert t.update(in_set[1], 2).track_ids.tolist() == [0]


@pytest.mark.parametrize('stamps', [(1, 2, 3), (0, 0, 0)])
def test_outliers_are_marked_not_removed_and_each_frame_has_its_own_geometry(
    stamps: tuple[int, int, int],
) -> None:
    """The scene shifts by 40 px a frame: 60 links one frame back, 40 two; 10 are wrong."""
    t = tracker(max_gap=2, verification='homography', max_error=2.0)
    t.update(frame(range(100), 0), stamps[0])
    t.update(frame(range(60), 40), stamps[1])
    last = frame(range(100), 80)
    wrong = np.arange(100) % 10 == 0
    keypoints = last.keypoints.copy()
    keypoints[wrong] += np.random.default_rng(2).uniform(25, 60, (10, 2)).astype(np.float32)
    moved = Features(keypoints, last.scores, last.sets, last.descriptors, last.image_size)
    tracked = t.update(moved, stamps[2])
    links = tracked.correspondences
    assert len(links) == 100
    np.testing.assert_array_equal(links.inlier, ~wrong[links.indices])
    assert ids(tracked) == {i: i for i in range(100)}


#: How much farther than others a landmark moves in the image: some are nearer to the camera.
PARALLAX = np.random.default_rng(3).uniform(0.5, 2.0, 100).astype(np.float32)


@pytest.mark.parametrize('count', [1, 3, 6, 7])
@pytest.mark.parametrize('verification', ['homography', 'fundamental'])
def test_a_few_tracks_found_again_are_verified_by_those_that_were_never_lost(
    verification: str, count: int
) -> None:
    """A few landmarks hide for a frame; the first of them comes back in the wrong place."""

    def seen(landmarks: range, shift: float) -> Features:
        features = frame(landmarks)
        keypoints = features.keypoints.copy()
        parallax = PARALLAX[list(landmarks)] if verification == 'fundamental' else 1.0
        keypoints[:, 0] += shift * parallax
        return replace(features, keypoints=keypoints)

    t = tracker(max_gap=2, verification=verification, max_error=2.0)
    t.update(seen(range(100), 0), 1)
    t.update(seen(range(100 - count), 20), 2)
    last = seen(range(100), 40)
    wrong = np.arange(100) == 100 - count
    last.keypoints[wrong, 1] += 30
    tracked = t.update(last, 3)
    again = tracked.correspondences.stamps_prev == 1
    rows = tracked.correspondences.indices
    assert ids(tracked) == {i: i for i in range(100)}
    assert sorted(rows[again]) == list(range(100 - count, 100))
    np.testing.assert_array_equal(tracked.correspondences.inlier, ~wrong[rows])


def test_a_few_tracks_that_nothing_can_verify_are_no_inliers() -> None:
    t = tracker(max_gap=2, verification='homography', max_error=2.0)
    t.update(frame(range(5), 0), 1)
    t.update(frame(range(50, 100), 40), 2)
    tracked = t.update(frame([*range(5), *range(50, 100)], 80), 3)
    again = tracked.correspondences.stamps_prev == 1
    assert again.sum() == 5
    np.testing.assert_array_equal(tracked.correspondences.inlier, ~again)
    t = tracker(max_gap=2)
    t.update(frame(range(5), 0), 1)
    t.update(frame(range(50, 100), 40), 2)
    unverified = t.update(frame([*range(5), *range(50, 100)], 80), 3).correspondences
    assert len(unverified) == 55
    assert unverified.inlier.all()


@pytest.mark.parametrize(
    'settings',
    [
        {'max_gap': -1}, {'verification': 'magic'}, {'max_error': 0.0},
        {'max_error': float('nan')}, {'min_similarity': 1.5}, {'min_similarity': float('nan')},
    ],
)
def test_settings_out_of_range(settings: dict) -> None:
    with pytest.raises(SettingError, match=next(iter(settings))):
        FrameTracker(**settings)
    t = FrameTracker()
    with pytest.raises(SettingError, match=next(iter(settings))):
        t.settings = replace(t.settings, **settings)
    assert t.settings == TrackingSettings()


HOMOGRAPHIES = {
    'turned and closer': (12.0, 1.12, (9.0, -6.0), (0.0, 0.0)),
    'tilted': (0.0, 1.0, (0.0, 0.0), (3e-4, -2e-4)),
    'turned back, farther': (-8.0, 0.92, (-5.0, 11.0), (1e-4, 1e-4)),
}


def homography(
    angle: float, scale: float, shift: tuple[float, float], tilt: tuple[float, float],
    size: tuple[int, int],
) -> np.ndarray:
    """About the image's centre; degrees and pixels."""
    w, h = size
    centre = np.array([[1, 0, -(w - 1) / 2], [0, 1, -(h - 1) / 2], [0, 0, 1.0]])
    c, s = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
    turn = np.array([[c, -s, shift[0]], [s, c, shift[1]], [tilt[0], tilt[1], 1.0]])
    return np.linalg.inv(centre) @ turn @ centre


@pytest.mark.parametrize('weights', ['md2net', 'md2net-light'])
@pytest.mark.parametrize('name', HOMOGRAPHIES)
def test_warped_photographs(weights: str, name: str) -> None:
    """The shipped weights follow a photograph through known homographies."""
    image = cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR)
    size = (image.shape[1], image.shape[0])
    h = homography(*HOMOGRAPHIES[name], size)
    warped = cv2.warpPerspective(image, h, size, flags=cv2.INTER_LINEAR)
    extract = MDNetExtractor(weights, device='cpu', max_keypoints=1000)
    t = FrameTracker(verification='homography', max_error=3.0)
    t.update(extract(image), 1)
    tracked = t.update(extract(warped), 2)
    links = tracked.correspondences
    expected = cv2.perspectiveTransform(links.keypoints_prev[None], h)[0]
    error = np.linalg.norm(tracked.features.keypoints[links.indices] - expected, axis=1)
    right = error < 3
    assert right.sum() > 150
    assert right.mean() > 0.5
    assert (links.inlier == right).mean() > 0.9

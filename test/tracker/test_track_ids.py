"""Ids over whole runs: whatever is seen, dropped, reset or resized, none is used for two things."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mdnet_ros import Features, FrameTracker
from mdnet_ros.data.camera import CameraModel
from mdnet_ros.tracker.vins import VinsTracker

LANDMARKS = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
LANDMARKS /= np.linalg.norm(LANDMARKS, axis=1, keepdims=True)
PLACES = np.random.default_rng(1).uniform([50, 50], [270, 190], (40, 2)).astype(np.float32)
CAMERA = CameraModel(
    0, 0, np.array([[300.0, 0, 160], [0, 300.0, 120], [0, 0, 1]]), np.zeros(5), 'plumb_bob'
)
STEP = 50_000_000
EVENTS = st.one_of(
    st.tuples(st.just('frame'), st.sets(st.integers(0, 39), max_size=40)),
    st.tuples(st.just('dropped'), st.none()),
    st.tuples(st.just('reset'), st.none()),
    st.tuples(st.just('other size'), st.none()),
)


def seen(which, number, size):
    order = sorted(which)
    return Features(
        PLACES[order] + np.float32(number), np.ones(len(order), np.float32),
        np.zeros(len(order), np.int32), LANDMARKS[order], size, 1,
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, min_size=2, max_size=25), st.integers(0, 3))
def test_an_id_is_one_thing_for_a_whole_run(events, max_gap):
    tracker = FrameTracker(max_gap=max_gap, min_similarity=0.95, verification='none')
    vins = VinsTracker()
    landmark_of, published_landmark = {}, {}  # id -> what it was given for
    last_message: dict[int, int] = {}  # published id -> number of the last message with it
    size, messages = (320, 240), 0
    for number, (event, which) in enumerate(events):
        if event == 'dropped':  # the camera's next frame, which nobody sees
            continue
        if event == 'reset':
            tracker.reset()
            vins.restart()
            continue
        if event == 'other size':
            size = (size[1], size[0])
            vins.restart()
            continue
        features = seen(which, number, size)
        frame = tracker.update(features, number * STEP)
        landmarks = (features.descriptors @ LANDMARKS.T).argmax(axis=1)
        for track, landmark in zip(frame.track_ids.tolist(), landmarks.tolist(), strict=True):
            assert landmark_of.setdefault(track, landmark) == landmark
        tracks = vins.update(frame, CAMERA)
        if tracks is None:
            continue
        messages += 1
        place = {tuple(p): int(mark) for p, mark in zip(
            features.keypoints.tolist(), landmarks, strict=True)}  # fmt: skip
        for track, pixel in zip(tracks.ids.tolist(), tracks.pixels.tolist(), strict=True):
            landmark = place[tuple(pixel)]
            assert published_landmark.setdefault(track, landmark) == landmark
            # For VINS an id that was missing from a message must never return.
            assert last_message.get(track, messages - 1) == messages - 1
            last_message[track] = messages


@settings(max_examples=50, deadline=None)
@given(
    st.sets(st.integers(0, 39), min_size=1, max_size=40),
    st.lists(st.booleans(), min_size=3, max_size=20),
)
def test_one_dropped_frame_costs_no_track_its_id(which, dropped):
    """Not two in a row: between served frames at most one is missing."""
    tracker = FrameTracker(min_similarity=0.95, verification='none')
    first, skipped = None, False
    for number, drop in enumerate(dropped):
        if drop and not skipped:
            skipped = True
            continue
        skipped = False
        frame = tracker.update(seen(which, number, (320, 240)), number * STEP)
        first = frame if first is None else first
        np.testing.assert_array_equal(frame.track_ids, first.track_ids)

"""Refinement against exact truth: photographs moved by a known warp."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import skimage.data

from mdnet_ros import Features, FrameTracker, MDNetExtractor, TrackedFrame
from mdnet_ros.errors import ImageError, SettingError
from mdnet_ros.features.optical_flow import (
    SAME_POINT,
    distinct,
    follow,
    nearby,
    patch_correlation,
    predict_motion,
)

WIDTH, HEIGHT = 512, 512
PHOTO = cv2.GaussianBlur(skimage.data.camera(), (0, 0), 0.7)
CORNERS = cv2.goodFeaturesToTrack(PHOTO[:, :], 200, 0.02, 12)[:, 0]
CORNERS = CORNERS[((CORNERS > 60) & (CORNERS < 450)).all(axis=1)][:80]
DIM = 32
DESCRIPTORS = np.random.default_rng(0).normal(size=(len(CORNERS), DIM)).astype(np.float32)
DESCRIPTORS /= np.linalg.norm(DESCRIPTORS, axis=1, keepdims=True)


def warped(matrix: np.ndarray) -> np.ndarray:
    """The photograph moved by a (2, 3) affine map of pixels."""
    return cv2.warpAffine(
        PHOTO, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )


def moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def shift(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y]])


def rotation(degrees: float, scale: float, x: float, y: float) -> np.ndarray:
    matrix = cv2.getRotationMatrix2D((256, 256), degrees, scale)
    matrix[:, 2] += (x, y)
    return matrix


def detections(points: np.ndarray, which: np.ndarray | None = None, sets: int = 1) -> Features:
    """Keypoints with a descriptor each, as a detector finds them."""
    which = np.arange(len(points)) if which is None else which
    order = np.argsort(which % sets, kind='stable')
    which = which[order]
    return Features(
        points[which].astype(np.float32), np.ones(len(which), np.float32),
        (which % sets).astype(np.int32), DESCRIPTORS[which], (WIDTH, HEIGHT), sets,
    )


def landmarks(frame: TrackedFrame) -> np.ndarray:
    """Which corner each keypoint shows; known by the descriptor."""
    return (frame.features.descriptors @ DESCRIPTORS.T).argmax(axis=1)


def tracker(**changes: object) -> FrameTracker:
    return FrameTracker(
        **{'refinement': 'flow', 'min_similarity': 0.9, 'verification': 'none', **changes}
    )


def noisy(points: np.ndarray, seed: int, sigma: float = 0.7) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, points.shape).clip(-1.2, 1.2)
    return (points + noise).astype(np.float32)


@pytest.mark.parametrize(
    'matrix', [shift(3.3, -2.6), shift(40.25, 17.5), rotation(2.0, 1.02, 5.4, -3.2)],
    ids=['small shift', 'large shift', 'rotation and scale'],
)
def test_positions_are_as_exact_as_the_flow_where_detections_scatter(matrix: np.ndarray) -> None:
    t = tracker()
    first = t.update(detections(CORNERS), 1, PHOTO)
    second = t.update(detections(noisy(moved(CORNERS, matrix), 1)), 2, warped(matrix))
    assert not first.refined.any()
    truth = moved(CORNERS, matrix)[landmarks(second)]
    error = np.linalg.norm(second.features.keypoints - truth, axis=1)
    assert second.refined.mean() > 0.8
    assert np.median(error[second.refined]) < 0.15
    assert np.percentile(error[second.refined], 95) < 0.4
    before = np.linalg.norm(noisy(truth, 1)[: len(error)] - truth, axis=1)
    assert np.median(before) > 4 * np.median(error[second.refined])
    assert (second.missed == 0).all()
    matches = second.correspondences
    np.testing.assert_array_equal(
        matches.keypoints_prev, first.features.keypoints[matches.indices_prev]
    )


def test_over_many_frames_the_error_stays_below_that_of_a_detection() -> None:
    t = tracker()
    for step in range(15):
        matrix = shift(2.3 * step, -1.7 * step)
        frame = t.update(detections(noisy(moved(CORNERS, matrix), step, 0.7 * (step > 0))), step,
                         warped(matrix))
    error = np.linalg.norm(
        frame.features.keypoints - moved(CORNERS, matrix)[landmarks(frame)], axis=1
    )[frame.refined]
    assert len(error) > 30
    assert np.median(error) < 0.3


def test_a_failed_alignment_leaves_the_detection_and_is_marked() -> None:
    t = tracker(verification='homography')
    t.update(detections(CORNERS), 1, PHOTO)
    image = warped(shift(4, 0))
    truth = moved(CORNERS, shift(4, 0))
    hidden = np.arange(0, len(CORNERS), 4)
    for x, y in truth[hidden].round().astype(int):  # something flat is in the way
        cv2.rectangle(image, (x - 12, y - 12), (x + 12, y + 12), 128, -1)
    far = truth.copy()
    far[1] += (7.0, 0.0)  # a wrong match
    frame = t.update(detections(far), 2, image)
    marks = landmarks(frame)
    failed = np.isin(marks, [*hidden, 1]) & (frame.missed == 0)
    assert failed.sum() == len(hidden) + 1
    assert not frame.refined[failed].any()
    np.testing.assert_array_equal(frame.features.keypoints[failed], far[marks[failed]])
    # Geometry tells a wrong match from a right one, refined or not.
    matches = frame.correspondences
    inlier = np.zeros(len(marks), bool)
    inlier[matches.indices[matches.inlier]] = True
    assert inlier[np.isin(marks, hidden)].all()
    assert not inlier[(marks == 1) & (frame.missed == 0)].any()
    assert frame.refined[~failed].mean() > 0.5


def test_where_flow_fails_everywhere_the_matches_still_count() -> None:
    t = tracker(verification='homography')
    t.update(detections(CORNERS), 1, PHOTO)
    noise = np.random.default_rng(0).integers(0, 255, PHOTO.shape).astype(np.uint8)
    frame = t.update(detections(CORNERS), 2, noise)
    assert frame.refined.mean() < 0.1
    matches = frame.correspondences
    assert matches.inlier[~frame.refined[matches.indices]].all()
    np.testing.assert_array_equal(
        frame.features.keypoints[~frame.refined], CORNERS[~frame.refined]
    )


@pytest.mark.parametrize('max_gap', [0, 1, 3])
def test_a_track_that_is_not_detected_is_carried_for_max_gap_frames(max_gap: int) -> None:
    t = tracker(max_gap=max_gap)
    start = previous = t.update(detections(CORNERS, sets=2), 0, PHOTO)
    ids = dict(zip(landmarks(start).tolist(), start.track_ids.tolist(), strict=True))
    seen = np.arange(0, len(CORNERS), 2)
    gone = np.setdiff1d(np.arange(len(CORNERS)), seen)
    lives = set(gone.tolist())
    for step in range(1, 6):
        matrix = shift(1.6 * step, 0.9 * step)
        truth = moved(CORNERS, matrix)
        # Every second one is missing from now on.
        frame = t.update(detections(truth, seen, sets=2), step, warped(matrix))
        propagated = np.nonzero(frame.missed > 0)[0]
        marks = landmarks(frame)[propagated]
        assert set(marks.tolist()) <= lives
        lives = set(marks.tolist())
        assert (len(propagated) > 0.6 * len(gone)) == (step <= max_gap)
        assert (len(propagated) == 0) == (step > max_gap)
        assert (frame.missed[propagated] == step).all()
        assert (frame.ages[propagated] == step).all()
        assert frame.refined[propagated].all()
        assert [ids[m] for m in marks.tolist()] == frame.track_ids[propagated].tolist()
        error = np.linalg.norm(frame.features.keypoints[propagated] - truth[marks], axis=1)
        assert not len(error) or np.median(error) < 0.3
        # Sets stay together, and every link leads to the row it names.
        assert (np.diff(frame.features.sets) >= 0).all()
        assert len(np.unique(frame.track_ids)) == len(frame.track_ids)
        if step > 1:
            links = frame.correspondences
            last = links.stamps_prev == step - 1
            np.testing.assert_array_equal(
                previous.track_ids[links.indices_prev[last]], frame.track_ids[links.indices[last]]
            )
            np.testing.assert_array_equal(
                previous.features.keypoints[links.indices_prev[last]], links.keypoints_prev[last]
            )
        previous = frame


def test_a_carried_track_is_taken_up_when_it_is_detected_again() -> None:
    t = tracker(max_gap=3)
    start = t.update(detections(CORNERS), 0, PHOTO)
    for step in (1, 2):
        matrix = shift(2.0 * step, 0)
        t.update(detections(moved(CORNERS, matrix), np.arange(40)), step, warped(matrix))
    matrix = shift(6.0, 0)
    back = t.update(detections(moved(CORNERS, matrix)), 3, warped(matrix))
    order = np.argsort(landmarks(back))
    np.testing.assert_array_equal(back.track_ids[order], start.track_ids)
    assert (back.missed == 0).all()
    assert len(back.features) == len(CORNERS)


def test_there_is_never_a_second_track_on_the_same_point() -> None:
    t = tracker(max_gap=3)
    t.update(detections(CORNERS), 0, PHOTO)
    image, truth = warped(shift(2, 1)), moved(CORNERS, shift(2, 1))
    # The same corners again, one pixel aside, with descriptors of something else.
    other = detections(truth + np.float32(0.8))
    other = replace(other, descriptors=np.roll(other.descriptors, 1, axis=1))
    frame = t.update(other, 1, image)
    propagated = frame.missed > 0
    assert not propagated.any()
    # Detected at their place with nearly the same descriptor: the same tracks go on.
    t = tracker(max_gap=3, min_similarity=0.99)
    start = t.update(detections(CORNERS), 0, PHOTO)
    alike = DESCRIPTORS + np.random.default_rng(1).normal(0, 0.06, DESCRIPTORS.shape)
    alike = (alike / np.linalg.norm(alike, axis=1, keepdims=True)).astype(np.float32)
    t.settings = replace(t.settings, min_similarity=0.0)
    again = t.update(replace(detections(truth + np.float32(0.8)), descriptors=alike), 1, image)
    assert np.isin(again.track_ids, start.track_ids).mean() > 0.9
    assert len(again.features) == len(CORNERS)


def test_no_track_is_propagated_into_a_mask_or_over_the_border() -> None:
    mask = np.full((64, 64), 255, np.uint8)
    mask[:, 32:] = 0
    t = tracker(max_gap=3, border=100)
    t.update(detections(CORNERS), 0, PHOTO)
    frame = t.update(detections(CORNERS, np.arange(5)), 1, warped(shift(3, 0)), (None, mask))
    points = frame.features.keypoints[frame.missed > 0]
    assert len(points) > 5
    assert (points[:, 0] < 256).all()
    assert ((points >= 100) & (points <= 511 - 100)).all()


def test_with_the_network_tracks_are_longer_and_none_lies_on_another() -> None:
    extract = MDNetExtractor('md2net-light', 'cpu', 300)
    plain, flow = FrameTracker(max_gap=3), FrameTracker(max_gap=3, refinement='flow')
    lengths: list[dict[int, int]] = [{}, {}]
    for step in range(8):
        image = warped(rotation(0.8 * step, 1 + 0.01 * step, 3.0 * step, 1.3 * step))
        features = extract(image)
        frames = plain.update(features, step), flow.update(features, step, image)
        for frame, found in zip(frames, lengths, strict=True):
            found.update(zip(frame.track_ids.tolist(), (frame.ages + 1).tolist(), strict=True))
        np.testing.assert_array_equal(frames[0].features.keypoints, features.keypoints)
        assert frames[0].refined is None
        points = np.rint(frames[1].features.keypoints)
        for row in np.nonzero(frames[1].missed > 0)[0]:
            apart = np.abs(np.delete(points, row, axis=0) - points[row]).max(axis=1)
            assert apart.min() > SAME_POINT
    means = [np.mean([n for n in found.values() if n > 1]) for found in lengths]
    assert means[1] > means[0]


def test_refinement_can_be_switched_while_it_runs() -> None:
    t = tracker(refinement='none')
    ids = t.update(detections(CORNERS), 0).track_ids
    for step, refinement in enumerate(('flow', 'flow', 'none', 'flow'), 1):
        t.settings = replace(t.settings, refinement=refinement)
        matrix = shift(2.0 * step, 0)
        frame = t.update(detections(noisy(moved(CORNERS, matrix), step)), step, warped(matrix))
        np.testing.assert_array_equal(frame.track_ids, ids)
        refined = frame.refined is not None and frame.refined.any()
        assert refined == (step == 2)  # the image before must have been kept


@pytest.mark.parametrize(
    ('image', 'expected'),
    [(None, 'got None'), (PHOTO[:100], '512x512.*512x100'), (PHOTO.astype(np.float32), 'uint8')],
)
def test_an_image_that_cannot_be_used_is_refused(image: np.ndarray, expected: str) -> None:
    t = tracker()
    t.update(detections(CORNERS), 0, PHOTO)
    with pytest.raises(ImageError, match=expected):
        t.update(detections(CORNERS), 1, image)
    assert len(t.update(detections(CORNERS), 2, PHOTO).correspondences) == len(CORNERS)


def test_settings_are_checked() -> None:
    with pytest.raises(SettingError, match='refinement'):
        FrameTracker(refinement='affine')  # type: ignore[arg-type]
    with pytest.raises(SettingError, match='border'):
        FrameTracker(border=-1)


def test_the_image_is_copied() -> None:
    t = tracker()
    buffer = PHOTO.copy()
    t.update(detections(CORNERS), 0, buffer)
    buffer[:] = warped(shift(2, 0))  # a camera that reuses its buffer
    frame = t.update(detections(moved(CORNERS, shift(2, 0))), 1, buffer)
    assert frame.refined.mean() > 0.8


def test_follow_by_hand() -> None:
    """A bright square moved by (1.5, -0.5); flat ground; a point that leaves the image."""
    first, second = np.zeros((2, 80, 100), np.uint8)
    for image, x, y in ((first, 40.0, 30.0), (second, 41.5, 29.5)):
        grid = np.mgrid[:80, :100]
        image[:] = 200 * np.exp(-((grid[1] - x) ** 2 + (grid[0] - y) ** 2) / 18)
    points = np.array([[40, 30], [80, 60], [40, 30]], np.float32)
    start = np.array([[41, 30], [80, 60], [500, 30]], np.float32)
    found = follow(first, second, points, start)
    assert found.found.tolist() == [True, False, False]
    np.testing.assert_allclose(found.points[0], (41.5, 29.5), atol=0.05)
    empty = follow(first, second, np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32))
    assert empty.points.shape == (0, 2)
    assert empty.found.shape == (0,)


def test_motion_is_predicted_from_the_same_part_of_the_image() -> None:
    points = np.array([[10, 10], [20, 20], [30, 15], [600, 450], [610, 460]], np.float32)
    motion = np.array([[1, 0], [2, 5], [3, 1], [-7, 2], [-7, 2]], np.float32)
    at = np.array([[15, 12], [605, 455], [300, 240]], np.float32)
    got = predict_motion(points, motion, at, (640, 480))
    np.testing.assert_allclose(got, [[2, 1], [-7, 2], [1, 2]])
    none = np.zeros((0, 2), np.float32)
    np.testing.assert_array_equal(predict_motion(none, none, at, (640, 480)), 0 * at)


def test_nearby_and_distinct_by_hand() -> None:
    size = (50, 40)
    others = np.array([[10, 10], [12, 10], [30, 30]], np.float32)
    points = np.array([[9, 9], [13.4, 10], [31.6, 33.4], [30.4, 27.6], [0, 39]], np.float32)
    got = nearby(points, others, np.array([0, 5, 1]), size)
    assert got.tolist() == [0, 1, -1, 2, -1]  # |31.6 - 30| is 2 px, |33.4 - 30| is 3
    both = np.array([[11, 10]], np.float32)
    assert nearby(both, others, np.array([0, 5, 1]), size).tolist() == [1]
    assert nearby(both, others, np.array([7, 5, 1]), size).tolist() == [0]
    assert distinct(others, np.array([3, 1, 2]), size).tolist() == [True, False, True]
    assert nearby(np.zeros((0, 2), np.float32), others, np.arange(3), size).tolist() == []


def test_correlation_of_patches() -> None:
    """1 for another gain, -1 for the negative, near 0 for noise, 0 where it is flat."""
    points = CORNERS[:20]
    brighter = np.clip(PHOTO.astype(float) * 0.5 + 90, 0, 255).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 255, PHOTO.shape).astype(np.uint8)
    assert patch_correlation(PHOTO, brighter, points, points).min() > 0.98
    assert patch_correlation(PHOTO, 255 - PHOTO, points, points).max() < -0.99
    assert np.abs(patch_correlation(PHOTO, noise, points, points)).max() < 0.5
    flat = np.full_like(PHOTO, 77)
    np.testing.assert_array_equal(patch_correlation(PHOTO, flat, points, points), 0.0)
    whole = points + np.float32([4, -3])
    np.testing.assert_allclose(
        patch_correlation(PHOTO, warped(shift(4, -3)), points, whole), 1.0, atol=1e-3
    )
    assert patch_correlation(PHOTO, PHOTO, points[:0], points[:0]).shape == (0,)

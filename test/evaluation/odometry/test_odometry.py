"""The visual odometry and its parts, on flights that are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.poses import Pose, PoseTrack
from mdnet_ros.evaluation.odometry.bundle import Observations, adjust, reprojection
from mdnet_ros.evaluation.odometry.landmarks import Landmarks
from mdnet_ros.evaluation.odometry.lost_landmarks import LostLandmarks, Seen
from mdnet_ros.evaluation.odometry.odometry import Odometry
from mdnet_ros.evaluation.odometry.triangulation import (
    angles_between,
    epipolar_errors,
    midpoints,
    step_length,
)
from mdnet_ros.evaluation.trajectory import compare_trajectories
from mdnet_ros.features.types import Correspondences, Features, TrackedFrame

pytest.importorskip('evo')
pytest.importorskip('poselib')

CAMERA = CameraModel(640, 480, np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), np.zeros(0))


def turn(*vector):
    return cv2.Rodrigues(np.array(vector, np.float64))[0]


def frame(points, ids, previous, stamp, descriptors=None):
    """A frame whose tracks all have links to the frame before where they were there."""
    ages = np.isin(ids, previous).astype(np.int32)
    rows = np.nonzero(ages)[0]
    n, m = len(ids), len(rows)
    links = Correspondences(
        rows, rows, np.zeros((m, 2), np.float32), np.full(m, stamp - 1),
        np.ones(m, np.float32), np.ones(m, bool),
    )  # fmt: skip
    features = Features(
        points.astype(np.float32), np.ones(n, np.float32), np.zeros(n, np.int32),
        np.zeros((n, 0), np.float32) if descriptors is None else descriptors, (640, 480),
    )  # fmt: skip
    return TrackedFrame(features, ids.astype(np.int64), ages, links, stamp)


def project(points, pose):
    """(N, 2) pixels of points in a camera (to world), and which of them are in the image."""
    seen = (points - pose.translation) @ pose.rotation
    pixels = seen @ CAMERA.k.T
    pixels = pixels[:, :2] / np.maximum(pixels[:, 2:], 0.1)
    inside = (seen[:, 2] > 0.5) & (pixels > 0).all(axis=1) & (pixels < [640, 480]).all(axis=1)
    return pixels, inside


def fly(points, poses, noise, rng, descriptors=None, cut=None):
    """Frames of points along a path; at frame ``cut`` every track ends and a new one begins."""
    sequence, before = [], np.zeros(0, np.int64)
    for i, pose in enumerate(poses):
        pixels, inside = project(points, pose)
        seen = np.nonzero(inside)[0]
        ids = seen + (len(points) if cut is not None and i >= cut else 0)
        measured = pixels[seen] + rng.normal(0, noise, (len(seen), 2))
        own = descriptors[seen] if descriptors is not None else None
        sequence.append(frame(measured, ids, before, i * 10**8, own))
        before = ids
    return sequence


def track_of(poses):
    return PoseTrack(
        np.arange(len(poses)) * 10**8,
        np.array([pose.rotation for pose in poses]),
        np.array([pose.translation for pose in poses]),
    )


def scene(rng, count=1500):
    return np.column_stack(
        [rng.uniform(-15, 15, count), rng.uniform(-4, 4, count), rng.uniform(3, 20, count)]
    )


def bow(frames=40):
    return [
        Pose(turn(0, 0.01 * i, 0.02 * np.sin(i / 5)),
             np.array([0.1 * i, 0.05 * np.sin(i / 4), 0.08 * i]))
        for i in range(frames)
    ]


def run(sequence):
    odometry = Odometry(CAMERA)
    for tracked in sequence:
        odometry.add(tracked)
    return odometry


@pytest.mark.parametrize(('noise', 'limit'), [(0.0, 0.002), (0.3, 0.03)])
def test_a_known_flight(noise, limit):
    rng = np.random.default_rng(0)
    poses = bow()
    odometry = run(fly(scene(rng), poses, noise, rng))
    path = odometry.path()
    assert odometry.restarts == 0
    assert len(path) > 0.8 * len(poses)
    errors = compare_trajectories(path, track_of(poses))
    assert errors.length == pytest.approx(5.0, rel=0.2)
    assert errors.ate < limit * errors.length
    assert errors.rpe_rotation < 0.1 + noise


def test_it_survives_a_gap():
    rng = np.random.default_rng(0)
    poses = bow()
    sequence = fly(scene(rng), poses, 0.1, rng)
    empty = frame(np.zeros((0, 2)), np.zeros(0, np.int64), np.zeros(0), sequence[20].stamp_ns)
    odometry = run([*sequence[:20], empty, *sequence[21:]])
    assert len(odometry.path()) > 0.6 * len(poses)
    assert np.isfinite(odometry.path().translations).all()


def test_keypoints_without_a_ray_are_left_out():
    # The lens of the calibration ends at a radius of 0.55, the images are those of a pinhole.
    rng = np.random.default_rng(0)
    poses = bow()
    sequence = fly(scene(rng), poses, 0.2, rng)
    calibration = CameraModel(640, 480, CAMERA.k, np.array([-1e-6, 0, 0, 0]))
    plain = Odometry(calibration)
    ended = CameraModel(640, 480, CAMERA.k, np.array([0, 0, 0, 0, -1 / (7 * 0.55**6)]))
    odometry = Odometry(ended)
    assert np.isnan(ended.normalise(sequence[0].features.keypoints)).any()
    for tracked in sequence:
        plain.add(tracked)
        odometry.add(tracked)
    assert len(odometry.path()) == len(plain.path()) == len(poses)
    assert np.isfinite(odometry.path().translations).all()


def lengths(path):
    return np.linalg.norm(np.diff(path.translations, axis=0), axis=1)


def test_scale_passes_through_a_cut_by_descriptors():
    """Every track ends at once: the landmarks are found again, nothing is guessed."""
    rng = np.random.default_rng(1)
    points, poses = scene(rng), bow()
    descriptors = rng.normal(size=(len(points), 32)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    cut = run(fly(points, poses, 0.2, rng, descriptors, cut=22))
    assert (cut.restarts, cut.bridged) == (0, 0)
    assert compare_trajectories(cut.path(), track_of(poses)).ate < 0.05
    # Without descriptors there is nothing to find them by.
    blind = run(fly(points, poses, 0.2, rng, cut=22))
    assert blind.restarts == 1


def test_scale_passes_through_a_turn_in_which_few_landmarks_survive():
    """Nine landmarks are too few for PnP; the step's length comes from them."""
    rng = np.random.default_rng(2)
    points, poses = scene(rng), bow(30)
    sequence = fly(points, poses, 0.0, rng)
    old = np.intersect1d(sequence[19].track_ids, sequence[20].track_ids)[:9]
    for i in range(19, 30):
        ids, keypoints = sequence[i].track_ids, sequence[i].features.keypoints
        fresh = ids + len(points)
        if i == 19:  # here the new tracks begin, beside the ones that are about to end
            extra = ~np.isin(ids, old)
            ids = np.concatenate([ids, fresh[extra]])
            keypoints = np.concatenate([keypoints, keypoints[extra]])
        else:
            ids = np.where(np.isin(ids, old), ids, fresh)
        before = sequence[i - 1].track_ids
        sequence[i] = frame(keypoints, ids, before, sequence[i].stamp_ns)
    odometry = run(sequence)
    assert odometry.bridged >= 1
    assert odometry.restarts == 0
    true = lengths(track_of(poses))[5:]
    found = lengths(odometry.path())[-len(true):]
    ratio = found / true
    assert np.abs(ratio / np.median(ratio) - 1).max() < 0.05


def street(rng, count, noise, life, frames):
    """A drive between houses, most of what it shows new: tracks live for some frames."""
    ground = rng.random(count) < 0.4
    side = np.where(rng.random(count) < 0.5, -1, 1)
    points = np.column_stack([
        np.where(ground, rng.uniform(-8, 8, count), side * rng.uniform(6, 14, count)),
        np.where(ground, 1.6, rng.uniform(-6, 1.6, count)),
        rng.uniform(0, 100, count),
    ])
    poses = [
        Pose(turn(0, 0.005 * np.sin(i / 8), 0), np.array([0.1 * np.sin(i / 9), 0, 1.2 * i]))
        for i in range(frames)
    ]
    sequence, before, lives = [], np.zeros(0, np.int64), np.zeros(count, np.int64)
    for i, pose in enumerate(poses):
        pixels, inside = project(points, pose)
        seen = np.nonzero(inside & (points[:, 2] - pose.translation[2] < 50))[0]
        lives += rng.random(count) < 1 / life
        ids = seen + count * lives[seen]
        measured = pixels[seen] + rng.normal(0, noise, (len(seen), 2))
        sequence.append(frame(measured, ids, before, i * 10**8))
        before = ids
    return sequence, poses


def test_scale_stays_where_most_points_are_new():
    """More of them than are adjusted: they must lie where the adjusted poses saw them."""
    sequence, poses = street(np.random.default_rng(0), 3000, noise=1.0, life=4, frames=40)
    odometry = run(sequence)
    assert (odometry.restarts, odometry.bridged) == (0, 0)
    assert compare_trajectories(odometry.path(), track_of(poses)).ate < 0.3


def test_bundle_finds_the_truth_again():
    rng = np.random.default_rng(3)
    points = rng.uniform([-3, -2, 4], [3, 2, 9], (60, 3))
    poses = [Pose(turn(*rng.normal(0, 0.05, 3)), np.array([-0.2 * i, 0.02 * i, 0]))
             for i in range(6)]
    rows, columns = (grid.ravel() for grid in np.meshgrid(range(6), range(60), indexing='ij'))
    camera = np.concatenate([points @ pose.rotation.T + pose.translation for pose in poses])
    keep = (rng.random(len(rows)) < 0.8) | (rows < 3)
    seen = Observations(rows[keep], columns[keep], (camera[:, :2] / camera[:, 2:])[keep])
    errors, depth = reprojection(poses, points, seen, 500.0)
    assert np.abs(errors).max() < 1e-9
    np.testing.assert_allclose(depth, camera[keep, 2])
    shaken = poses[:2] + [
        Pose(turn(*rng.normal(0, 0.01, 3)) @ p.rotation, p.translation + rng.normal(0, 0.03, 3))
        for p in poses[2:]
    ]
    found, moved = adjust(
        shaken, points + rng.normal(0, 0.1, points.shape), seen, 2, 500.0, 2.0, iterations=30
    )
    np.testing.assert_array_equal(found[0].rotation, shaken[0].rotation)
    np.testing.assert_allclose(moved, points, atol=1e-3)
    for pose, true in zip(found, poses, strict=True):
        np.testing.assert_allclose(pose.rotation, true.rotation, atol=1e-4)
        np.testing.assert_allclose(pose.translation, true.translation, atol=1e-4)


def test_bundle_agrees_with_scipy():
    """The same minimum as an independent solver, with noise and a gross error."""
    optimize = pytest.importorskip('scipy.optimize')
    rng = np.random.default_rng(4)
    points = rng.uniform([-3, -2, 4], [3, 2, 9], (25, 3))
    poses = [Pose(np.eye(3), np.array([-0.4 * i, 0, 0.1 * i])) for i in range(4)]
    rows, columns = (grid.ravel() for grid in np.meshgrid(range(4), range(25), indexing='ij'))
    camera = np.concatenate([points @ pose.rotation.T + pose.translation for pose in poses])
    plane = camera[:, :2] / camera[:, 2:] + rng.normal(0, 0.001, (len(rows), 2))
    plane[30] += 0.05
    seen = Observations(rows, columns, plane)
    focal, limit = 400.0, 1.0

    def residuals(poses, points):
        errors = reprojection(poses, points, seen, focal)[0]
        length = np.linalg.norm(errors, axis=1)
        huber = np.where(length < limit, length**2, 2 * limit * length - limit**2)
        return (errors * (np.sqrt(huber) / np.maximum(length, 1e-12))[:, None]).ravel()

    def cost(poses, points):
        return (residuals(poses, points) ** 2).sum()

    def unpack(x):
        steps = x[:12].reshape(2, 6)
        free = [
            Pose(turn(*step[:3]) @ p.rotation, p.translation + step[3:])
            for step, p in zip(steps, poses[2:], strict=True)
        ]
        return poses[:2] + free, x[12:].reshape(-1, 3)

    start = np.concatenate([np.zeros(12), points.ravel()])
    best = optimize.least_squares(lambda x: residuals(*unpack(x)), start, max_nfev=30)
    found, moved = adjust(poses, points, seen, 2, focal, limit, iterations=60)
    assert cost(found, moved) == pytest.approx(2 * best.cost, rel=2e-3)
    assert cost(found, moved) < cost(poses, points)


def test_midpoints_meet_where_rays_meet():
    target = np.array([[1.0, 2, 8], [-3, 0, 5], [0, 0, 4]])
    a, b = np.zeros((3, 3)), np.array([1.0, 0.5, 0])
    points, along_a, along_b = midpoints(a, 2 * target, b, target - b)
    np.testing.assert_allclose(points, target, atol=1e-12)
    np.testing.assert_allclose(along_a, 0.5)
    np.testing.assert_allclose(along_b, 1.0)
    parallel = midpoints(a[:1], target[:1], b, target[:1])
    assert parallel[1][0] < 0
    assert np.isfinite(parallel[0]).all()


def test_steps_and_epipolar_errors_by_hand():
    points = np.array([[1.0, 0, 4], [-1, 1, 5], [0.5, -1, 6], [2, 2, 7]])
    direction = np.array([0.6, 0, 0.8])
    rays = 3 * (points - 2.5 * direction)
    assert step_length(points, rays, direction) == pytest.approx(2.5)
    assert step_length(points[:2], rays[:2], direction) is None
    assert step_length(points, points + 2.5 * direction, direction) is None
    motion = Pose(turn(0.1, 0.2, 0), np.array([1.0, 0.5, 0]))
    moved = points @ motion.rotation.T + motion.translation
    then, now = points / points[:, 2:], moved / moved[:, 2:]
    np.testing.assert_allclose(epipolar_errors(motion, then, now), 0, atol=1e-12)
    # A sideways motion without a turn: the error in y, shared by both views.
    aside = epipolar_errors(
        Pose(np.eye(3), np.array([1.0, 0, 0])), then, then + [[0.3, 0.02, 0]]
    )
    np.testing.assert_allclose(aside, 0.02 / np.sqrt(2))
    assert angles_between(np.eye(3)[:1], np.eye(3)[1:2])[0] == pytest.approx(np.pi / 2)


def test_landmarks_keep_their_tracks():
    landmarks = Landmarks()
    first = landmarks.of_tracks(np.array([5, 2, 9]))
    assert len(set(first.tolist())) == 3
    np.testing.assert_array_equal(landmarks.of_tracks(np.array([9, 5])), first[[2, 0]])
    landmarks.sight(first, np.ones((3, 3)), 4)
    landmarks.sight(first[:1], np.zeros((1, 3)), 7)
    assert landmarks.anchor[first].tolist() == [4, 4, 4]
    assert landmarks.last[first].tolist() == [7, 4, 4]
    landmarks.point[first[0]] = 1.0
    assert landmarks.has_point(first).tolist() == [True, False, False]
    landmarks.assign(np.array([2]), first[:1])
    assert landmarks.of_tracks(np.array([2]))[0] == first[0]
    many = landmarks.new(1000)
    assert not landmarks.has_point(many).any()
    landmarks.forget_all()
    assert landmarks.anchor[first].tolist() == [-1, -1, -1]


def test_lost_landmarks_are_found_within_their_set():
    rng = np.random.default_rng(5)
    landmarks = Landmarks()
    descriptors = rng.normal(size=(6, 8)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    sets = np.array([0, 0, 0, 1, 1, 1], np.int32)

    def view(index, rows, ids):
        features = Features(
            np.zeros((6, 2), np.float32), np.ones(6, np.float32), sets, descriptors, (64, 48), 2
        )
        return Seen(index, ids, rows, np.tile([0.1, 0.0, 1.0], (6, 1)), features)

    rows = landmarks.of_tracks(np.arange(6))
    past = view(0, rows, np.arange(6))
    landmarks.sight(rows, past.rays, 0)
    landmarks.point[rows[:5]] = [0.2, 0, 2.0]  # the last has no point
    ids = np.array([0, 11, 12, 13, 14, 15])
    now = view(1, landmarks.of_tracks(ids), ids)
    lost = LostLandmarks.of([past], now, landmarks)
    assert sorted(lost.rows.tolist()) == sorted(rows[1:5].tolist())
    found, places = lost.matches(now.features, np.arange(1, 6))
    assert dict(zip(found.tolist(), lost.rows[places].tolist(), strict=True)) == {
        i: rows[i] for i in range(1, 5)
    }
    points = landmarks.point[lost.rows]
    near, _ = lost.matches_near(now, np.arange(1, 6), points, 0.01, 0.9)
    assert near.tolist() == [1, 2, 3, 4]
    far, _ = lost.matches_near(now, np.arange(1, 6), points + [0.1, 0, 0], 0.01, 0.9)
    behind, _ = lost.matches_near(now, np.arange(1, 6), -points, 0.01, 0.9)
    assert len(far) == len(behind) == 0
    assert len(lost.matches(now.features, np.zeros(0, np.int64))[0]) == 0

"""The visual odometry and its parts, on flights that are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mdnet_ros.data.poses import Pose, Trajectory
from mdnet_ros.evaluation.odometry.bundle_adjustment import adjust
from mdnet_ros.evaluation.odometry.odometry import Odometry
from mdnet_ros.evaluation.odometry.settings import OdometrySettings
from mdnet_ros.evaluation.odometry.triangulation import angles_between, triangulate
from mdnet_ros.evaluation.odometry.two_views import align_rotation, estimate_motion, step_length
from mdnet_ros.evaluation.odometry.views import View, common_rows, observations
from mdnet_ros.evaluation.trajectory_errors import compare_trajectories

pytest.importorskip('evo')
pytest.importorskip('poselib')
pytest.importorskip('pycolmap')

FOCAL, CENTRE, SIZE = 500.0, np.array([320.0, 240.0]), (640, 480)


def turn(*vector):
    return cv2.Rodrigues(np.array(vector, np.float64))[0]


def project(points, pose):
    """(N, 2) rays of points in a camera (to map), and which of them are in the image."""
    seen = (points - pose.translation) @ pose.rotation
    rays = seen[:, :2] / np.maximum(seen[:, 2:], 0.1)
    pixels = FOCAL * rays + CENTRE
    inside = (seen[:, 2] > 0.5) & (pixels > 0).all(axis=1) & (pixels < SIZE).all(axis=1)
    return rays, inside


def fly(points, poses, noise, rng, cut=None):
    """(track ids, rays) along a path; at frame ``cut`` every track ends and a new one begins."""
    frames = []
    for i, pose in enumerate(poses):
        rays, inside = project(points, pose)
        seen = np.nonzero(inside)[0]
        ids = seen + (len(points) if cut is not None and i >= cut else 0)
        frames.append((ids, rays[seen] + rng.normal(0, noise / FOCAL, (len(seen), 2))))
    return frames


def track_of(poses):
    return Trajectory(
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


def run(frames, seed=0, start=0):
    odometry = Odometry(FOCAL, OdometrySettings(seed=seed))
    for i, (ids, rays) in enumerate(frames):
        odometry.add(ids, rays, (start + i) * 10**8)
    return odometry


@pytest.mark.parametrize(('noise', 'limit'), [(0.0, 0.002), (0.3, 0.01)])
def test_a_known_flight(noise, limit):
    rng = np.random.default_rng(0)
    poses = bow()
    odometry = run(fly(scene(rng), poses, noise, rng))
    path = odometry.path()
    assert (odometry.restarts, odometry.bridged) == (0, 0)
    assert len(path) > 0.9 * len(poses)
    errors = compare_trajectories(path, track_of(poses))
    assert errors.length == pytest.approx(5.0, rel=0.2)
    assert errors.ate < limit * errors.length
    assert errors.rpe_rotation < 0.1 + noise / 2


def test_the_same_seed_gives_the_same_path_and_others_hardly_differ():
    rng = np.random.default_rng(0)
    poses = bow()
    frames = fly(scene(rng), poses, 0.5, rng)
    bad = np.random.default_rng(1)
    for ids, rays in frames:  # one observation in ten is wrong
        wrong = bad.random(len(ids)) < 0.1
        rays[wrong] += bad.normal(0, 30 / FOCAL, (wrong.sum(), 2))
    first, again = run(frames).path(), run(frames).path()
    np.testing.assert_array_equal(first.translations, again.translations)
    np.testing.assert_array_equal(first.rotations, again.rotations)
    ates = [
        compare_trajectories(run(frames, seed).path(), track_of(poses)).ate for seed in range(4)
    ]
    assert max(ates) < 0.05
    assert np.ptp(ates) < 0.03


def test_poses_are_given_at_once():
    """A frame's pose at the time is close to what it is in the end."""
    rng = np.random.default_rng(0)
    poses = bow()
    odometry = Odometry(FOCAL)
    online = {}
    for i, (ids, rays) in enumerate(fly(scene(rng), poses, 0.3, rng)):
        pose = odometry.add(ids, rays, i * 10**8)
        if pose is not None:
            online[i * 10**8] = pose
    assert len(online) > 30
    path = odometry.path()
    for stamp, pose in online.items():
        final = path.interpolated_at(stamp)
        step = np.median(lengths(path))
        assert np.linalg.norm(pose.translation - final.translation) < 0.3 * step


def test_a_map_starts_on_the_near_landmarks_where_most_are_far():
    """The median parallax stays small as long as the far landmarks are the most."""
    rng = np.random.default_rng(11)
    far = np.column_stack([rng.uniform(-60, 60, 900), rng.uniform(-30, 30, 900),
                           rng.uniform(80, 120, 900)])  # fmt: skip
    near = np.column_stack([rng.uniform(-6, 6, 300), rng.uniform(-4, 4, 300),
                            rng.uniform(5, 10, 300)])  # fmt: skip
    poses = [Pose(np.eye(3), np.array([0.12, 0.02, 0.05]) * i) for i in range(30)]
    frames = fly(np.concatenate([far, near]), poses, 0.3, rng)
    first, last = (View(0, ids, ids, np.column_stack([rays, np.ones(len(ids))]))
                   for ids, rays in (frames[0], frames[-1]))  # fmt: skip
    rows, later = common_rows(first, last)
    assert np.degrees(np.median(angles_between(first.rays[rows], last.rays[later]))) < 3
    assert np.isin(first.ids[rows], np.arange(len(far))).mean() > 0.7
    odometry = Odometry(FOCAL)
    located = [odometry.add(*frame, i * 10**8) is not None for i, frame in enumerate(frames)]
    assert all(located[10:])
    errors = compare_trajectories(odometry.path(), track_of(poses))
    assert errors.frames == len(poses)
    assert errors.ate < 0.02 * errors.length


def test_a_turn_is_not_taken_for_a_translation():
    """Before a camera that turns has moved enough, no map starts; the map has the true shape."""
    rng = np.random.default_rng(5)
    points = np.column_stack([rng.uniform(-3, 3, 600), rng.uniform(-1, 1, 600),
                              rng.uniform(2.5, 3.5, 600)])  # fmt: skip
    turning = [Pose(turn(0, 0.02 * i, 0), np.array([0.004 * i, 0, 0])) for i in range(8)]
    walking = [
        Pose(turn(0, 0.14 + 0.01 * i, 0), np.array([0.028 + 0.1 * i, 0, 0.03 * i]))
        for i in range(1, 15)
    ]
    poses = turning + walking
    odometry = Odometry(FOCAL)
    frames = fly(points, poses, 0.5, rng)
    located = [odometry.add(*frame, i * 10**8) is not None for i, frame in enumerate(frames)]
    assert not any(located[:8])
    assert all(located[14:])
    errors = compare_trajectories(odometry.path(), track_of(poses))
    assert errors.ate < 0.03 * errors.length


def test_the_heading_goes_on_where_the_map_is_lost():
    """In the frame that cannot be located the camera turns on as in the frame before."""
    rng = np.random.default_rng(1)
    poses = [Pose(turn(0, 0.05 * i, 0), np.array([0.15 * i, 0, 0.05 * i])) for i in range(30)]
    points = np.column_stack([rng.uniform(-20, 30, 6000), rng.uniform(-4, 4, 6000),
                              rng.uniform(3, 20, 6000)])  # fmt: skip
    odometry = run(fly(points, poses, 0.2, rng, cut=16))
    assert odometry.restarts == 1
    path = odometry.path()
    assert len(path) == len(poses)
    turned = cv2.Rodrigues(path.rotations[0].T @ path.rotations[-1])[0].ravel()
    np.testing.assert_allclose(turned, [0, 0.05 * 29, 0], atol=0.02)


def test_it_survives_a_gap():
    rng = np.random.default_rng(0)
    poses = bow()
    frames = fly(scene(rng), poses, 0.1, rng)
    frames[20] = (np.zeros(0, np.int64), np.zeros((0, 2)))
    odometry = run(frames)
    assert odometry.restarts == 1
    path = odometry.path()
    assert len(path) > 0.8 * len(poses)
    assert (np.diff(path.stamps_ns) > 0).all()
    assert np.isfinite(path.translations).all()


def test_rays_that_no_camera_sees_are_left_out():
    rng = np.random.default_rng(0)
    poses = bow(20)
    frames = fly(scene(rng), poses, 0.1, rng)
    for ids, rays in frames:
        rays[::7] = np.nan
        rays[::11] = 1e9
        assert len(ids) > 100
    assert compare_trajectories(run(frames).path(), track_of(poses)).ate < 0.05


def lengths(path):
    return np.linalg.norm(np.diff(path.translations, axis=0), axis=1)


def test_a_restart_goes_on_from_the_last_pose():
    """Every track ends at once: a new map starts where the old one ended."""
    rng = np.random.default_rng(1)
    poses = bow()
    frames = fly(scene(rng), poses, 0.2, rng, cut=22)
    cut = run(frames)
    assert cut.restarts == 1
    told = Odometry(FOCAL)
    for i, (ids, rays) in enumerate(frames):
        if i == 22:
            told.restart()
        told.add(ids, rays, i * 10**8)
    assert told.restarts == 0
    np.testing.assert_array_equal(cut.path().translations, told.path().translations)
    steps = lengths(cut.path())
    assert steps.max() < 5 * np.median(steps)


def test_rejected_matches_stand_for_other_points():
    """A track that jumps to another point, and is told to be an outlier there, does no harm."""
    rng = np.random.default_rng(3)
    points, poses = scene(rng, 400), bow(30)
    odometry, owner = Odometry(FOCAL), np.arange(400)
    for i, pose in enumerate(poses):
        rays, inside = project(points, pose)
        outlier = np.zeros(400, bool)
        if i % 3 == 0:
            swap = rng.choice(400, 80, replace=False)
            owner[swap] = owner[rng.permutation(swap)]
            outlier[swap] = True
        seen = np.nonzero(inside[owner])[0]
        odometry.add(seen, rays[owner[seen]], i * 10**8, outlier[seen])
    assert odometry.restarts == 0
    assert compare_trajectories(odometry.path(), track_of(poses)).ate < 0.02


def begin_new_tracks(frames, old, shift):
    """Let all tracks but the old ones end after frame 19; the same points get other ids there."""
    for i in range(19, len(frames)):
        ids, rays = frames[i]
        fresh = ids + shift
        if i == 19:  # here the new tracks begin, beside the ones that are about to end
            extra = ~np.isin(ids, old)
            frames[i] = np.concatenate([ids, fresh[extra]]), np.concatenate([rays, rays[extra]])
        else:
            frames[i] = np.where(np.isin(ids, old), ids, fresh), rays


def test_scale_passes_through_a_turn_in_which_few_landmarks_survive():
    """Nine landmarks are too few for PnP; the step's length comes from them."""
    rng = np.random.default_rng(2)
    points, poses = scene(rng), bow(30)
    frames = fly(points, poses, 0.0, rng)
    old = np.intersect1d(frames[19][0], frames[20][0])[:9]
    begin_new_tracks(frames, old, len(points))
    odometry = run(frames)
    assert odometry.bridged >= 1
    assert odometry.restarts == 0
    true = lengths(track_of(poses))[5:]
    found = lengths(odometry.path())[-len(true):]
    ratio = found / true
    assert np.abs(ratio / np.median(ratio) - 1).max() < 0.05


def test_few_landmarks_that_move_along_do_not_collapse_the_scale():
    """PnP on fourteen of some hundred tracks finds the camera standing still."""
    rng = np.random.default_rng(2)
    points, poses = scene(rng), bow(30)
    frames = fly(points, poses, 0.0, rng)
    old = np.intersect1d(frames[19][0], frames[20][0])[:14]
    at_19 = frames[19][1][np.isin(frames[19][0], old)]
    begin_new_tracks(frames, old, len(points))
    ids, rays = frames[20]
    rays[np.isin(ids, old)] = at_19
    for i in range(21, 30):
        ids, rays = frames[i]
        frames[i] = np.where(np.isin(ids, old), ids + len(points), ids), rays
    odometry = run(frames)
    assert odometry.bridged >= 1
    assert odometry.restarts == 0
    found, true = lengths(odometry.path()), lengths(track_of(poses))
    ratio = found[5:] / true[-len(found):][5:]
    assert np.abs(ratio / np.median(ratio) - 1).max() < 0.2


@pytest.mark.parametrize('turning', [0.0, 0.03])
def test_a_camera_that_stops_stays_where_it_is(turning):
    """Also while few of its tracks have landmarks; it may turn on the spot."""
    rng = np.random.default_rng(2)
    points, poses = scene(rng), bow(20)
    end = poses[-1]
    poses += [Pose(end.rotation @ turn(0, turning * i, 0), end.translation) for i in range(1, 9)]
    frames = fly(points, poses, 0.3, rng)
    old = np.intersect1d(frames[19][0], frames[27][0])[:24]
    for i in range(20, 28):
        ids, rays = frames[i]
        frames[i] = np.where(np.isin(ids, old), ids, ids + len(points)), rays
    odometry = run(frames)
    assert odometry.restarts == 0
    assert lengths(odometry.path())[-8:].max() < 0.25  # usual: 1


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
    sequence, lives = [], np.zeros(count, np.int64)
    for pose in poses:
        rays, inside = project(points, pose)
        seen = np.nonzero(inside & (points[:, 2] - pose.translation[2] < 50))[0]
        lives += rng.random(count) < 1 / life
        ids = seen + count * lives[seen]
        sequence.append((ids, rays[seen] + rng.normal(0, noise / FOCAL, (len(seen), 2))))
    return sequence, poses


def test_scale_stays_where_most_points_are_new():
    """More of them than are adjusted: they must lie where the adjusted poses saw them."""
    frames, poses = street(np.random.default_rng(0), 3000, noise=1.0, life=4, frames=40)
    odometry = run(frames)
    assert (odometry.restarts, odometry.bridged) == (0, 0)
    assert compare_trajectories(odometry.path(), track_of(poses)).ate < 0.3


def test_long_runs_forget_old_tracks(monkeypatch):
    """Memory stays bounded, and the path is the same as without forgetting."""
    frames, _ = street(np.random.default_rng(0), 1500, noise=0.3, life=6, frames=40)
    whole = run(frames)
    monkeypatch.setattr('mdnet_ros.evaluation.odometry.odometry._MAX_TRACKS', 2000)
    bounded = run(frames)
    assert len(whole._landmark_of_track) > 3000
    assert len(bounded._landmark_of_track) < len(whole._landmark_of_track)
    np.testing.assert_array_equal(whole.path().translations, bounded.path().translations)
    assert len(whole._map.points) < 3000


def window(rng, noise=0.0, views=5, count=60):
    """Views of points, their poses, and the points by id."""
    points = rng.uniform([-3, -2, 4], [3, 2, 9], (count, 3))
    poses = [
        Pose(turn(*rng.normal(0, 0.05, 3)), np.array([0.4 * i, -0.02 * i, 0.05 * i]))
        for i in range(views)
    ]
    made = []
    for i, pose in enumerate(poses):
        seen = np.nonzero((rng.random(count) < 0.8) | (i < 2))[0]
        camera = (points[seen] - pose.translation) @ pose.rotation
        rays = camera / camera[:, 2:]
        rays[:, :2] += rng.normal(0, noise, (len(seen), 2))
        made.append(View(i, seen, seen, rays, pose))
    return made, poses, points


def test_bundle_adjustment_finds_the_truth_again():
    rng = np.random.default_rng(3)
    views, poses, points = window(rng)
    for view in views[2:]:
        view.pose = Pose(
            turn(*rng.normal(0, 0.01, 3)) @ view.pose.rotation,
            view.pose.translation + rng.normal(0, 0.03, 3),
        )
    shaken = dict(enumerate(points + rng.normal(0, 0.1, points.shape)))
    found = adjust(views, shaken, 2, 500.0, 1.5, max_points=100, min_points=10)
    assert found.poses[0] is views[0].pose
    assert sorted(found.points) == list(range(60))
    for i, point in found.points.items():
        np.testing.assert_allclose(point, points[i], atol=2e-3)
    for pose, true in zip(found.poses, poses, strict=True):
        np.testing.assert_allclose(pose.rotation, true.rotation, atol=2e-4)
        np.testing.assert_allclose(pose.translation, true.translation, atol=1e-3)
    assert max(found.errors.values()) < 0.5


def test_bundle_adjustment_takes_what_is_seen_most_and_leaves_poor_views():
    rng = np.random.default_rng(4)
    views, _, points = window(rng, noise=0.001)
    few = View(9, views[3].ids[:4], views[3].ids[:4], views[3].rays[:4], views[3].pose)
    known = dict(enumerate(points))
    found = adjust([*views, few], known, 2, 500.0, 1.5, max_points=20, min_points=5)
    assert len(found.points) == 20
    counts = np.bincount(np.concatenate([view.ids for view in [*views, few]]), minlength=60)
    assert min(counts[i] for i in found.points) >= np.sort(counts)[-20]
    assert found.poses[-1] is few.pose
    assert adjust(views[:2], known, 1, 500.0, 1.5, 20, min_points=30) is None
    behind = dict(known)
    first = next(iter(found.points))
    behind[first] = -behind[first]
    assert adjust(views, behind, 4, 500.0, 1.5, 100, 5).errors[first] > 100


def test_every_view_has_its_share_of_an_adjustment():
    """Landmarks that only the newest views observe are adjusted beside those seen longest."""
    rng = np.random.default_rng(8)
    views, _, points = window(rng, noise=0.0005, count=100)
    new = np.arange(100, 140)
    points = np.concatenate([points, rng.uniform([-3, -2, 4], [3, 2, 9], (40, 3))])
    for view in views[3:]:
        camera = (points[new] - view.pose.translation) @ view.pose.rotation
        keep = view.ids[:4]  # nearly all old tracks have ended
        view.ids = view.track_ids = np.concatenate([keep, new])
        view.rays = np.concatenate([view.rays[:4], camera / camera[:, 2:]])
    found = adjust(views, dict(enumerate(points)), 2, 500.0, 1.5, max_points=50, min_points=5)
    assert len(found.points) == 50
    assert np.isin(list(found.points), new).sum() >= 5
    assert min(np.isin(view.ids, list(found.points)).sum() for view in views) >= 10


def test_bundle_adjustment_agrees_with_scipy():
    """The same minimum as an independent solver, with noise and a gross error."""
    optimize = pytest.importorskip('scipy.optimize')
    views, poses, points = window(np.random.default_rng(5), noise=0.001, views=4, count=25)
    views[2].rays[3, :2] += 0.05
    limit = 1.0

    def residuals(poses, points):
        parts = []
        for view, pose in zip(views, poses, strict=True):
            camera = (points[view.ids] - pose.translation) @ pose.rotation
            parts.append(FOCAL * (camera[:, :2] / camera[:, 2:] - view.rays[:, :2]))
        errors = np.concatenate(parts)
        length = np.linalg.norm(errors, axis=1)
        huber = np.where(length < limit, length**2, 2 * limit * length - limit**2)
        return (errors * (np.sqrt(huber) / np.maximum(length, 1e-12))[:, None]).ravel()

    def cost(poses, points):
        return (residuals(poses, points) ** 2).sum()

    def unpack(x):
        free = [
            Pose(p.rotation @ turn(*step[:3]), p.translation + step[3:])
            for step, p in zip(x[:12].reshape(2, 6), poses[2:], strict=True)
        ]
        return poses[:2] + free, x[12:].reshape(-1, 3)

    start = np.concatenate([np.zeros(12), points.ravel()])
    best = optimize.least_squares(lambda x: residuals(*unpack(x)), start, max_nfev=30)
    found = adjust(views, dict(enumerate(points)), 2, FOCAL, limit, 100, 5)
    moved = np.stack([found.points[i] for i in range(25)])
    assert cost(found.poses, moved) == pytest.approx(2 * best.cost, rel=5e-3)
    assert cost(found.poses, moved) < cost(poses, points)


def test_landmarks_are_triangulated_from_all_views():
    views, _, points = window(np.random.default_rng(6))
    views[4].rays[0, :2] += 0.1  # one observation of one landmark is wrong
    wrong = int(views[4].ids[0])
    found = triangulate(views, np.arange(60), 1.0, 0.006)
    assert set(range(60)) - set(found) == {wrong}
    for landmark, point in found.items():
        np.testing.assert_allclose(point, points[landmark], atol=1e-6)
    assert sorted(triangulate(views, np.array([3, 5]), 1.0, 0.006)) == sorted({3, 5} - {wrong})
    assert triangulate(views[:1], np.arange(60), 1.0, 0.006) == {}
    assert triangulate(views, np.arange(60), 80.0, 0.006) == {}  # too little parallax


def test_observations_are_grouped_by_landmark():
    rays = np.column_stack([np.arange(12).reshape(6, 2), np.ones(6)]) / 10
    a = View(0, np.array([1, 4, 7]), np.array([1, 4, 7]), rays[:3])
    b = View(1, np.array([4, 5, 7]), np.array([4, 5, 7]), rays[3:])
    seen = observations([a, b], np.array([1, 4, 5, 7]))
    assert seen.ids.tolist() == [4, 7]
    assert seen.starts.tolist() == [0, 2, 4]
    assert seen.views.tolist() == [0, 1, 0, 1]
    assert seen.rows.tolist() == [1, 0, 2, 2]
    np.testing.assert_array_equal(seen.rays, np.stack([rays[1], rays[3], rays[2], rays[5]]))
    assert observations([a, b], np.array([1, 5]), at_least=1).ids.tolist() == [1, 5]
    assert common_rows(a, b)[0].tolist() == [1, 2]
    assert common_rows(a, b)[1].tolist() == [0, 2]
    b.rename(np.array([0]), np.array([9]))
    assert b.ids.tolist() == [5, 7, 9]
    assert b.track_ids.tolist() == [5, 7, 4]
    np.testing.assert_array_equal(b.rays, rays[[4, 5, 3]])


def test_motion_and_step_length_by_hand():
    views, poses, points = window(np.random.default_rng(7))
    motion = estimate_motion(views[0], views[2], FOCAL, 1.5, 0)
    true = poses[0].inverse() @ poses[2]
    length = np.linalg.norm(true.translation)
    np.testing.assert_allclose(motion.earlier_from_later.rotation, true.rotation, atol=1e-6)
    np.testing.assert_allclose(
        motion.earlier_from_later.translation, true.translation / length, atol=1e-5
    )
    assert len(motion.rows) == len(views[2].ids)
    assert motion.parallax.shape == motion.certain_parallax.shape == motion.rows.shape
    assert 3 < np.degrees(np.median(motion.parallax)) < 15
    known = dict(enumerate(points))
    step = Pose(true.rotation, true.translation / length)
    rows = np.arange(len(views[2].ids))
    assert step_length(views[2], rows, known, poses[0], step) == pytest.approx(length)
    assert step_length(views[2], rows[:2], known, poses[0], step) is None
    back = Pose(true.rotation, -true.translation / length)
    assert step_length(views[2], rows, known, poses[0], back) is None
    assert angles_between(np.eye(3)[:1], np.eye(3)[1:2])[0] == pytest.approx(np.pi / 2)


def test_rotations_are_fitted_in_spite_of_outliers():
    rng = np.random.default_rng(9)
    a = np.column_stack([rng.uniform(-0.5, 0.5, (100, 2)), np.ones(100)])
    true = turn(0.1, -0.2, 0.05)
    b = a @ true.T * rng.uniform(0.5, 2, (100, 1))
    b[:20] += rng.normal(0, 0.3, (20, 3))
    np.testing.assert_allclose(align_rotation(a, b, 1e-6), true, atol=1e-4)

"""Replayed bags: a rendered one end to end, ground-truth files, KLT, odometry by hand."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from mdnet_ros.cli.main import main
from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.poses import Pose, Trajectory, quaternion_of_rotation
from mdnet_ros.demo.recording import write_scene
from mdnet_ros.demo.scene import Scene, SceneSettings
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.klt import KltTracker
from mdnet_ros.evaluation.odometry.odometry import Odometry
from mdnet_ros.evaluation.replay.frontend import frontend_specs
from mdnet_ros.evaluation.replay.ground_truth import load_ground_truth, read_extrinsics
from mdnet_ros.evaluation.replay.protocol import count_drops
from mdnet_ros.evaluation.tracks.statistics import GRID, coverage_of
from mdnet_ros.evaluation.trajectory_errors import align_similarity, compare_trajectories
from mdnet_ros.features.types import Correspondences, Features, TrackedFrame

pytest.importorskip('evo')
pytest.importorskip('poselib')
pytest.importorskip('rosbags')

FLIGHT = SceneSettings(duration_s=2.0, rate_hz=12, width=320, height=240)
FRAMES = 24


@pytest.fixture(scope='module')
def scene():
    return Scene(FLIGHT)


@pytest.fixture(scope='module')
def bag(scene, tmp_path_factory):
    path = tmp_path_factory.mktemp('bags') / 'hall'
    write_scene(scene, path)
    return path


def run(tmp_path, *arguments):
    report = tmp_path / 'report.json'
    report.unlink(missing_ok=True)
    code = main(
        [
            'evaluate', 'replay', '--cache', str(tmp_path / 'cache'), '--max-keypoints', '400',
            '--json', str(report), *map(str, arguments),
        ]
    )  # fmt: skip
    return code, json.loads(report.read_text()) if report.exists() else None


def test_end_to_end(bag, tmp_path, capsys):
    html = tmp_path / 'page.html'
    code, report = run(
        tmp_path, '--bag', bag, '--extractors', 'sift,klt', '--html', html, '--seeds', 2
    )
    assert code == 0
    assert list(report['extractors']) == ['sift', 'klt']
    for values in report['extractors'].values():
        metrics = values['parts']['hall']
        summary, milliseconds = metrics['summary'], metrics['milliseconds']
        assert summary['frames'] == len(milliseconds) == FRAMES
        assert metrics['input_rate'] == pytest.approx(12.0, rel=0.01)
        assert metrics['figures']['hz'] == pytest.approx(1e3 / np.mean(milliseconds))
        assert metrics['figures']['latency_ms'] == {
            f'p{p}': pytest.approx(np.percentile(milliseconds, p)) for p in (50, 90, 99)
        }
        assert summary['matches_per_frame'] > 50
        assert summary['precision']['kind'] == 'epipolar'
        assert summary['precision']['within']['3'] > 0.6
        assert metrics['coverage'] > 0.3
        assert [d['distance'] for d in metrics['distances']] == [1, 2, 5, 10]
        assert [d['pairs'] for d in metrics['distances']] == [23, 22, 19, 14]
        assert metrics['distances'][2]['rotation'] < 1.0
        assert metrics['distances'][2]['translation'] < 10.0
        first, second = metrics['odometry']
        assert (first['seed'], second['seed']) == (0, 1)
        for run_ in (first, second):
            assert run_['located'] > 0.6
            assert run_['errors']['ate'] < 0.1 * run_['errors']['length']
    page = html.read_text()
    assert page.count('data:image/svg') == 3
    assert 'hall' in capsys.readouterr().out


def test_pose_files_give_what_the_topic_gives(bag, scene, tmp_path):
    truth = scene.poses
    truth = truth() if callable(truth) else truth
    tum = tmp_path / 'tum.txt'
    kitti = tmp_path / 'kitti.txt'
    euroc = tmp_path / 'euroc.csv'
    rows: dict[str, list[str]] = {'tum': [], 'kitti': [], 'euroc': []}
    for i, stamp in enumerate(truth.stamps_ns):
        x, y, z = truth.translations[i]
        q = quaternion_of_rotation(truth.rotations[i])
        seconds, rest = divmod(int(stamp), 10**9)
        rows['tum'].append(f'{seconds}.{rest:09d} {x} {y} {z} {q[0]} {q[1]} {q[2]} {q[3]}')
        rows['euroc'].append(f'{stamp},{x},{y},{z},{q[3]},{q[0]},{q[1]},{q[2]}')
        matrix = np.column_stack([truth.rotations[i], truth.translations[i]])
        rows['kitti'].append(' '.join(f'{v:.12f}' for v in matrix.ravel()))
    for path in (tum, kitti, euroc):
        head = '#timestamp,x,y,z,…\n' if path is euroc else ''
        path.write_text(head + '\n'.join(rows[path.stem]) + '\n')
        found = load_ground_truth(path, list(truth.stamps_ns))
        assert len(found) == len(truth)
        assert np.abs(found.stamps_ns - truth.stamps_ns).max() < 1000
        np.testing.assert_allclose(found.rotations, truth.rotations, atol=1e-6)
        np.testing.assert_allclose(found.translations, truth.translations, atol=1e-6)
    arguments = ('--bag', bag, '--extractors', 'klt', '--no-odometry', '--max-frames', '8')
    # KITTI's poses belong to all images of the bag, not to the first eight.
    for part in ((), ('--part', '0.25', '0.75')):
        _, of_kitti = run(tmp_path, *arguments, *part, '--ground-truth', kitti)
        _, expected = run(tmp_path, *arguments, *part)
        assert of_kitti['omitted'] == []
        a, b = (r['extractors']['klt']['parts']['hall'] for r in (of_kitti, expected))
        a, b = (metrics['summary']['precision'] for metrics in (a, b))
        assert a['matches'] == b['matches'] > 100
        assert a['within']['2'] == pytest.approx(b['within']['2'], abs=0.01)
    _, of_file = run(tmp_path, *arguments, '--ground-truth', tum)
    _, of_topic = run(tmp_path, *arguments)
    a, b = (r['extractors']['klt']['parts']['hall'] for r in (of_file, of_topic))
    assert a['summary']['precision']['within']['2'] == pytest.approx(
        b['summary']['precision']['within']['2'], abs=0.02
    )
    assert a['odometry'] == []


def euroc_folder(root, truth, to_body):
    """An EuRoC recording: the poses of a body that carries the camera, and the extrinsics."""
    from_body = to_body.inverse()
    lines = ['#timestamp,x,y,z,…']
    for i, stamp in enumerate(truth.stamps_ns):
        body = truth[i] @ from_body
        x, y, z, w = quaternion_of_rotation(body.rotation)
        lines.append(','.join(map(str, [stamp, *body.translation, w, x, y, z])))
    poses = root / 'mav0' / 'state_groundtruth_estimate0' / 'data.csv'
    sensor = root / 'mav0' / 'cam0' / 'sensor.yaml'
    for path in (poses, sensor):
        path.parent.mkdir(parents=True)
    poses.write_text('\n'.join(lines))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = to_body.rotation, to_body.translation
    data = ', '.join(f'{v:.12f}' for v in matrix.ravel())
    sensor.write_text(f'#\nT_BS:\n  cols: 4\n  rows: 4\n  data: [{data}]\nrate_hz: 9\n')
    return poses, sensor


def test_poses_of_a_body_become_those_of_its_camera(bag, scene, tmp_path, capsys):
    truth = scene.poses
    truth = truth() if callable(truth) else truth
    turn = cv2.Rodrigues(np.array([1.2, -1.2, 1.2]))[0]
    to_body = Pose(turn, np.array([0.2, -0.5, 0.1]))
    poses, sensor = euroc_folder(tmp_path, truth, to_body)
    moved = load_ground_truth(poses, []).seen_from(read_extrinsics(sensor))
    np.testing.assert_allclose(moved.rotations, truth.rotations, atol=1e-6)
    np.testing.assert_allclose(moved.translations, truth.translations, atol=1e-6)
    arguments = ('--bag', bag, '--extractors', 'klt', '--no-odometry', '--max-frames', '8')
    _, of_topic = run(tmp_path, *arguments)
    _, beside = run(tmp_path, *arguments, '--ground-truth', poses)
    other = tmp_path / 'camera.yaml'
    sensor.rename(other)
    _, told = run(tmp_path, *arguments, '--ground-truth', poses, '--extrinsics', other)
    metrics = [
        report['extractors']['klt']['parts']['hall']['summary']['precision']['within']['2']
        for report in (of_topic, beside, told)
    ]
    assert metrics[1:] == pytest.approx([metrics[0]] * 2, abs=0.02)
    assert beside['omitted'] == []
    # Without the camera's place on the body the poses are not the camera's.
    code, without = run(tmp_path, *arguments, '--ground-truth', poses)
    assert (code, without) == (2, None)
    assert 'expected --extrinsics' in capsys.readouterr().err


@pytest.mark.parametrize(
    'content', ['', 'T_BS: 3', 'rate: 1', 'T_BS: [1, 2]', '[', f'T_BS: {[2.0] * 16}']
)
def test_malformed_extrinsics_are_one_line(tmp_path, content):
    path = tmp_path / 'sensor.yaml'
    path.write_text(content)
    with pytest.raises(DataError, match='extrinsics') as error:
        read_extrinsics(path)
    assert '\n' not in str(error.value)


def test_tables_as_text_say_where_they_come_from(bag, tmp_path):
    text = tmp_path / 'replay.txt'
    arguments = ('--bag', bag, '--extractors', 'klt,md2net-light', '--no-odometry')
    code, report = run(
        tmp_path, *arguments, '--max-frames', '3', '--text', text, '--remark', 'by hand'
    )
    assert code == 0
    source, = report['provenance']
    lines = text.read_text().splitlines()
    assert lines[0].startswith('$ mdnet evaluate replay --cache cache --max-keypoints 400 --json')
    assert str(tmp_path) not in text.read_text()
    assert len(source['weights']['md2net-light']) == 64
    assert f"# weights: md2net-light sha256 {source['weights']['md2net-light']}" in lines
    assert '# remark: by hand' in lines
    assert any(line.startswith('# versions: ') and cv2.__version__ in line for line in lines)
    assert any(line.split()[:1] == ['klt'] for line in lines)
    assert any('rate [Hz]' in line for line in lines)  # no markup
    joined, again = tmp_path / 'joined.json', tmp_path / 'again.txt'
    whole = ['evaluate', 'merge', str(tmp_path / 'report.json'), '--json', str(joined)]
    assert main([*whole, '--text', str(again)]) == 0
    assert again.read_text() == text.read_text()


def test_refined_tracks_beside_those_as_detected_and_optical_flow(bag, tmp_path):
    names = ['md2net-light', 'md2net-light+flow', 'klt', 'klt-forward']
    code, report = run(
        tmp_path, '--bag', bag, '--extractors', ','.join(names), '--max-frames', '8',
        '--no-odometry',
    )
    assert code == 0
    assert list(report['extractors']) == names
    assert list(report['provenance'][0]['weights']) == ['md2net-light']
    plain, flow, klt, forward = (
        report['extractors'][name]['parts']['hall']['summary'] for name in names
    )
    # More of its inliers are precise, and tracks are propagated between detections.
    assert flow['precision']['inliers_within']['1'] > plain['precision']['inliers_within']['1']
    assert flow['keypoints_per_frame'] > plain['keypoints_per_frame']
    assert flow['track_length']['mean'] > plain['track_length']['mean']
    # Without the check backwards more corners are followed, with fewer of them right.
    assert forward['matches_per_frame'] >= klt['matches_per_frame']
    assert forward['precision']['within']['1'] <= klt['precision']['within']['1']


def test_the_odometry_reads_what_an_estimator_gets(bag, tmp_path, monkeypatch, capsys):
    seen = []
    add = Odometry.add

    def noted(odometry, track_ids, rays, stamp_ns, outlier=None):
        seen.append((track_ids, rays, outlier))
        return add(odometry, track_ids, rays, stamp_ns, outlier)

    monkeypatch.setattr(Odometry, 'add', noted)
    code, report = run(tmp_path, '--bag', bag, '--extractors', 'sift', '--max-tracks', 60)
    assert code == 0
    assert report['settings']['max_tracks'] == 60
    assert 'visual odometry from at most 60 tracks of each image' in capsys.readouterr().out
    assert len(seen) == FRAMES - 1  # the first frame has no tracks yet
    assert max(len(track_ids) for track_ids, _, _ in seen) == 60
    assert all(outlier is None and np.isfinite(rays).all() for _, rays, outlier in seen)
    assert report['extractors']['sift']['parts']['hall']['odometry'][0]['located'] > 0.5


def test_the_calibration_may_lie_on_any_topic(bag, tmp_path, capsys):
    code, _ = run(
        tmp_path, '--bag', bag, '--extractors', 'klt', '--max-frames', 4,
        '--camera-info-topic', '/camera/camera_info',
    )
    assert code == 0
    code, _ = run(
        tmp_path, '--bag', bag, '--extractors', 'klt', '--camera-info-topic', '/other'
    )
    assert code == 2
    assert "'/other'" in capsys.readouterr().err
    code, _ = run(tmp_path, '--bag', bag, '--extractors', 'klt', '--max-tracks', -1)
    assert code == 2
    assert '--max-tracks: expected 0 or more, got -1' in capsys.readouterr().err


def test_broken_bags_are_named_and_the_others_measured(bag, tmp_path, capsys):
    broken = tmp_path / 'broken'
    broken.mkdir()
    (broken / 'metadata.yaml').write_text('no: bag')
    arguments = ('--extractors', 'klt', '--no-odometry', '--max-frames', '4')
    code, report = run(tmp_path, '--bag', broken, '--bag', bag, *arguments)
    assert code == 0
    assert list(report['extractors']['klt']['parts']) == ['hall']
    assert any('broken' in line for line in report['omitted'])
    assert run(tmp_path, '--bag', broken, *arguments)[0] == 2
    assert run(tmp_path, '--bag', bag, '--bag', bag, *arguments)[0] == 2
    two = ('--bag', bag, '--ground-truth', 'a', '--ground-truth', 'b')
    assert run(tmp_path, *two, *arguments)[0] == 2
    assert 'Traceback' not in capsys.readouterr().err


def test_shards_merge(bag, tmp_path):
    arguments = ('--bag', bag, '--no-odometry', '--max-frames', '5', '--extractors')
    parts = []
    for name in ('klt', 'orb'):
        _, part = run(tmp_path, *arguments, name)
        parts.append(tmp_path / f'{name}.json')
        parts[-1].write_text(json.dumps(part))
    joined = tmp_path / 'joined.json'
    assert main(['evaluate', 'merge', *map(str, parts), '--json', str(joined)]) == 0
    document = json.loads(joined.read_text())
    assert set(document['extractors']) == {'klt', 'orb'}
    for path in parts:
        part = json.loads(path.read_text())
        assert document['extractors'][path.stem] == part['extractors'][path.stem]


def test_a_part_of_a_bag(bag, tmp_path, capsys):
    arguments = ('--bag', bag, '--no-odometry', '--extractors', 'klt')
    _, report = run(tmp_path, *arguments, '--part', '0.5', '1')
    second = report['extractors']['klt']['parts']['hall']
    assert second['summary']['frames'] == FRAMES // 2
    assert [d['pairs'] for d in second['distances']] == [11, 10, 7, 2]
    assert second['summary']['precision']['within']['3'] > 0.6
    _, report = run(tmp_path, *arguments, '--part', '0', '0.5')
    first = report['extractors']['klt']['parts']['hall']
    assert first['summary']['precision'] != second['summary']['precision']
    assert run(tmp_path, *arguments, '--part', '0.5', '0.5')[0] == 2
    assert '--part' in capsys.readouterr().err


def test_nothing_to_see_gives_zeros(tmp_path):
    """Flat gray images: no keypoints, no matches, no pose, no crash."""
    from mdnet_ros.bags.messages import BagTopics
    from mdnet_ros.bags.writer import BagWriter

    camera = CameraModel(160, 120, np.array([[150.0, 0, 80], [0, 150, 60], [0, 0, 1]]), np.zeros(0))
    with BagWriter(tmp_path / 'gray') as writer:
        topics = BagTopics(writer)
        for i in range(4):
            stamp = 10**9 + i * 10**8
            topics.camera_info('/camera/camera_info', stamp, 'camera', camera)
            topics.image('/camera/image_raw', stamp, 'camera', np.full((120, 160), 90, np.uint8))
            topics.pose('/ground_truth/pose', stamp, 'map', Pose(np.eye(3), np.array([i, 0, 0.0])))
    code, report = run(tmp_path, '--bag', tmp_path / 'gray', '--extractors', 'sift,klt')
    assert code == 0
    for values in report['extractors'].values():
        metrics = values['parts']['gray']
        summary = metrics['summary']
        assert summary['keypoints_per_frame'] == summary['matches_per_frame'] == 0
        assert metrics['coverage'] == summary['track_length']['mean'] == 0
        assert summary['precision']['within'] == {'1': None, '2': None, '3': None}
        assert summary['precision']['matches'] == 0
        first = metrics['distances'][0]
        assert (first['pairs'], first['failed'], first['accuracy']) == (3, 3, 0)
        assert first['rotation'] is None
        assert metrics['odometry'][0]['located'] == 0
        assert metrics['odometry'][0]['errors'] is None


def test_klt_follows_a_shift():
    rng = np.random.default_rng(0)
    large = cv2.GaussianBlur(rng.integers(0, 255, (200, 260), np.uint8), (0, 0), 2)
    large = cv2.normalize(large, None, 0, 255, cv2.NORM_MINMAX)
    tracker = KltTracker(200)
    first = tracker.update(large[20:170, 20:220], 0)
    second = tracker.update(large[17:167, 25:225], 1)
    assert len(first.correspondences) == 0
    assert (first.ages == 0).all()
    links = second.correspondences
    assert len(links) > 0.6 * len(first.features)
    moved = second.features.keypoints[links.indices] - links.keypoints_prev
    np.testing.assert_allclose(np.median(moved, axis=0), [-5, 3], atol=0.05)
    np.testing.assert_array_equal(
        second.track_ids[links.indices], first.track_ids[links.indices_prev]
    )
    np.testing.assert_array_equal(second.ages[links.indices], 1)
    assert len(np.unique(second.track_ids)) == len(second.track_ids)
    assert len(second.features) <= 200
    # Another image size is another camera mode.
    assert len(tracker.update(large[:100, :100], 2).correspondences) == 0


def test_a_network_at_fp32_is_tracked_and_run_live_as_the_node_would():
    specs = frontend_specs('md2net,md2net-light@fp32,sift,klt', 100, 'cpu', None, None)
    exact = {spec.name: spec.create().exact for spec in specs if spec.source is not None}
    assert exact == {'md2net': False, 'md2net-light@fp32': True, 'sift': False}
    live = {spec.name: spec.network for spec in specs}
    assert live['sift'] is live['klt'] is None
    fp32 = live['md2net-light@fp32']
    assert (fp32.network, fp32.precision, fp32.runtime) == ('md2net-light', 'fp32', 'torch')


def test_drops_by_hand():
    stamps = [0, 100_000_000, 200_000_000, 300_000_000, 400_000_000]
    assert count_drops(stamps, [50.0] * 5) == 0
    assert count_drops(stamps, [100.0] * 5) == 0
    # Busy until 250 ms: the frame of 100 is replaced by that of 200, served until 500;
    # meanwhile 300 is replaced by 400.
    assert count_drops(stamps, [250.0] * 5) == 2
    assert count_drops(stamps, [1000.0] * 5) == 3
    assert count_drops([], []) == 0


def frame(points, ids, previous, stamp):
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
        np.zeros((n, 0), np.float32), (640, 480),
    )  # fmt: skip
    return TrackedFrame(features, ids.astype(np.int64), ages, links, stamp)


def test_coverage_counts_cells():
    centres = [[640 / GRID[0] * (i + 0.5), 480 / GRID[1] * 0.5] for i in range(3)]
    points = np.array([*centres, [639.4, 479.4], [-0.5, -0.5]])
    ids = np.arange(5)
    assert coverage_of(frame(points, ids, ids, 1)) == pytest.approx(4 / (GRID[0] * GRID[1]))
    assert coverage_of(frame(points, ids, ids[:0], 1)) == 0


def test_alignment_undoes_a_similarity():
    rng = np.random.default_rng(1)
    target = rng.normal(size=(20, 3))
    rotation = cv2.Rodrigues(np.array([0.3, -1.0, 0.5]))[0]
    points = 0.2 * target @ rotation + [5, 6, 7]
    np.testing.assert_allclose(align_similarity(points, target), target, atol=1e-9)
    assert align_similarity(points[:2], target[:2]) is None
    assert align_similarity(np.ones((5, 3)), target[:5]) is None


@pytest.mark.parametrize('extractor', ['klt', 'sift'])
@pytest.mark.parametrize('count', [0, -3])
def test_a_number_of_keypoints_that_cannot_be_is_named(bag, capsys, extractor, count):
    assert main(['evaluate', 'replay', '--bag', str(bag), '--extractors', extractor,
                 f'--max-keypoints={count}', '--no-cache']) == 2
    assert f'max keypoints: expected at least 1, got {count}' in capsys.readouterr().err


def test_trajectory_errors_by_hand():
    stamps = np.arange(4) * 10**8
    square = np.array([[0.0, 0, 0], [2, 0, 0], [2, 2, 0], [0, 2, 0]])
    truth = Trajectory(stamps, np.stack([np.eye(3)] * 4), square)
    exact = Trajectory(stamps, truth.rotations, 10 * square + 1)
    errors = compare_trajectories(exact, truth)
    assert errors.ate == pytest.approx(0, abs=1e-9)
    assert errors.scale == pytest.approx(0.1)
    assert errors.length == pytest.approx(6.0)
    # Up and down by 1 at the corners of a square: no similarity takes that away.
    bend = np.array([[0, 0, 1], [0, 0, -1]] * 2)
    bent = Trajectory(stamps, truth.rotations, square + bend)
    assert 0.5 < compare_trajectories(bent, truth).ate <= 1.0
    two = Trajectory(stamps[:2], truth.rotations[:2], square[:2])
    assert compare_trajectories(two, truth) is None

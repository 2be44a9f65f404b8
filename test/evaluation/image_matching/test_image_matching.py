"""Image matching on a rendered scene with depth, and on broken ones."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations

import cv2
import numpy as np
import pytest

from mdnet_ros.cli.main import main
from mdnet_ros.demo.scene import Scene, SceneSettings
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.image_matching import scene as imb_scene
from mdnet_ros.evaluation.image_matching import selection as imb_selection
from mdnet_ros.evaluation.image_matching.averages import multiview_of, stereo_of
from mdnet_ros.evaluation.image_matching.data import find_scenes, load_scene
from mdnet_ros.evaluation.image_matching.pairs import (
    StereoResult,
    ViewFeatures,
    match_with_ratio,
    measure_pair,
    relative_pose,
    repeatability,
    transfer,
)
from mdnet_ros.evaluation.image_matching.reconstruction import ReconstructionInput, reconstruct
from mdnet_ros.evaluation.image_matching.results import SceneResult
from mdnet_ros.evaluation.image_matching.subsets import SubsetResult
from mdnet_ros.features.types import Features

h5py = pytest.importorskip('h5py')
pytest.importorskip('skimage')

IMAGES = 6
RENDERED = SceneSettings(
    duration_s=6.0, rate_hz=1, width=480, height=360, exposure_s=0.0, noise=0.0
)


def write_scene(folder, frames, camera, depth=True):
    for part in ('images', 'calibration', 'depth_maps'):
        (folder / 'set_100' / part).mkdir(parents=True)
    for i, frame in enumerate(frames):
        base, name = folder / 'set_100', f'im-{i}'
        cv2.imwrite(str(base / 'images' / f'{name}.png'), frame.image)
        world_to_camera = frame.pose.inverse()
        with h5py.File(base / 'calibration' / f'calibration_{name}.h5', 'w') as file:
            file['K'], file['R'] = camera.k, world_to_camera.rotation
            file['T'] = world_to_camera.translation[:, None]
        if depth:
            with h5py.File(base / 'depth_maps' / f'{name}.h5', 'w') as file:
                file['depth'] = frame.depth


@pytest.fixture(scope='module')
def rendered():
    scene = Scene(RENDERED)
    return [scene.frame(i) for i in range(IMAGES)], scene.camera


@pytest.fixture(scope='module')
def data(rendered, tmp_path_factory):
    """Two scenes: one with depth maps and visibility pairs, one without."""
    frames, camera = rendered
    root = tmp_path_factory.mktemp('imb')
    write_scene(root / 'hall', frames, camera)
    pairs = [f'im-{j}-im-{i}' for i, j in combinations(range(IMAGES), 2) if j - i < 3]
    (root / 'hall' / 'set_100' / 'new-vis-pairs').mkdir()
    np.save(root / 'hall' / 'set_100' / imb_selection.VISIBILITY_FILE, [*pairs, 'im-0-gone'])
    (root / 'hall' / 'set_100' / 'sub_set').mkdir()
    names = '\n'.join(f'set_100/images/im-{i}.png' for i in range(5))
    (root / 'hall' / 'set_100' / 'sub_set' / '5bag_000.txt').write_text(names + '\n')
    write_scene(root / 'plain', frames[:4], camera, depth=False)
    return root


def run(data, tmp_path, *arguments):
    json_path = tmp_path / 'result.json'
    code = main(
        [
            'evaluate', 'image-matching', '--root', str(data), '--cache', str(tmp_path / 'cache'),
            '--max-keypoints', '800', '--json', str(json_path), *arguments,
        ]
    )  # fmt: skip
    return code, json.loads(json_path.read_text()) if json_path.exists() else None


def test_end_to_end(data, tmp_path, capsys):
    html = tmp_path / 'page.html'
    code, report = run(
        data, tmp_path, '--extractors', 'sift', '--html', str(html), '--bag-sizes', '5',
        '--published',
    )  # fmt: skip
    assert code == 0
    hall = report['extractors']['sift']['parts']['hall']
    assert hall['figures']['stereo']['pairs'] == 9
    assert hall['figures']['stereo']['mean_accuracy'] > 0.8
    assert hall['figures']['stereo']['inliers'] > 50
    assert 0.2 < hall['figures']['stereo']['repeatability'] <= 1
    assert hall['figures']['stereo']['matching_score'] > 0.8
    assert hall['figures']['multiview']['subsets'] == 1
    assert hall['subsets'][0]['registered'] == 5
    assert hall['subsets'][0]['accuracy'] > 0.8
    assert hall['subsets'][0]['landmarks'] > 50
    assert hall['subsets'][0]['ate'] < 0.2
    assert any('im-0-gone' in line for line in report['omitted'])
    plain = report['extractors']['sift']['parts']['plain']
    # Without depth maps these are missing, not zero.
    assert plain['figures']['stereo']['repeatability'] is None
    assert plain['figures']['stereo']['matching_score'] is None
    assert plain['figures']['multiview'] is None  # four images are no subset of five
    overall = report['extractors']['sift']['figures']['stereo']
    both = [s['figures']['stereo']['mean_accuracy'] for s in (hall, plain)]
    assert overall['mean_accuracy'] == pytest.approx(np.mean(both))
    assert overall['repeatability'] == hall['figures']['stereo']['repeatability']
    assert 'published' in report
    page = html.read_text()
    assert 'data:image/jpeg' in page
    assert 'data:image/svg' in page
    assert 'http' not in page.replace('http://www.w3.org', '')
    assert 'published' in capsys.readouterr().out


def test_validation_scene_shards_and_merge(data, tmp_path):
    stereo = ('--extractors', 'orb', '--no-multiview', '--max-pairs', '2')
    code, report = run(data, tmp_path, *stereo, '--validation-scene', 'plain', '--ratio', 'auto')
    assert code == 0
    choice = report['extractors']['orb']['choice']
    assert choice['chosen_on'] == 'plain'
    assert list(report['extractors']['orb']['parts']) == ['hall']

    _, whole = run(data, tmp_path, *stereo)
    # The choice reaches on its scene what was promised, and no less than the default.
    chosen = ('--threshold', str(choice['threshold']), '--ratio', str(choice['ratio']))
    _, again = run(data, tmp_path, *stereo, *chosen)
    by_choice, by_default = (
        document['extractors']['orb']['parts']['plain']['figures']['stereo']['mean_accuracy']
        for document in (again, whole)
    )
    assert by_choice == pytest.approx(choice['validation_accuracy'])
    assert by_choice >= by_default
    paths = []
    for i in (1, 2):
        _, part = run(data, tmp_path, *stereo, '--shard', f'{i}/2')
        paths.append(tmp_path / f'{i}.json')
        paths[-1].write_text(json.dumps(part))
    joined = tmp_path / 'joined.json'
    assert main(['evaluate', 'merge', *map(str, paths), '--json', str(joined)]) == 0
    merged = json.loads(joined.read_text())
    assert [len(d.pop('provenance')) for d in (merged, whole)] == [2, 1]
    assert merged == whole
    # The same scene twice does not merge.
    assert main(['evaluate', 'merge', *[str(paths[0])] * 2, '--json', str(joined)]) == 2


def test_transfer_follows_the_rendered_scene(data, rendered):
    """A pixel moved by depth looks the same in the other image."""
    frames, camera = rendered
    scene = load_scene(data / 'hall', imb_scene.SceneSettings())
    a, b = scene.views['im-0'], scene.views['im-1']
    x, y = np.meshgrid(np.arange(20, 460, 9), np.arange(20, 340, 9))
    points = np.column_stack([x.ravel(), y.ravel()]).astype(np.float64)
    moved, known = transfer(points, a, b, frames[0].depth)
    inside = known & ((moved > 2) & (moved < [470, 350])).all(axis=1)
    assert inside.mean() > 0.4
    back, _ = transfer(moved[inside], b, a, frames[1].depth)
    assert np.median(np.linalg.norm(back - points[inside], axis=1)) < 0.3
    expected = frames[1].pose.inverse() @ frames[0].pose
    np.testing.assert_allclose(relative_pose(a, b).translation, expected.translation, atol=1e-9)


def features(points, descriptors=None, sets=None, num_sets=1):
    n = len(points)
    if descriptors is None:
        descriptors = np.eye(max(n, 2), dtype=np.float32)[:n]
    return Features(
        np.asarray(points, np.float32).reshape(-1, 2), np.ones(n, np.float32),
        np.zeros(n, np.int32) if sets is None else np.asarray(sets, np.int32), descriptors,
        (480, 360), num_sets,
    )  # fmt: skip


def test_repeatability_by_hand(data, rendered):
    """Three keypoints sent over by depth; two of them are there."""
    frames, _ = rendered
    views = load_scene(data / 'hall', imb_scene.SceneSettings()).views
    points = np.array([[200.0, 150], [240, 180], [280, 200]])
    moved, known = transfer(points, views['im-0'], views['im-1'], frames[0].depth)
    assert known.all()
    there = moved[:2] + [[1.0, 2.0], [-1.0, 0.5]]
    a = ViewFeatures(views['im-0'], features(points), frames[0].depth)
    b = ViewFeatures(views['im-1'], features(there), frames[1].depth)
    assert repeatability(a, b) == pytest.approx((2 / 3 + 1) / 2)
    assert repeatability(ViewFeatures(a.view, a.features), b) is None


def test_points_left_of_the_image_are_not_repeated_and_points_right_of_it_do_not_count(
    data, rendered
):
    """The benchmark asks for x < width and y < height only (its ``stereo_helper.py``)."""
    frames, _ = rendered
    views = load_scene(data / 'hall', imb_scene.SceneSettings()).views
    points = np.array([[200.0, 150], [240, 180]])
    a = ViewFeatures(views['im-0'], features(points), frames[0].depth)
    moved, known = transfer(points, a.view, views['im-1'], frames[0].depth)
    assert known.all()
    middle = moved[:, 0].mean()
    unknown = np.zeros_like(frames[1].depth)  # nothing comes back: that direction counts as 0
    # The principal point moved: the left one of the points lands left of the target image, then
    # the right one lands right of it.
    for shift, there, share in ((-middle, 1, 1 / 2), (480 - middle, 0, 1.0)):
        intrinsics = views['im-1'].intrinsics + [[0, 0, shift], [0, 0, 0], [0, 0, 0]]
        view = replace(views['im-1'], intrinsics=intrinsics)
        b = ViewFeatures(view, features(moved[[there]] + [shift, 0]), unknown)
        assert repeatability(a, b) == pytest.approx(share / 2)


def test_matches_between_the_same_two_places_count_once():
    points = [[10.0, 10.0], [10.0, 10.0], [50.0, 60.0]]
    descriptors = np.eye(3, dtype=np.float32)
    a, b = features(points, descriptors), features(points, descriptors)
    np.testing.assert_array_equal(match_with_ratio(a, b, 1.0), [[0, 0], [2, 2]])
    np.testing.assert_array_equal(match_with_ratio(a, b, 0.9), [[0, 0], [2, 2]])


def scene_of(pairs, subsets):
    return SceneResult('scene', 'by hand', 100.0, 1.0, tuple(pairs), tuple(subsets))


def test_accuracy_is_averaged_over_the_seeds():
    """Two pairs, two seeds: 0.5° and 0.5°, then 0.5° and 20°."""
    pairs = [
        StereoResult(('a', 'b'), 10, 8.0, (0.5, 0.5), (0.1, 0.2)),
        StereoResult(('a', 'c'), 10, 4.0, (0.2, 20.0), (0.5, 1.0)),
    ]
    summary = stereo_of(scene_of(pairs, []))
    assert summary.accuracy_by_seed == (1.0, 0.5)
    assert summary.mean_accuracy == 0.75
    assert summary.spread == 0.5
    assert summary.accuracy[0] == 0.75
    assert summary.inliers == 6.0


def test_failed_subsets_are_wrong_and_left_out_of_tracks_and_landmarks():
    built = SubsetResult(5, 5, 100.0, 80.0, 400, 3.0, 0.8, 0.1)
    failed = SubsetResult(5, 0, 50.0, 0.0, 0, 0.0, 0.0, None)
    summary = multiview_of(scene_of([], [built, failed]))
    assert (summary.landmarks, summary.track_length, summary.ate) == (400.0, 3.0, 0.1)
    assert (summary.matches, summary.verified) == (75.0, 40.0)
    assert (summary.mean_accuracy, summary.registered) == (0.4, 0.5)
    none = multiview_of(scene_of([], [failed]))
    assert none.landmarks is None
    assert none.track_length is None


def test_track_length_counts_images_not_observations(data, rendered):
    """Each keypoint comes twice, so that points have two observations in an image."""
    frames, _ = rendered
    views = load_scene(data / 'hall', imb_scene.SceneSettings()).views
    rng = np.random.default_rng(0)
    points = rng.uniform((40, 40), (400, 300), (150, 2))
    seen = {'im-0': points}
    for name in ('im-1', 'im-2'):
        seen[name], _ = transfer(points, views['im-0'], views[name], frames[0].depth)
    images = [
        ReconstructionInput(
            name, (480, 360), np.concatenate([places, places + 0.3]), views[name].intrinsics
        )
        for name, places in seen.items()
    ]
    n = np.arange(150)
    rows = np.concatenate([np.stack([n, n], 1), np.stack([n, n + 150], 1)])
    model = reconstruct(images, {(0, 1): rows, (0, 2): rows, (1, 2): rows})
    assert len(model.world_to_camera) == 3
    assert 2.0 <= model.mean_track_length <= 3.0


def test_nothing_found_is_zero_not_nan(data, rendered):
    frames, _ = rendered
    views = load_scene(data / 'hall', imb_scene.SceneSettings()).views
    empty = Features.empty((480, 360), 8)
    some = features([[1.0, 2.0]], np.ones((1, 8), np.float32) / np.sqrt(8))
    for left, right in ((empty, empty), (empty, some), (some, some)):
        a = ViewFeatures(views['im-0'], left, frames[0].depth)
        b = ViewFeatures(views['im-1'], right, frames[1].depth)
        rows = match_with_ratio(left, right, 0.9)
        result = measure_pair(a, b, rows, 1.0)
        assert result.inliers == 0
        assert result.error == 180.0
        assert result.matching_score == 0.0
        assert result.repeatability == 0.0


@pytest.mark.parametrize('ratio', [0.6, 0.8, 0.95])
def test_ratio_test_against_brute_force(ratio):
    rng = np.random.default_rng(3)

    def some(n, sets):
        descriptors = rng.normal(size=(n, 6)).astype(np.float32)
        descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
        return features(rng.uniform(0, 300, (n, 2)), descriptors, np.sort(sets), 2)

    a, b = some(40, rng.integers(0, 2, 40)), some(50, rng.integers(0, 2, 50))
    expected = []
    for i in range(len(a)):
        same = np.nonzero(b.sets == a.sets[i])[0]
        forward = np.linalg.norm(b.descriptors[same] - a.descriptors[i], axis=1)
        j = same[forward.argmin()]
        mine = np.nonzero(a.sets == a.sets[i])[0]
        backward = np.linalg.norm(a.descriptors[mine] - b.descriptors[j], axis=1)
        if mine[backward.argmin()] == i:
            f, g = np.sort(forward), np.sort(backward)
            if f[0] <= ratio * f[1] and g[0] <= ratio * g[1]:
                expected.append((i, j))
    found = [tuple(row) for row in match_with_ratio(a, b, ratio)]
    assert found == expected
    assert len(match_with_ratio(a, b, 1.0)) >= len(found)


def test_broken_scenes_are_named_and_the_others_measured(data, rendered, tmp_path, capsys):
    frames, camera = rendered
    root = tmp_path / 'broken'
    write_scene(root / 'good', frames, camera, depth=False)
    calibration = root / 'good' / 'set_100' / 'calibration'
    (calibration / 'calibration_im-0.h5').unlink()
    (calibration / 'calibration_im-1.h5').write_text('no HDF5')
    (root / 'good' / 'set_100' / 'images' / 'im-2.png').write_bytes(b'no image')
    write_scene(root / 'no_pair', frames[:1], camera)
    write_scene(root / 'bad_rotation', frames[:2], camera)
    with h5py.File(root / 'bad_rotation/set_100/calibration/calibration_im-0.h5', 'a') as file:
        file['R'][...] = np.ones((3, 3))
    code, report = run(root, tmp_path, '--extractors', 'orb', '--no-multiview')
    assert code == 0
    omitted = report['omitted']
    for word in ('calibration_im-0', 'calibration_im-1', 'im-2.png', 'no_pair', 'rotation'):
        assert any(word in line for line in omitted), word
    assert all('\n' not in line for line in omitted)
    assert list(report['extractors']['orb']['parts']) == ['good']
    assert report['extractors']['orb']['parts']['good']['figures']['stereo']['pairs'] == 3
    assert 'left out' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'word'),
    [
        (['--ratio', '2'], 'ratio'),
        (['--ratio', 'auto'], 'validation scene'),
        (['--threshold', '0'], 'threshold'),
        (['--validation-scene', 'nowhere'], 'hall'),
    ],
)
def test_bad_arguments_are_one_line(data, tmp_path, capsys, arguments, word):
    assert run(data, tmp_path, '--extractors', 'orb', *arguments)[0] == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith('mdnet: error: ')
    assert word in error


def test_no_scene(tmp_path):
    with pytest.raises(DataError, match='set_100'):
        find_scenes(tmp_path)


def test_pairs_by_angle(data):
    views = list(load_scene(data / 'plain', imb_scene.SceneSettings()).views.values())
    assert len(imb_selection.pairs_by_angle(views, 180.0)) == 6
    assert imb_selection.pairs_by_angle(views, 0.0) == []
    settings = imb_scene.SceneSettings(max_pairs=2)
    chosen = load_scene(data / 'plain', settings).pairs
    assert len(chosen) == 2
    assert chosen == load_scene(data / 'plain', settings).pairs

"""The homography benchmark on a small data set made from a photograph."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from mdnet_ros.baselines.registry import ExtractorSpec, parse_extractors
from mdnet_ros.cli.main import main
from mdnet_ros.data.geometry import project
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.extraction import FeatureCache, FeatureSource, load_image, shrink
from mdnet_ros.evaluation.homography.data import (
    LEFT_OUT,
    list_sequences,
    load_sequence,
    read_homography,
)
from mdnet_ros.evaluation.homography.protocol import evaluate
from mdnet_ros.evaluation.homography.report import REPORT_FORMAT
from mdnet_ros.evaluation.homography.results import HomographySettings, group_average
from mdnet_ros.evaluation.reports.results import merge

SIZE = (256, 224)
WARPS = {
    2: np.array([[0.95, 0.10, 6.0], [-0.08, 0.97, 14.0], [1e-4, 5e-5, 1.0]]),
    3: np.array([[1.10, -0.15, 4.0], [0.12, 1.05, -12.0], [-2e-4, 1e-4, 1.0]]),
}


def write_sequence(folder: Path, photo: np.ndarray, suffix: str, viewpoint: bool) -> None:
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / f'1{suffix}'), photo)
    for k, warp in WARPS.items():
        homography = warp if viewpoint else np.eye(3)
        image = cv2.warpPerspective(photo, homography, SIZE)
        if not viewpoint:
            image = cv2.convertScaleAbs(image, alpha=0.6, beta=10.0 * k)
        cv2.imwrite(str(folder / f'{k}{suffix}'), image)
        np.savetxt(folder / f'H_1_{k}', homography)


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('hpatches')
    photos = [
        cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR)[:448, :512],
        cv2.cvtColor(skimage.data.camera(), cv2.COLOR_GRAY2BGR)[64:512],
    ]
    small = [cv2.resize(photo, SIZE, interpolation=cv2.INTER_AREA) for photo in photos]
    write_sequence(path / 'v_face', small[0], '.png', True)
    write_sequence(path / 'v_man', small[1], '.ppm', True)
    write_sequence(path / 'i_face', small[0], '.webp', False)
    write_sequence(path / 'i_dc', small[1], '.png', False)  # one of those left out
    return path


@pytest.fixture
def broken_root(root: Path, tmp_path: Path) -> Path:
    path = tmp_path / 'data'
    shutil.copytree(root, path)
    return path


def run_rootsift(root: Path, cache: Path | None = None, **settings: int | bool) -> dict:
    specs = parse_extractors('rootsift', 300, 'cpu', None)
    result = evaluate(root, specs, HomographySettings(max_keypoints=300, **settings), cache)
    return REPORT_FORMAT.to_json(result)


def test_known_warps_are_measured_as_such(root: Path) -> None:
    document = run_rootsift(root)
    values = document['extractors']['rootsift']
    metrics = values['figures']
    assert set(values['parts']) == {'v_face', 'v_man', 'i_face'}
    assert metrics['overall']['pairs'] == 6
    assert metrics['viewpoint']['pairs'] == 4
    assert metrics['illumination']['pairs'] == 2
    for group in ('overall', 'viewpoint', 'illumination'):
        assert list(metrics[group]['mma']) == [str(t) for t in range(1, 11)]
        assert metrics[group]['mma']['3'] > 0.8
        assert metrics[group]['homography_auc']['5'] > 0.7
        assert 0.2 < metrics[group]['ms']['3'] <= 1.0
        assert metrics[group]['keypoints'] <= 300
        assert metrics[group]['ms_per_image'] > 0
    mean = np.mean([pair['correct'][2] / pair['matches'] for s in values['parts'].values()
                    for pair in s['pairs']])
    assert metrics['overall']['mma']['3'] == pytest.approx(mean, abs=1e-6)


def test_left_out_names_are_a_default(root: Path) -> None:
    assert len(LEFT_OUT) == 8
    assert [p.name for p in list_sequences(root)] == ['i_face', 'v_face', 'v_man']
    assert len(list_sequences(root, all_sequences=True)) == 4
    assert 'i_dc' in run_rootsift(root, all_sequences=True)['extractors']['rootsift']['parts']


def test_second_run_reads_the_cache_and_gives_the_same(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / 'cache'
    first = run_rootsift(root, cache)
    files = sorted(cache.rglob('*'))
    stamps = [file.stat().st_mtime_ns for file in files]
    second = run_rootsift(root, cache)
    assert first == second  # the times too: they are those of the extraction
    assert sorted(cache.rglob('*')) == files
    assert [file.stat().st_mtime_ns for file in files] == stamps
    keys = {
        load_image(path).key
        for name in ('v_face', 'v_man', 'i_face')
        for path in (root / name).glob('[123].*')
    }
    assert {file.stem for file in files if file.suffix == '.npz'} == keys


def test_cache_depends_on_extractor_and_settings_and_survives_damage(
    root: Path, tmp_path: Path
) -> None:
    image = load_image(root / 'v_face' / '1.png')
    source = FeatureSource(ExtractorSpec('rootsift', 100, 'cpu'), tmp_path)
    assert not source.features(image).reused
    assert source.features(image).reused
    for spec in (ExtractorSpec('rootsift', 101, 'cpu'), ExtractorSpec('sift', 100, 'cpu')):
        assert not FeatureSource(spec, tmp_path).features(image).reused
    other = load_image(root / 'v_face' / '1.png', max_side=200)
    assert not source.features(other).reused
    for file in tmp_path.rglob('*.npz'):
        file.write_bytes(file.read_bytes()[:500])
    assert not source.features(image).reused
    assert source.features(image).reused
    assert not list(tmp_path.rglob('*.tmp'))


def test_cache_keeps_everything(tmp_path: Path, root: Path) -> None:
    image = load_image(root / 'v_face' / '1.png')
    source = FeatureSource(ExtractorSpec('rootsift', 50, 'cpu'), None)
    extraction = source.features(image)
    cache = FeatureCache(tmp_path, 'identity')
    assert cache.get('key') is None
    cache.put('key', extraction)
    found = cache.get('key')
    assert found is not None
    assert found.milliseconds == extraction.milliseconds
    for name in ('keypoints', 'scores', 'sets', 'descriptors'):
        np.testing.assert_array_equal(
            getattr(found.features, name), getattr(extraction.features, name)
        )
    assert found.features.image_size == SIZE


def through_json(result):
    document = json.loads(json.dumps(REPORT_FORMAT.to_json(result), allow_nan=False))
    return REPORT_FORMAT.from_json(document, 'results')


def test_shards_merge_to_the_whole(root: Path, tmp_path: Path) -> None:
    specs = parse_extractors('rootsift', 300, 'cpu', None)
    settings = HomographySettings(max_keypoints=300)
    whole = evaluate(root, specs, settings, tmp_path)
    assert through_json(whole) == whole
    parts = [
        through_json(evaluate(root, specs, settings, tmp_path, shard=(i, 2))) for i in (1, 2)
    ]
    assert [len(p.extractors[0].parts) for p in parts] == [2, 1]
    assert merge(parts) == whole
    with pytest.raises(DataError, match="'i_face' twice"):
        merge([parts[0], parts[0]])
    with pytest.raises(DataError, match='settings differ: max_keypoints 301 and 300'):
        merge([parts[0], evaluate(root, specs, HomographySettings(301), tmp_path)])
    renamed = replace(whole.extractors[0], licence='other', parts=())
    with pytest.raises(DataError, match="'rootsift' differs: licence"):
        merge([whole, replace(whole, extractors=(renamed,))])


def test_size_limit_maps_pixels_exactly() -> None:
    image = np.zeros((200, 300), np.uint8)
    smaller, to_smaller = shrink(image, 150)
    assert smaller.shape == (100, 150)
    # The corners of the image, half a pixel beyond the first and last centres, map to each other.
    corners = project(to_smaller, np.array([[-0.5, -0.5], [299.5, 199.5]]))
    np.testing.assert_allclose(corners, [[-0.5, -0.5], [149.5, 99.5]])
    same, identity = shrink(image, 300)
    assert same is image
    np.testing.assert_array_equal(identity, np.eye(3))


def test_size_limit_keeps_exact_keypoints_exact(root: Path, tmp_path: Path) -> None:
    """Perfect keypoints, given for the native size, stay perfect at half of it."""
    rng = np.random.default_rng(0)
    first = rng.uniform(40, 180, (40, 2))
    descriptors = np.linalg.qr(rng.normal(size=(64, 64)))[0][:40]
    folder = tmp_path / 'perfect'
    for name in ('v_face', 'v_man'):
        sequence = load_sequence(root / name)
        for path, h in zip(sequence.images, [np.eye(3), *sequence.homographies], strict=True):
            target = folder / name / f'{path.name}.perfect'
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, 'wb') as file:
                np.savez(file, keypoints=project(h, first), descriptors=descriptors,
                         scores=np.ones(40), imsize=np.array(SIZE))
    specs = parse_extractors(f'precomputed:{folder}', 100, 'cpu', None)
    for max_side in (0, 128, 100):
        result = evaluate(root, specs, HomographySettings(100, max_side))
        assert [s.name for s in result.extractors[0].parts] == ['v_face', 'v_man']
        metrics = group_average(result.extractors[0]).metrics
        assert metrics.mma[1] == 1.0
        assert metrics.repeatability[1] == 1.0
        assert metrics.homography_auc[1] > 0.99
        # The third sequence has no features there: named, and for that extractor alone.
        (omitted,) = result.omitted
        assert omitted.startswith('i_face for perfect: ')


def break_missing_homography(folder: Path) -> str:
    (folder / 'H_1_3').unlink()
    return 'H_1_3 is missing'


def break_wrong_shape(folder: Path) -> str:
    np.savetxt(folder / 'H_1_2', np.eye(3)[:2])
    return 'expected a 3x3 matrix, got 2x3'


def break_text(folder: Path) -> str:
    (folder / 'H_1_2').write_text('not numbers')
    return 'H_1_2: expected three lines of three numbers each'


def break_twice(folder: Path) -> str:
    (folder / '02.jpg').write_bytes((folder / '2.png').read_bytes())
    return "image 2 is there twice, as '02.jpg' and '2.png'"


def break_binary(folder: Path) -> str:
    (folder / 'H_1_2').write_bytes(bytes(range(256)))
    return 'H_1_2: cannot be read as text'


def break_singular(folder: Path) -> str:
    np.savetxt(folder / 'H_1_2', np.diag([1.0, 0.0, 1.0]))
    return 'invertible'


def break_unreadable_image(folder: Path) -> str:
    (folder / '2.png').write_bytes(b'not a picture')
    return '2.png'


def break_missing_image(folder: Path) -> str:
    (folder / '2.png').unlink()
    return 'image 2 is missing'


@pytest.mark.parametrize(
    'damage',
    [
        break_missing_homography,
        break_wrong_shape,
        break_text,
        break_twice,
        break_binary,
        break_singular,
        break_unreadable_image,
        break_missing_image,
    ],
)
def test_broken_sequence_is_named_and_the_others_measured(broken_root: Path, damage) -> None:
    reason = damage(broken_root / 'v_face')
    document = run_rootsift(broken_root)
    assert set(document['extractors']['rootsift']['parts']) == {'v_man', 'i_face'}
    (line,) = document['omitted']
    assert line.startswith('v_face: ')
    assert reason in line
    assert '\n' not in line


def test_flat_images_give_zeros_not_nan(tmp_path: Path) -> None:
    write_sequence(tmp_path / 'i_flat', np.full((SIZE[1], SIZE[0], 3), 90, np.uint8), '.png', False)
    document = run_rootsift(tmp_path)
    overall = document['extractors']['rootsift']['figures']['overall']
    assert overall['mma'] == {str(t): 0.0 for t in range(1, 11)}
    assert overall['keypoints'] == 0.0
    json.dumps(document, allow_nan=False)


def test_homographies_are_normalised(tmp_path: Path) -> None:
    np.savetxt(tmp_path / 'H_1_2', -3.0 * WARPS[2])
    np.testing.assert_allclose(read_homography(tmp_path / 'H_1_2'), WARPS[2])


@pytest.mark.parametrize('separator', [' ', ',', ', ', '\t', ';', '   '])
def test_homographies_are_read_whatever_separates_their_numbers(tmp_path, separator) -> None:
    rows = [separator.join(f'{value:.17g}' for value in row) for row in WARPS[2]]
    (tmp_path / 'H_1_2').write_text('\ufeff# from another tool\n' + '\r\n'.join(rows) + '\n\n')
    np.testing.assert_allclose(read_homography(tmp_path / 'H_1_2'), WARPS[2])


def test_command_writes_report_and_json(root: Path, tmp_path: Path, capsys) -> None:
    json_path, html_path = tmp_path / 'out' / 'r.json', tmp_path / 'out' / 'r.html'
    arguments = [
        'evaluate', 'homography', '--root', str(root), '--extractors', 'rootsift,orb',
        '--max-keypoints', '200', '--cache', str(tmp_path / 'cache'), '--published',
        '--json', str(json_path), '--html', str(html_path),
    ]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert 'MMA@3' in printed
    assert 'MD-2-Net (published)' in printed
    document = json.loads(json_path.read_text())
    assert list(document['extractors']) == ['rootsift', 'orb']
    assert 'MD-2-Net' not in document['extractors']
    assert any(row['name'] == 'MD-2-Net' for row in document['published'])
    page = html_path.read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) >= 2 + 2 * 3  # two plots, and the worst pair of each sequence
    assert all(source.startswith('data:image/') for source in sources)
    assert not re.search(r'<(script|link|iframe)|url\(|@import', page)
    assert 'v_face' in page
    assert 'published' in page


def test_command_merges(root: Path, tmp_path: Path) -> None:
    paths = []
    for i in (1, 2):
        paths.append(str(tmp_path / f'{i}.json'))
        assert main([
            'evaluate', 'homography', '--root', str(root), '--extractors', 'orb', '--no-cache',
            '--shard', f'{i}/2', '--json', paths[-1],
        ]) == 0
    merged = tmp_path / 'all.json'
    html = tmp_path / 'all.html'
    assert main(['evaluate', 'merge', *paths, '--json', str(merged), '--html', str(html)]) == 0
    assert json.loads(merged.read_text())['extractors']['orb']['figures']['overall']['pairs'] == 6
    assert html.stat().st_size > 10_000


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--root', '/nowhere/at/all', '--extractors', 'sift'], 'no such folder'),
        (['--root', '.', '--extractors', 'sift'], 'v_*'),
        (['--root', '.', '--extractors', 'sifft'], "'sifft': unknown"),
        (['--root', '.', '--extractors', 'sift,sift'], "two are called 'sift'"),
        (['--root', '.', '--extractors', ','], 'at least one'),
        (['--root', '.', '--extractors', 'sift', '--max-keypoints', '0'], 'at least 1'),
        (['--root', '.', '--extractors', 'sift', '--max-side', '-1'], '--max-side'),
        (['--root', '.', '--extractors', 'precomputed:/nowhere'], 'no such'),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'v_only').mkdir()
    if message == 'v_*':
        (tmp_path / 'v_only').rmdir()
    assert main(['evaluate', 'homography', *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith('mdnet: error: ')
    assert 'Traceback' not in error


def test_nothing_measurable_is_an_error(tmp_path: Path, capsys) -> None:
    (tmp_path / 'v_empty').mkdir()
    assert main(['evaluate', 'homography', '--root', str(tmp_path), '--extractors', 'sift']) == 2
    assert 'v_empty' in capsys.readouterr().err


@pytest.mark.parametrize('shard', ['0/2', '3/2', 'a/b', '2'])
def test_wrong_shard_is_refused(shard: str, root: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(['evaluate', 'homography', '--root', str(root), '--shard', shard])
    assert caught.value.code == 2


def test_merge_refuses_what_is_not_a_result(root: Path, tmp_path: Path, capsys) -> None:
    whole = run_rootsift(root)
    capsys.readouterr()  # the progress bar
    documents = {
        'cannot be read': 'not json',
        'expected the JSON of mdnet evaluate': '{"protocol": "merge"}',
        'layout 1, expected layout 2': '{"protocol": "homography", "extractors": {}}',
        'layout 3, expected layout 2': json.dumps({**whole, 'layout': 3}),
        'extractors: expected a table': json.dumps({**whole, 'extractors': []}),
        "settings: unknown key 'size'": json.dumps({**whole, 'settings': {'size': 1}}),
        'omitted: expected tuple': json.dumps({**whole, 'omitted': None}),
        "provenance: 0: 'command' is missing": json.dumps({**whole, 'provenance': [{}]}),
    }
    path = tmp_path / 'x.json'
    for message, text in documents.items():
        path.write_text(text)
        assert main(['evaluate', 'merge', str(path), '--json', str(tmp_path / 'y.json')]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"mdnet: error: results '{path}'")
        assert message in error
        assert error.count('\n') == 1
    assert not (tmp_path / 'y.json').exists()


def test_help_of_every_level(capsys) -> None:
    for arguments in (['evaluate', '--help'], ['evaluate', 'homography', '--help']):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
    assert '--max-keypoints' in capsys.readouterr().out

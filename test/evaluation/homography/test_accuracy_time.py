"""Accuracy over time: times and accuracies are joined by name, and what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from mdnet_ros.cli.main import main
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.homography.accuracy_time import draw_points, read_points

SIZE = (96, 64)


def time_extractors(out: Path, names: str) -> Path:
    command = ['benchmark', '--device', 'cpu', '--sizes', '96x64', '--keypoints', '50',
               '--matching', '32', '--sets', '1', '--extractors', names, '--repetitions', '2',
               '--json', str(out)]  # fmt: skip
    assert main(command) == 0
    return out


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """speed.json (orb, sift, klt) and accuracy.json (orb, sift, akaze), written by the commands."""
    path = tmp_path_factory.mktemp('plot')
    photo = cv2.resize(skimage.data.camera(), (256, 224), interpolation=cv2.INTER_AREA)
    warp = np.array([[1.05, -0.1, 4.0], [0.1, 1.0, -6.0], [0.0, 0.0, 1.0]])
    for name, homography in (('v_man', warp), ('i_man', np.eye(3))):
        sequence = path / 'root' / name
        sequence.mkdir(parents=True)
        cv2.imwrite(str(sequence / '1.png'), photo)
        cv2.imwrite(str(sequence / '2.png'), cv2.warpPerspective(photo, homography, (256, 224)))
        np.savetxt(sequence / 'H_1_2', homography)
    time_extractors(path / 'speed.json', 'orb,sift,klt')
    assert main([
        'evaluate', 'homography', '--root', str(path / 'root'), '--extractors', 'orb,sift,akaze',
        '--max-keypoints', '50', '--no-cache', '--json', str(path / 'accuracy.json'),
    ]) == 0  # fmt: skip
    return path


def test_points_are_what_the_files_say(folder: Path) -> None:
    speed, accuracy = folder / 'speed.json', folder / 'accuracy.json'
    found = read_points([speed], accuracy, SIZE, 50)
    times = {row['name']: row for row in json.loads(speed.read_text())['extractors']}
    accuracies = json.loads(accuracy.read_text())['extractors']
    assert [point.name for point in found.points] == ['orb', 'sift']
    assert found.left_out == ('akaze',)
    for point in found.points:
        assert point.milliseconds == times[point.name]['extraction']['median_ms']
        for group in ('viewpoint', 'illumination'):
            written = accuracies[point.name]['figures'][group]['mma']['3']
            assert point.mma[group] == pytest.approx(written, abs=1e-6)


def test_the_command_prints_and_draws(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = time_extractors(tmp_path / 'more.json', 'akaze')
    capsys.readouterr()
    out = tmp_path / 'new' / 'picture.png'
    assert main([
        'evaluate', 'plot', '--speed', str(folder / 'speed.json'), str(more), '--accuracy',
        str(folder / 'accuracy.json'), '--size', '96x64', '--keypoints', '50', '--out', str(out),
    ]) == 0  # fmt: skip
    shown = capsys.readouterr().out
    for name in ('orb', 'sift', 'akaze', 'MMA@3 viewpoint', 'MMA@3 illumination'):
        assert name in shown
    picture = cv2.imread(str(out))
    assert picture.shape[1] > picture.shape[0] > 300
    found = read_points([folder / 'speed.json', more], folder / 'accuracy.json', SIZE, 50)
    few = found.__class__(found.machine, found.size, found.keypoints, found.points[:1], ())
    draw_points(few, out)
    assert (cv2.imread(str(out)) != picture).any()


def test_what_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    speed, accuracy = folder / 'speed.json', folder / 'accuracy.json'
    elsewhere = json.loads(speed.read_text()) | {'device': 'another machine'}
    (tmp_path / 'elsewhere.json').write_text(json.dumps(elsewhere))
    (tmp_path / 'list.json').write_text('[]')
    (tmp_path / 'bare.json').write_text('{"benchmark": "speed"}')
    (tmp_path / 'bare_accuracy.json').write_text('{"protocol": "homography"}')
    cases = [
        ([speed, speed], accuracy, SIZE, 50, "'orb' was timed in another file"),
        ([speed, tmp_path / 'elsewhere.json'], accuracy, SIZE, 50, 'another machine'),
        ([speed], accuracy, (640, 480), 50, 'none of its extractors was timed at 640x480'),
        ([speed], accuracy, SIZE, 51, 'of 50 keypoints, expected 51'),
        ([accuracy], accuracy, SIZE, 50, 'expected the JSON of mdnet benchmark'),
        ([speed], speed, SIZE, 50, 'expected the JSON of mdnet evaluate homography'),
        ([speed], folder / 'nothing.json', SIZE, 50, 'cannot be read'),
        ([tmp_path / 'list.json'], accuracy, SIZE, 50, 'expected the JSON of mdnet benchmark'),
        ([tmp_path / 'bare.json'], accuracy, SIZE, 50, 'not of mdnet benchmark'),
        ([speed], tmp_path / 'bare_accuracy.json', SIZE, 50, 'in layout 1, expected layout 2'),
    ]
    for times, accuracies, size, keypoints, message in cases:
        with pytest.raises(DataError, match=message):
            read_points(times, accuracies, size, keypoints)

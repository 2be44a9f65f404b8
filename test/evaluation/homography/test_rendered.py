"""Rendered pairs: metrics of extractors class by class, and the command that prints them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
from skimage import data

from mdnet_ros.baselines.registry import ExtractorSpec
from mdnet_ros.cli.main import main
from mdnet_ros.evaluation.homography.rendered import default_keypoints, measure, overall, tables
from mdnet_ros.training.images import ImagePool, NamedImage
from mdnet_ros.training.pair_classes import CLASSES


@pytest.fixture(scope='module')
def pool() -> ImagePool:
    """Photographs of 1,024 px, so that views of 320 px are reductions in every class."""
    photo = cv2.resize(data.camera(), (1024, 1024), interpolation=cv2.INTER_CUBIC)
    return ImagePool([NamedImage('camera', photo)])


def test_harder_classes_are_harder(pool: ImagePool) -> None:
    chosen = [kind for kind in CLASSES if kind.name in ('small motion', 'scale 2-3')]
    metrics = measure(pool, [ExtractorSpec('md2net-light', 400, 'cpu')], 2, chosen)
    easy, hard = metrics
    assert (easy.kind, hard.kind) == ('small motion', 'scale 2-3')
    assert easy.repeatability > hard.repeatability
    assert easy.ms > hard.ms
    assert 0.5 < easy.mma[2] <= 1
    assert easy.mma[0] <= easy.mma[1] <= easy.mma[2]
    mean = overall(metrics)[0]
    assert mean.pairs == 4
    assert mean.ms == pytest.approx((easy.ms + hard.ms) / 2)
    assert [table.caption for table in tables(metrics)] == [
        'small motion, 2 pairs', 'scale 2-3, 2 pairs', 'mean, 4 pairs'
    ]


def test_the_command_scores_any_extractor_on_the_same_pairs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'photos'
    folder.mkdir()
    photo = cv2.resize(data.camera(), (1000, 1000), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(folder / 'camera.png'), photo)
    out = tmp_path / 'pairs.json'
    arguments = ['evaluate', 'pairs', '--images', str(folder), '--held-back', '1', '--pairs', '1']
    assert main([*arguments, '--extractors', 'rootsift,orb', '--json', str(out)]) == 0
    document = json.loads(out.read_text())
    assert document['photographs'] == 1
    assert document['max_keypoints'] == default_keypoints() == 683
    rows = {(f['extractor'], f['kind']) for f in document['figures']}
    assert rows == {(name, kind.name) for name in ('rootsift', 'orb') for kind in CLASSES}
    shown = capsys.readouterr().out
    assert 'rotation 60-180' in shown
    assert main([*arguments[:-2], '--pairs', '0']) == 2
    assert 'pairs: expected at least 1' in capsys.readouterr().err

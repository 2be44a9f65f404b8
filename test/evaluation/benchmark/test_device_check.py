"""``mdnet gpu-check`` on a CPU: a dry run of what is done on a card."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mdnet_ros.cli.main import main
from mdnet_ros.evaluation.benchmark.device_check import share_apart


def test_points_apart_are_counted() -> None:
    a = np.array([[1.0, 1.0], [5.0, 5.0], [9.0, 9.0], [9.05, 9.0]])
    b = np.array([[1.05, 0.95], [5.0, 5.2], [9.0, 9.0]])
    assert share_apart(a, b) == 0.25
    assert share_apart(a, a[:0]) == 1.0
    assert share_apart(a[:0], a[:0]) == 0.0


def test_a_dry_run_writes_all_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / 'out'
    done = main([
        'gpu-check', '--device', 'cpu', '--out', str(out), '--sizes', '96x64',
        '--keypoints', '64', '--repetitions', '1',
    ])
    assert done == 0, capsys.readouterr().out
    checks = json.loads((out / 'checks.json').read_text())['checks']
    assert [check['name'].split()[0] for check in checks] == ['md2net', 'md2net-light']
    steps = json.loads((out / 'steps.json').read_text())['steps']
    assert [(s['network'], s['batch']) for s in steps] == [
        ('md2net', 1), ('md2net', 2), ('md2net-light', 1), ('md2net-light', 2),
    ]
    assert 'convolution' in (out / 'profile-md2net.txt').read_text()
    report = (out / 'report.txt').read_text()
    for text in (report, capsys.readouterr().out):
        assert 'ok   md2net fp32: graph against single kernels' in text
        assert 'The bare network' in text
        assert 'Matching within sets' in text
    rows = json.loads((out / 'benchmark.json').read_text())['extractors']
    assert {row['name'] for row in rows} == {'md2net', 'md2net-light'}


def test_a_folder_of_unequal_images_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['gpu-check', '--images', str(tmp_path), '--out', str(tmp_path / 'out')]) == 2
    assert 'expected a folder with images of one size' in capsys.readouterr().err

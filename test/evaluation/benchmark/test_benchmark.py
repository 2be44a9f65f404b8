"""The speed benchmark measures what it is asked to; what is not there it names, with the reason."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import numpy as np
import pytest
import torch

from mdnet_ros.cli.main import main
from mdnet_ros.evaluation.benchmark.protocol import (
    Benchmark,
    BenchmarkSettings,
    make_frames,
    network_cost,
)
from mdnet_ros.evaluation.benchmark.timing import Rates, measure, measure_in_turn, peak_megabytes
from mdnet_ros.features.matching import has_fast_integers
from mdnet_ros.features.network import MDNet, MDNetConfig, count_flops, count_parameters
from mdnet_ros.features.weights import save_weights

SMALL = MDNetConfig(num_sets=2, dim=32, channels=(4, 8, 8, 16, 16))


@pytest.fixture(scope='module')
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('weights') / 'small.safetensors'
    torch.manual_seed(0)
    save_weights(MDNet(SMALL), path, {})
    return path


def test_rows_ratios_and_what_is_left_out(weights: Path, tmp_path: Path) -> None:
    missing = str(tmp_path / 'missing.safetensors')
    settings = BenchmarkSettings(
        (str(weights), f'{weights}+flow', 'orb', missing, 'klt'), ((96, 64), (64, 48)), (32, 64),
        (64,), (1, 2), 'cpu', 2,
    )
    result = Benchmark(settings, matrix_side=64).run()
    assert set(result.unavailable) == {missing}
    assert 'no such file' in result.unavailable[missing]
    names = [(r.name, r.size, r.keypoints) for r in result.extractors]
    assert names == [
        (name, size, budget)
        for size in settings.sizes for budget in settings.keypoints
        for name in ('small', 'small+flow', 'orb', 'klt')
    ]  # fmt: skip
    for i, row in enumerate(result.extractors):
        first = result.extractors[i // 4 * 4]
        ours = row.name.startswith('small')
        assert row.step_ratio == pytest.approx(row.step.median_ms / first.step.median_ms)
        assert row.fps == pytest.approx(1e3 / row.step.median_ms)
        assert row.step.p99_ms >= row.step.median_ms > 0
        assert (row.extraction is None) == (row.name == 'klt')
        assert (row.floor_ms is not None) == (row.network is not None) == ours
        if row.network is not None:
            assert row.network_ratio == pytest.approx(
                row.step.median_ms / row.network.median_ms
            )
        assert 0 < row.found <= row.keypoints or not ours
    kinds = ['fp32', 'int8'] if has_fast_integers(torch.device('cpu')) else ['fp32']
    assert [(r.keypoints, r.sets, r.products) for r in result.matching] == [
        (64, sets, kind) for kind in kinds for sets in (1, 2)
    ]
    one, two = result.matching[-2:]
    assert one.one_set_ratio == 1
    assert two.one_set_ratio == pytest.approx(two.timing.median_ms / one.timing.median_ms)
    assert two.floor_ms == pytest.approx(one.floor_ms / 2)


def test_the_command_writes_what_it_shows(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / 'speed.json'
    command = ['benchmark', '--device', 'cpu', '--sizes', '64x48', '--keypoints', '32',
               '--matching', '64', '--sets', '2', '--extractors', f'{weights},klt,nothing',
               '--repetitions', '2', '--json', str(out)]  # fmt: skip
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert 'left out: nothing: ' in shown
    document = json.loads(out.read_text())
    assert set(document) == {
        'benchmark', 'settings', 'device', 'threads', 'extractors', 'matching', 'unavailable',
    }  # fmt: skip
    assert set(document['extractors'][0]) == {
        'name', 'size', 'keypoints', 'found', 'precision', 'network', 'extraction', 'step', 'fps',
        'floor_ms', 'floor_ratio', 'network_ratio', 'step_ratio', 'memory_mb',
    }  # fmt: skip
    assert set(document['matching'][0]) == {
        'keypoints', 'sets', 'products', 'timing', 'floor_ms', 'floor_ratio',
        'one_set_ratio', 'memory_mb',
    }  # fmt: skip
    assert document['matching'][0]['one_set_ratio'] is None
    for name in ('small', 'klt'):
        assert name in shown


@pytest.mark.parametrize('wrong', [['--sizes', '64'], ['--keypoints', '0'], ['--sets', ''],
                                   ['--repetitions', '-1'], ['--extractors', ',']])
def test_wrong_arguments(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(['benchmark', *wrong])
    assert caught.value.code == 2
    assert 'expected' in capsys.readouterr().err


def test_the_lower_bound_is_whichever_takes_longer() -> None:
    rates = Rates(flops=1e9, bandwidth=1e6)
    assert rates.lower_bound_ms(2e9, 1e3) == pytest.approx(2000)
    assert rates.lower_bound_ms(1e3, 3e6) == pytest.approx(3000)


def test_cost_of_the_network_counts_the_padded_image() -> None:
    network = MDNet(SMALL)
    operations, moved = network_cost(network, 60, 40, 4)
    assert operations == count_flops(network, 64, 48)
    outputs = 64 * 48 * 2 + 16 * 12 * 32
    assert moved == 4 * (count_parameters(network) + 64 * 48 + outputs)


def test_work_is_repeated_after_a_warm_up() -> None:
    calls: list[int] = []
    measure(lambda: calls.append(1), torch.device('cpu'), 5)
    assert len(calls) == 3 + 5


def test_works_take_turns() -> None:
    calls: list[str] = []
    works = [lambda: calls.append('a'), lambda: calls.append('b')]
    assert len(measure_in_turn(works, torch.device('cpu'), 3)) == 2
    assert ''.join(calls) == 'aaabbb' + 'ababab'


@pytest.mark.skipif(platform.system() != 'Linux', reason='only Linux tells a peak of a while')
def test_peak_is_what_the_work_itself_needs() -> None:
    def work(kept: torch.Tensor, mebibytes: int) -> torch.Tensor:
        return torch.ones(mebibytes << 18).sum() + kept.sum()

    kept, cpu = torch.ones(40 << 18), torch.device('cpu')
    small, large = (peak_megabytes(lambda n=n: work(kept, n), cpu) for n in (8, 32))
    assert small == pytest.approx(8, abs=3)
    assert large == pytest.approx(32, abs=3)


def test_frames_move_and_have_structure() -> None:
    frames = make_frames(96, 64)
    assert {f.shape for f in frames} == {(64, 96)}
    assert frames[0].std() > 20
    np.testing.assert_array_equal(frames[1][:, :-3], frames[0][:, 3:])

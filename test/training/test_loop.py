"""The run as a user sees it: progress, resume to the same result, kill, several processes."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage import data
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mdnet_ros.cli.main import main
from mdnet_ros.errors import DataError, WeightsError
from mdnet_ros.features.network import MDNet
from mdnet_ros.features.weights import load_weights, save_weights
from mdnet_ros.training.checkpoint import load_checkpoint
from mdnet_ros.training.config import TrainingConfig, config_from_dict, load_config
from mdnet_ros.training.images import is_held_back, load_pools, read_images
from mdnet_ros.training.schedule import learning_rate

SMALL = ['--network', 'md2net-light', '--device', 'cpu', '--threads', '1']
FAST = ['--set', 'batch=2', '--set', 'side=64', '--set', 'held_back=0.3',
        '--set', 'validation_pairs=2']
PHOTOS = ('astronaut', 'camera', 'coins', 'coffee', 'rocket', 'page', 'text', 'clock')


@pytest.fixture(scope='module')
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photographs that scikit-image ships."""
    folder = tmp_path_factory.mktemp('photos')
    for name in PHOTOS:
        cv2.imwrite(str(folder / f'{name}.png'), np.ascontiguousarray(getattr(data, name)()))
    return folder


def train(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-m', 'mdnet_ros.cli.main', 'train', *arguments],
        capture_output=True, text=True, timeout=240, check=False, **options,  # type: ignore[call-overload]
    )


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return load_weights(path)[0].state_dict()


def test_run_leaves_what_it_promises(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / 'run'
    done = train('--images', str(photos), '--out', str(out), '--steps', '6', *SMALL, *FAST)
    assert done.returncode == 0, done.stderr
    assert 'step/s' not in done.stderr  # no bar where there is no terminal
    assert '\r' not in done.stdout + done.stderr
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['steps'] == 6
    assert summary['pairs'] == 12
    assert summary['finished'] is True
    assert summary['images_per_second'] > 0
    assert 0 <= summary['waiting_share'] <= 1
    network, info = load_weights(out / 'last.safetensors')
    assert network.config.dim == 64
    assert info.training['steps'] == 6
    assert 0 < info.training['held_back'] < len(PHOTOS)
    log = EventAccumulator(str(out / 'tensorboard'))
    log.Reload()
    assert 'validation/repeatability_1px' in log.Tags()['scalars']
    assert 'validation/flat_share' in log.Tags()['scalars']
    assert 'pair_0' in log.Tags()['images']
    again = train('--images', str(photos), '--out', str(out), '--steps', '6', *SMALL, *FAST)
    assert again.returncode == 2
    assert 'already holds a run' in again.stderr
    assert 'Traceback' not in again.stderr


def test_resume_gives_the_same_weights(photos: Path, tmp_path: Path) -> None:
    base = ['--images', str(photos), '--steps', '8', *SMALL, *FAST]
    whole, parts = tmp_path / 'whole', tmp_path / 'parts'
    assert train(*base, '--out', str(whole), '--set', 'checkpoint_every=4').returncode == 0
    # an interrupted run: killed once its first checkpoint is there
    process = subprocess.Popen(
        [sys.executable, '-m', 'mdnet_ros.cli.main', 'train', *base, '--out', str(parts),
         '--set', 'checkpoint_every=4'],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (parts / 'checkpoint.pt').exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert load_checkpoint(parts / 'checkpoint.pt').step in (4, 8)
    resumed = train('--images', str(photos), '--out', str(parts), '--resume', *SMALL[2:])
    assert resumed.returncode == 0, resumed.stderr
    a, b = tensors(whole / 'last.safetensors'), tensors(parts / 'last.safetensors')
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0)


def test_resume_can_change_the_length(photos: Path, tmp_path: Path) -> None:
    run = ['--images', str(photos), '--out', str(tmp_path), *FAST]
    assert train(*run, '--steps', '4', *SMALL).returncode == 0
    assert train(*run, '--resume', '--steps', '6').returncode == 0
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert (summary['steps'], summary['finished']) == (6, True)
    _, info = load_weights(tmp_path / 'last.safetensors')
    assert (info.training['steps'], info.training['of_steps']) == (6, 6)


def test_resume_goes_on_with_the_network_of_the_checkpoint(photos: Path, tmp_path: Path) -> None:
    """Also where ``--network`` means another shape, and where an old file does not say its own."""
    config = load_config(None, {'network': 'md2net-light'}).network_config()
    save_weights(MDNet(replace(config, saliency=6)), tmp_path / 'other.safetensors', {})
    out = tmp_path / 'run'
    run = ['--images', str(photos), '--out', str(out), *SMALL, *FAST]
    begun = train(*run, '--steps', '1', '--from-weights', str(tmp_path / 'other.safetensors'))
    assert begun.returncode == 0, begun.stderr
    assert train(*run, '--resume', '--steps', '2').returncode == 0
    network, info = load_weights(out / 'last.safetensors')
    assert (info.training['steps'], network.config.saliency) == (2, 6)
    checkpoint = torch.load(out / 'checkpoint.pt', weights_only=True)
    del checkpoint['shape']
    torch.save(checkpoint, out / 'checkpoint.pt')
    failed = train(*run, '--resume', '--steps', '3')
    assert failed.returncode == 2
    assert 'does not fit the network' in failed.stderr
    assert 'Traceback' not in failed.stderr


def test_a_checkpoint_that_does_not_say_its_shape_goes_on(photos: Path, tmp_path: Path) -> None:
    run = ['--images', str(photos), '--out', str(tmp_path), *SMALL, *FAST]
    assert train(*run, '--steps', '1').returncode == 0
    checkpoint = torch.load(tmp_path / 'checkpoint.pt', weights_only=True)
    del checkpoint['shape']
    torch.save(checkpoint, tmp_path / 'checkpoint.pt')
    assert train(*run, '--resume', '--steps', '2').returncode == 0
    _, info = load_weights(tmp_path / 'last.safetensors')
    assert info.training['steps'] == 2


def test_weights_without_a_saliency_head_grow_one_that_changes_nothing_yet(
    photos: Path, tmp_path: Path
) -> None:
    config = load_config(None, {'network': 'md2net-light'})
    old = MDNet(replace(config.network_config(), saliency=0))
    save_weights(old, tmp_path / 'old.safetensors', {})
    run = ['--images', str(photos), '--out', str(tmp_path / 'run'), '--steps', '1', *SMALL, *FAST]
    done = train(*run, '--from-weights', str(tmp_path / 'old.safetensors'),
                 '--set', 'learning_rate=0.0')
    assert done.returncode == 0, done.stderr
    grown, info = load_weights(tmp_path / 'run' / 'last.safetensors')
    assert info.config.saliency == config.network_config().saliency > 0
    image = torch.rand(1, 1, 64, 64)
    for name, tensor in old.state_dict().items():
        if name.endswith('weight'):
            torch.testing.assert_close(tensor, grown.state_dict()[name])
    grown.load_state_dict(old.state_dict(), strict=False)  # the norms saw a batch
    with torch.inference_mode():
        torch.testing.assert_close(old.eval()(image).logits, grown(image).logits)


def test_time_budget_completes_its_schedule(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / 'run'
    done = train('--images', str(photos), '--out', str(out), '--minutes', '0.05', *SMALL, *FAST)
    assert done.returncode == 0, done.stderr
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['finished'] is True
    assert summary['steps'] == load_checkpoint(out / 'checkpoint.pt').steps


def test_two_processes_train_one_network(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / 'run'
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2',
         '-m', 'mdnet_ros.cli.main', 'train', '--images', str(photos), '--out', str(out),
         '--steps', '3', *SMALL, *FAST],
        capture_output=True, text=True, timeout=240, check=False,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['processes'] == 2
    assert summary['pairs'] == 3 * 2 * 2


def test_retraining_starts_from_the_weights(photos: Path, tmp_path: Path) -> None:
    first, second = tmp_path / 'first', tmp_path / 'second'
    assert train('--images', str(photos), '--out', str(first), '--steps', '3', *SMALL,
                 *FAST).returncode == 0
    start = first / 'last.safetensors'
    done = train('--images', str(photos), '--out', str(second), '--steps', '2', *SMALL, *FAST,
                 '--from-weights', str(start), '--set', 'learning_rate=0.0')
    assert done.returncode == 0, done.stderr
    a, b = tensors(start), tensors(second / 'last.safetensors')
    for name in a:
        if name.endswith('weight'):  # nothing learned at rate 0: weights as they were
            torch.testing.assert_close(a[name], b[name])
    # where they came from is kept through an interruption
    assert train('--images', str(photos), '--out', str(second), '--resume', '--steps', '3',
                 *FAST).returncode == 0
    training = load_weights(second / 'last.safetensors')[1].training
    assert training['from_weights_sha256'] == load_weights(start)[1].sha256
    assert training['from_weights_training']['pairs'] == 6
    # and the curve of both runs goes on from the one to the other
    picture, numbers = tmp_path / 'curve.png', tmp_path / 'curve.json'
    assert main(['curve', str(first), str(second), '--out', str(picture),
                 '--json', str(numbers)]) == 0
    assert cv2.imread(str(picture)) is not None
    curves = json.loads(numbers.read_text())['curves']
    assert [curve['pairs'] for curve in curves] == [[6], [6 + 4, 6 + 6]]
    assert main(['curve', str(photos), '--out', str(picture)]) == 2
    # the numbers do for the logs, and a file that is something else is refused
    again = tmp_path / 'again.json'
    assert main(['curve', str(numbers), '--out', str(picture), '--json', str(again)]) == 0
    assert json.loads(again.read_text()) == json.loads(numbers.read_text())
    numbers.write_text('{"curves": [{"run": "x", "pairs": [1, 2]}]}')
    assert main(['curve', str(numbers), '--out', str(picture)]) == 2


@pytest.mark.parametrize(
    ('arguments', 'names'),
    [
        (['--images', 'nowhere'], 'nowhere'),
        (['--images', '.', '--set', 'bacth=3'], 'bacth'),
        (['--images', '.', '--set', 'batch=many'], 'batch'),
        (['--images', '.', '--config', 'missing.yaml'], 'missing.yaml'),
        (['--images', '.', '--network', 'md9net'], 'md9net'),
        (['--images', '.', '--minutes', '-1'], 'minutes'),
        (['--images', '.', '--device', 'tpu0'], 'tpu0'),
    ],
)
def test_wrong_input_is_one_line(
    arguments: list[str],
    names: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(['train', *arguments, '--out', str(tmp_path / 'run')]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith('mdnet: error:')
    assert names in last


def test_weights_with_other_sets_than_asked_for(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ['train', '--images', str(photos), '--out', str(tmp_path / 'run'), '--steps', '1']
    arguments += ['--from-weights', 'md2net-light', '--set', 'num_sets=4', *SMALL, *FAST]
    assert main(arguments) == 2
    assert 'num_sets: the weights to start from have 2, got 4' in capsys.readouterr().err


def test_corrupt_checkpoint_is_named(photos: Path, tmp_path: Path) -> None:
    (tmp_path / 'checkpoint.pt').write_bytes(b'not a checkpoint')
    with pytest.raises(WeightsError, match='checkpoint'):
        load_checkpoint(tmp_path / 'checkpoint.pt')
    done = train('--images', str(photos), '--out', str(tmp_path), '--resume', '--steps', '2',
                 *SMALL, *FAST)
    assert done.returncode == 2
    assert 'checkpoint.pt' in done.stderr.strip().splitlines()[-1]


def test_tar_and_folder_hold_the_same_images(photos: Path, tmp_path: Path) -> None:
    pack = tmp_path / 'photos.tar'
    with tarfile.open(pack, 'w') as tar:
        for file in sorted(photos.iterdir()):
            tar.add(file, arcname=file.name)
    a = {image.name: image.gray for image in read_images(photos)}
    b = {image.name: image.gray for image in read_images(pack)}
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_held_back_images_are_never_trained_on(photos: Path) -> None:
    pools = load_pools([photos], 0.3)
    assert set(pools.training.names).isdisjoint(pools.validation.names)
    assert all(is_held_back(name, 0.3) for name in pools.validation.names)
    assert pools.held_back == len(pools.validation)
    assert len(pools.training) + len(pools.validation) == len(PHOTOS)


def test_a_set_too_small_to_hold_anything_back_says_so(
    photos: Path, logged: list[str]
) -> None:
    pools = load_pools([photos], 0.0)
    assert len(pools.training) == len(PHOTOS)
    assert set(pools.validation.names) <= set(pools.training.names)
    assert pools.held_back == 0
    assert 'none of the 8 images is held back' in '\n'.join(logged)


def test_configuration_file_and_overrides(tmp_path: Path) -> None:
    file = tmp_path / 'c.yaml'
    file.write_text('batch: 4\nlearning_rate: 1e-3\nlosses: {peaky: 0.5}\n')
    config = load_config(file, {'losses.similarity': 2, 'seed': 7})
    assert (config.batch, config.learning_rate, config.seed) == (4, 1e-3, 7)
    assert (config.losses.peaky, config.losses.similarity) == (0.5, 2.0)
    assert config_from_dict(config.to_dict()) == config
    with pytest.raises(DataError, match='unknown key'):
        load_config(file, {'losses.nothing': 1})


@pytest.mark.parametrize(('name', 'value'), [
    ('learning_rate', math.nan), ('clip', -1.0), ('weight_decay', math.inf),
    ('losses.peaky', math.nan), ('warps.scale', math.inf),
])
def test_settings_that_are_no_numbers_are_named(name: str, value: float) -> None:
    with pytest.raises(DataError, match=name):
        load_config(None, {name: value})


@pytest.mark.parametrize('minutes', ['nan', 'inf', '-1', '0'])
def test_a_time_that_cannot_be_is_named(photos: Path, tmp_path: Path, capsys, minutes) -> None:
    out = tmp_path / 'run'
    code = main(['train', '--images', str(photos), '--out', str(out), f'--minutes={minutes}'])
    assert code == 2
    assert 'minutes: expected more than 0' in capsys.readouterr().err
    assert not out.exists()


def test_shipped_configuration_is_the_default() -> None:
    shipped = Path(__file__).parents[2] / 'config' / 'training.yaml'
    assert load_config(shipped, {}) == TrainingConfig()


def test_shipped_retraining_has_no_curriculum() -> None:
    config = load_config(Path(__file__).parents[2] / 'config' / 'retraining.yaml', {})
    curriculum = config.curriculum
    for progress in (0.0, 0.5, 1.0):
        assert curriculum.difficulty(progress) == 1.0
        assert curriculum.temperature(progress) == pytest.approx(curriculum.final_temperature)
        assert curriculum.reliability(progress) == 1.0
    assert config.learning_rate < TrainingConfig().learning_rate


def test_the_lectures_configuration_runs_on_its_own_terms(photos: Path, tmp_path: Path) -> None:
    file = Path(__file__).parents[2] / 'config' / 'lecture.yaml'
    losses = load_config(file, {}).losses
    ours = (losses.agreement, losses.reliability, losses.reprojection, losses.dual_softmax)
    assert ours == (0, 0, 0, 0)
    out = tmp_path / 'run'
    done = train('--images', str(photos), '--out', str(out), '--config', str(file), '--steps', '2',
                 *SMALL, *FAST)
    assert done.returncode == 0, done.stderr
    log = EventAccumulator(str(out / 'tensorboard'))
    log.Reload()
    value = {name: log.Scalars(f'train/{name}')[-1].value for name in (
        'total', 'similarity', 'peaky', 'intersection', 'triplet')}
    assert value['peaky'] > 0
    assert value['total'] == pytest.approx(
        value['similarity'] + value['peaky'] + 10 * value['intersection'] + value['triplet'],
        rel=1e-4,
    )


def test_learning_rate_rises_and_falls() -> None:
    config = TrainingConfig(warm_up=10, learning_rate=1.0, final_rate=0.01)
    rates = [learning_rate(config, step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(0.1, rel=1e-3)
    assert max(rates) == pytest.approx(1.0, rel=1e-2)
    assert rates[-1] == pytest.approx(0.01, rel=0.02)
    assert all(a >= b for a, b in zip(rates[10:-1], rates[11:], strict=True))


@pytest.mark.parametrize(
    'setting',
    ['warm_up=0', 'held_back=-1', 'held_back=1', 'averaging=1.0', 'warps.minimum_scale=0',
     'warps.scale=0.5', 'precision=fp64', 'side=100'],
)
def test_settings_out_of_range_are_named(
    setting: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['train', '--images', str(tmp_path), '--out', str(tmp_path / 'run'),
                 '--set', setting]) == 2
    assert setting.partition('=')[0] in capsys.readouterr().err

"""Weights files: round trip, and every way a file can be wrong."""

from __future__ import annotations

import hashlib
import json
import os
import resource
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mdnet_ros.errors import MDNetError, WeightsError
from mdnet_ros.features import weights as module
from mdnet_ros.features.network import CONFIGS, MDNet, MDNetConfig
from mdnet_ros.features.weights import load_weights, resolve_weights, save_weights


def metadata(**changes: str | None) -> dict[str, str]:
    values: dict[str, str | None] = {
        'format': 'mdnet_ros/1',
        'config': json.dumps(
            MDNetConfig(num_sets=2, dim=32, channels=(4, 8, 8, 16, 16)).to_dict()
        ),
        'training': '{}',
    }
    values.update(changes)
    return {key: value for key, value in values.items() if value is not None}


def fails(path: Path | str) -> str:
    """The message of the error that loading gives; one line that names the file."""
    with pytest.raises(WeightsError) as caught:
        load_weights(path)
    message = str(caught.value)
    assert '\n' not in message
    assert str(path) in message
    assert isinstance(caught.value, MDNetError)
    return message


def test_round_trip(network: MDNet, tmp_path: Path) -> None:
    path = tmp_path / 'new' / 'folder' / 'net.safetensors'
    save_weights(network, path, {'steps': 7, 'data': ['a', 'b']})
    loaded, info = load_weights(path)
    assert not loaded.training
    assert info.path == path
    assert info.config == network.config
    assert info.training == {'steps': 7, 'data': ['a', 'b']}
    assert info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    state = loaded.state_dict()
    assert state.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(state[name], tensor)
    assert os.listdir(path.parent) == ['net.safetensors']


def test_saving_replaces_in_one_step(network: MDNet, tmp_path: Path) -> None:
    """A failure while writing leaves the old file as it was, and nothing else."""
    path = tmp_path / 'net.safetensors'
    save_weights(network, path, {'run': 1})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_weights(network, path, {'run': object()})
    assert path.read_bytes() == before
    save_weights(network, path, {'run': 2})
    assert load_weights(path)[1].training == {'run': 2}
    assert os.listdir(tmp_path) == ['net.safetensors']


def test_half_precision_parameters_are_stored_as_float32(make, tmp_path: Path) -> None:
    path = tmp_path / 'half.safetensors'
    save_weights(make.network().half(), path, {})
    kinds = {t.dtype for t in load_file(path).values() if t.is_floating_point()}
    assert kinds == {torch.float32}


def test_missing(tmp_path: Path) -> None:
    message = fails(tmp_path / 'nothing.safetensors')
    assert 'no such file' in message
    assert 'md2net-light' in message
    fails(tmp_path)  # a folder is no file either


def test_names_that_ship(tmp_path: Path, weights_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, 'WEIGHTS_DIR', tmp_path)
    for name in CONFIGS:
        assert name in fails(name)
        (tmp_path / f'{name}.safetensors').write_bytes(weights_path.read_bytes())
        assert resolve_weights(name) == tmp_path / f'{name}.safetensors'
    assert resolve_weights(None) == tmp_path / 'md2net.safetensors'


def test_home_is_expanded(weights_path: Path, monkeypatch) -> None:
    monkeypatch.setenv('HOME', str(weights_path.parent))
    assert load_weights(f'~/{weights_path.name}')[1].path == weights_path


@pytest.mark.parametrize('content', [b'', b'\0', b'garbage' * 100, b'\xff' * 64, b'{}'])
def test_not_a_weights_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / 'bad.safetensors'
    path.write_bytes(content)
    assert 'not a valid weights file' in fails(path)


def test_pickle_is_never_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (os.mkdir, (str(tmp_path / 'ran'),))

    path = tmp_path / 'bomb.safetensors'
    torch.save(Bomb(), path)
    fails(path)
    assert not (tmp_path / 'ran').exists()


@settings(max_examples=40, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**20))
def test_truncated_anywhere(tmp_path: Path, weights_path: Path, cut: int) -> None:
    content = weights_path.read_bytes()
    path = tmp_path / 'cut.safetensors'
    path.write_bytes(content[: cut % len(content)])
    fails(path)


@settings(max_examples=80, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 1500), st.integers(0, 255))
def test_a_flipped_header_byte_loads_or_is_named(
    tmp_path: Path, weights_path: Path, place: int, value: int
) -> None:
    content = bytearray(weights_path.read_bytes())
    content[place] = value
    path = tmp_path / 'flipped.safetensors'
    path.write_bytes(content)
    try:
        assert isinstance(load_weights(path)[0], MDNet)
    except WeightsError:
        fails(path)


@pytest.mark.parametrize(
    'changes',
    [
        {'format': None}, {'format': 'mdnet_ros/99'}, {'config': None}, {'config': '{'},
        {'config': '[]'}, {'config': 'null'}, {'config': '{"num_sets": 2}'},
        {'config': '{"num_sets": 99, "dim": 32, "channels": [4, 8, 8, 16, 16]}'},
        {'config': '{"num_sets": 1e999, "dim": 32, "channels": [4, 8, 8, 16, 16]}'},
        {'config': '{"num_sets": 2, "dim": 32, "channels": [4, 8, 8, 16, 999999999]}'},
        {'config': '[' * 100_000}, {'training': '{'}, {'training': '[1]'},
    ],
)
def test_wrong_header(changes: dict, network: MDNet, tmp_path: Path) -> None:
    path = tmp_path / 'header.safetensors'
    save_file(network.state_dict(), path, metadata=metadata(**changes))
    fails(path)


def test_no_header_at_all(network: MDNet, tmp_path: Path) -> None:
    path = tmp_path / 'plain.safetensors'
    save_file(network.state_dict(), path)
    assert 'format' in fails(path)


@pytest.mark.parametrize('damage', ['missing', 'extra', 'shape', 'transposed', 'other size'])
def test_tensors_that_do_not_fit(damage: str, network: MDNet, tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    name = next(name for name, tensor in state.items() if tensor.ndim == 4)
    header = metadata()
    if damage == 'missing':
        del state[name]
    elif damage == 'extra':
        state['surprise'] = torch.zeros(1)
    elif damage == 'shape':
        state[name] = state[name][:1].contiguous()
    elif damage == 'transposed':
        state[name] = state[name].transpose(0, 1).contiguous()
    else:
        header = metadata(config=json.dumps(CONFIGS['md2net'].to_dict()))
    path = tmp_path / 'misfit.safetensors'
    save_file(state, path, metadata=header)
    assert 'not a valid weights file' in fails(path)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_values_that_are_not_finite(value: float, network: MDNet, tmp_path: Path) -> None:
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    name = next(name for name, tensor in state.items() if tensor.ndim == 4)
    state[name][0, 0, 0, 0] = value
    path = tmp_path / 'nan.safetensors'
    save_file(state, path, metadata=metadata())
    assert name in fails(path)


def test_a_small_file_makes_no_large_network(tmp_path: Path) -> None:
    config = MDNetConfig(dim=512, channels=(1024,) * 5, saliency=1024, blocks=(16, 16, 16))
    path = tmp_path / 'small.safetensors'
    save_file(
        {'stem.1.0.weight': torch.zeros(1)}, str(path),
        {'format': 'mdnet_ros/1', 'config': json.dumps(config.to_dict())},
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsError, match='not a valid weights file'):
        load_weights(path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 100_000  # KiB; the network has 1.8 GB


def test_a_huge_file_is_refused_unread(weights_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, 'MAX_FILE_BYTES', weights_path.stat().st_size - 1)
    assert 'refused' in fails(weights_path)

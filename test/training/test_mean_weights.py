"""The mean of weights files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mdnet_ros.cli.main import main
from mdnet_ros.features.network import MDNet, MDNetConfig
from mdnet_ros.features.weights import load_weights, save_weights

SMALL = MDNetConfig(dim=16, channels=(4, 8, 8, 8, 8), saliency=4)


def written(path: Path, config: MDNetConfig, seed: int, training: dict[str, object]) -> MDNet:
    """A network of random weights, written to a file."""
    torch.manual_seed(seed)
    network = MDNet(config).eval()
    if network.saliency is not None:
        torch.nn.init.normal_(network.saliency[2].weight)
    save_weights(network, path, training)
    return network


def test_each_tensor_is_the_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / f'{i}.safetensors' for i in range(3)]
    networks = [written(f, SMALL, i, {'pairs': i, 'validation': {}}) for i, f in enumerate(files)]
    out = tmp_path / 'mean.safetensors'
    assert main(['mean', *map(str, files), '--out', str(out)]) == 0
    mean, info = load_weights(out)
    assert info.sha256 in capsys.readouterr().out
    for name, tensor in mean.state_dict().items():
        if tensor.is_floating_point():
            parts = torch.stack([network.state_dict()[name] for network in networks])
            torch.testing.assert_close(tensor, parts.mean(0))
    assert info.training['pairs'] == 2
    assert 'validation' not in info.training
    others = [load_weights(f)[1] for f in files[:2]]
    assert [m['sha256'] for m in info.training['mean_with']] == [o.sha256 for o in others]
    assert [m['training']['pairs'] for m in info.training['mean_with']] == [0, 1]


def test_a_file_without_a_saliency_head_halves_the_others_say(tmp_path: Path) -> None:
    files = [tmp_path / f'{i}.safetensors' for i in range(2)]
    plain = written(files[0], replace(SMALL, saliency=0), 0, {})
    with_head = written(files[1], SMALL, 1, {})
    out = tmp_path / 'mean.safetensors'
    assert main(['mean', *map(str, files), '--out', str(out)]) == 0
    mean, _ = load_weights(out)
    assert mean.saliency is not None
    assert with_head.saliency is not None
    seen = torch.rand(1, SMALL.dim, 12, 16)
    torch.testing.assert_close(mean.saliency(seen), with_head.saliency(seen) / 2)
    torch.testing.assert_close(
        mean.gate.weight, (plain.gate.weight + with_head.gate.weight) / 2
    )


def test_what_does_not_fit_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, other = tmp_path / 'small.safetensors', tmp_path / 'other.safetensors'
    written(small, SMALL, 0, {})
    written(other, replace(SMALL, dim=8), 0, {})
    out = tmp_path / 'mean.safetensors'
    assert main(['mean', str(small), '--out', str(out)]) == 2
    assert 'expected at least two files' in capsys.readouterr().err
    assert main(['mean', str(small), str(other), '--out', str(out)]) == 2
    assert 'expected the network of the others' in capsys.readouterr().err
    assert not out.exists()

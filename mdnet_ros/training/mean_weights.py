"""The mean of several weights files of one network ("model soup").

Weights that were trained on from one another lie in one valley of the loss, and their mean is often
better than each of them (Wortsman et al., Model soups, ICML 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mdnet_ros.errors import DataError
from mdnet_ros.features.network import MDNet, with_saliency_head
from mdnet_ros.features.weights import load_weights, save_weights


def write_mean(paths: Sequence[str | Path], out: Path) -> None:
    """Write the mean of weights files, each of equal share.

    Args:
        paths: shipped names or files, at least two. The file says of its training what the last
            one says, without that one's validation, and names the others. Files without a saliency
            head count as if they had the last one's with a last layer of zeros, which changes
            nothing.
        out: file to write.

    Raises:
        DataError: fewer than two files, or networks of different shapes.
        WeightsError: a file cannot be loaded.
    """
    if len(paths) < 2:
        raise DataError(f'weights: expected at least two files, got {len(paths)}')
    *earlier, (network, info) = (load_weights(path) for path in paths)
    states = [network.state_dict()]
    for other, _ in earlier:
        grown = _with_saliency_of(network, other)
        if grown.config != network.config:
            raise DataError(
                f"weights '{info.path}': expected the network of the others, "
                f'{other.config}, got {network.config}'
            )
        states.append(grown.state_dict())
    mean = {
        name: torch.stack([state[name] for state in states]).mean(0)
        if value.is_floating_point() else value
        for name, value in states[0].items()
    }
    network.load_state_dict(mean)
    training: dict[str, Any] = {k: v for k, v in info.training.items() if k != 'validation'}
    training['mean_with'] = [
        {'sha256': before.sha256, 'training': before.training} for _, before in earlier
    ]
    save_weights(network, out, training)


def _with_saliency_of(trained: MDNet, other: MDNet) -> MDNet:
    """Return ``other``, with a head that changes nothing if only ``trained`` has one."""
    if other.saliency is not None or trained.saliency is None:
        return other
    grown = with_saliency_head(other, trained.config.saliency)
    assert grown.saliency is not None
    for layer, source in zip([*grown.saliency][:-1], trained.saliency, strict=False):
        layer.load_state_dict(source.state_dict())  # the last layer stays as it was made: zero
    return grown

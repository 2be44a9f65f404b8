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
from mdnet_ros.features.network import grow
from mdnet_ros.features.weights import load_weights, save_weights


def write_mean(paths: Sequence[str | Path], out: Path) -> None:
    """Write the mean of weights files, each of equal share.

    Args:
        paths: shipped names or files, at least two. The file says of its training what the last
            one says, without that one's validation, and names the others. Files without the
            saliency head or the residual blocks of the last one count as if they had these with
            last layers of zeros, which change nothing.
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
        if other.config.grown(network.config) != network.config:
            raise DataError(
                f"weights '{info.path}': expected the network of the others, "
                f'{other.config}, got {network.config}'
            )
        states.append(grow(other, network.config, hidden_from=network).state_dict())
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

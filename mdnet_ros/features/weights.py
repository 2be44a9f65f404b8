"""Loads, verifies and saves weights files.

A weights file is in the safetensors format, which cannot contain code. Its header holds the
configuration of the network and the provenance of the training as JSON.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mdnet_ros.errors import WeightsError
from mdnet_ros.features.network import CONFIGS, MDNet, MDNetConfig
from mdnet_ros.files import write_bytes

#: Folder with the weights that ship with the package.
WEIGHTS_DIR = Path(__file__).resolve().parent.parent / 'weights'
DEFAULT_WEIGHTS = 'md2net'
#: Larger files are refused unread.
MAX_FILE_BYTES = 512 * 1024 * 1024
_FORMAT = 'mdnet_ros/1'


@dataclass(frozen=True)
class WeightsInfo:
    """Description of a weights file.

    Attributes:
        path: the file.
        sha256: hash of the file's content, hexadecimal.
        config: configuration of the network.
        training: provenance of the training: data, steps, time; free-form.
    """

    path: Path
    sha256: str
    config: MDNetConfig
    training: dict[str, Any]


def resolve_weights(weights: str | Path | None) -> Path:
    """Return the file for a shipped name (``md2net``), a path, or None (the default).

    Raises:
        WeightsError: if there is no such file.
    """
    name = str(weights) if weights else DEFAULT_WEIGHTS
    shipped = WEIGHTS_DIR / f'{name}.safetensors'
    path = shipped if name in CONFIGS else Path(name).expanduser()
    if not path.is_file():
        raise WeightsError(
            f"weights '{name}': no such file; expected a .safetensors file "
            f'or one of {", ".join(sorted(CONFIGS))}'
        )
    return path


def load_weights(weights: str | Path | None = None) -> tuple[MDNet, WeightsInfo]:
    """Load and verify a network.

    Args:
        weights: a shipped name, a path, or None for the default.

    Returns:
        The network in evaluation mode on the CPU, and the description of the file.

    Raises:
        WeightsError: if the file is missing, corrupt or not ours, or if its tensors do not fit the
            configuration.
    """
    path = resolve_weights(weights)
    if path.stat().st_size > MAX_FILE_BYTES:
        raise WeightsError(f"weights '{path}': larger than {MAX_FILE_BYTES} bytes, refused")
    try:
        with safe_open(str(path), framework='pt') as file:
            metadata = file.metadata() or {}
            if metadata.get('format') != _FORMAT:
                raise WeightsError(f"weights '{path}': header does not say format {_FORMAT}")
            config = MDNetConfig.from_dict(json.loads(metadata['config']))
            training = json.loads(metadata.get('training', '{}'))
            if not isinstance(training, dict):
                raise ValueError(f"header's training: expected an object, got {training!r}")
            tensors = {
                name: _own(file.get_tensor(name)) for name in file.keys()  # noqa: SIM118 (no dict)
            }
        # On meta it takes no memory: a small file must not make a large network.
        with torch.device('meta'):
            network = MDNet(config)
        network.load_state_dict(tensors, assign=True)
    except WeightsError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise WeightsError(f"weights '{path}': not a valid weights file: {reason}") from None
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise WeightsError(f"weights '{path}': '{name}' holds values that are not finite")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return network.eval(), WeightsInfo(path, sha256, config, training)


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor, which the file may still back; floating-point values to float32."""
    return tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)


def save_weights(network: MDNet, path: str | Path, training: dict[str, Any]) -> None:
    """Write a weights file; it replaces an existing one only when it is complete.

    Args:
        network: its parameters, as float32, and its configuration are stored.
        path: the file to (re)place.
        training: provenance to keep in the header; must be JSON-serialisable.

    Raises:
        DataError: if the file cannot be written.
    """
    tensors = {
        name: (tensor.float() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in network.state_dict().items()
    }
    metadata = {
        'format': _FORMAT,
        'config': json.dumps(network.config.to_dict()),
        'training': json.dumps(training),
    }
    write_bytes(Path(path), save(tensors, metadata=metadata))

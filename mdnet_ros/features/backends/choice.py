"""Choose the backend that runs a network: PyTorch, OpenVINO or an exported file."""

from __future__ import annotations

from pathlib import Path

import torch

from mdnet_ros.errors import SettingError
from mdnet_ros.features.backends.base import Backend
from mdnet_ros.features.backends.exported import SUFFIXES, open_exported
from mdnet_ros.features.backends.pytorch import WeightsBackend
from mdnet_ros.features.weights import resolve_weights

#: Runtimes for a weights file; openvino is for CPUs only and needs the extra of that name.
RUNTIMES = ('torch', 'openvino')
#: File name endings of networks.
NETWORK_SUFFIXES = ('.safetensors', *sorted(set(SUFFIXES.values())))


def load_backend(
    weights: str | Path | None, device: torch.device, precision: str, runtime: str = 'torch'
) -> Backend:
    """Load weights or an exported file into the backend that runs them.

    Args:
        weights: a shipped name, a path that ends in one of :data:`NETWORK_SUFFIXES`, or None.
        device: device to run on.
        precision: fp32, fp16 or bf16; an exported file has its own.
        runtime: one of :data:`RUNTIMES`; an exported file has its own.

    Raises:
        SettingError: if the runtime is unknown.
        WeightsError: if the file is missing, corrupt, or not ours.
        MDNetError: if it cannot run on this machine.
    """
    suffix = Path(str(weights)).suffix
    if runtime not in RUNTIMES:
        raise SettingError(f"runtime '{runtime}': expected {' or '.join(RUNTIMES)}")
    if suffix in SUFFIXES.values():
        return open_exported(resolve_weights(weights), device)
    if runtime == 'torch':
        return WeightsBackend(weights, device, precision)
    from mdnet_ros.features.backends.openvino import OpenVinoBackend

    return OpenVinoBackend(weights, device, precision)



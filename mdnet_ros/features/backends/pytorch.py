"""PyTorch as a backend: weights files on CPUs and GPUs, images of any size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from mdnet_ros.features.backends.base import PRECISIONS, find_keypoints, run_network
from mdnet_ros.features.backends.cpu_network import CpuNetwork
from mdnet_ros.features.detection import DetectionSettings
from mdnet_ros.features.network import MDNet, NetworkOutput, fuse
from mdnet_ros.features.types import PaddedFeatures
from mdnet_ros.features.weights import load_weights


class WeightsBackend:
    """PyTorch, from a weights file: images of any size, all settings free.

    Args:
        weights: a shipped name, a path, or None for the default.
        device: where to run.
        precision: a key of :data:`PRECISIONS`.

    Raises:
        WeightsError: the file is missing or corrupt.
    """

    fixed_size: tuple[int, int] | None = None
    fixed_batch: int | None = None

    def __init__(self, weights: str | Path | None, device: torch.device, precision: str) -> None:
        network, self.info = load_weights(weights)
        self.device = device
        self.precision = precision
        self._run_network, self._autocast = self._prepare(network.requires_grad_(False))

    def _prepare(
        self, network: MDNet
    ) -> tuple[Callable[[torch.Tensor], NetworkOutput], torch.dtype]:
        """What runs the network, and for which type of PyTorch's autocast."""
        dtype = PRECISIONS[self.precision]
        if self.device.type == 'cpu':
            return CpuNetwork(network, dtype), torch.float32
        fused = fuse(network).to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return fused, dtype

    def check(self, settings: DetectionSettings) -> None:
        """As :meth:`Backend.check`; all can be done."""

    @torch.inference_mode()
    def run(
        self, images: torch.Tensor, settings: DetectionSettings, mask: torch.Tensor | None
    ) -> PaddedFeatures:
        """As :meth:`Backend.run`."""
        return find_keypoints(
            self._run_network,
            images.to(self.device, non_blocking=True),
            (images.shape[0], images.shape[2], images.shape[3]),
            settings,
            None if mask is None else mask.to(self.device),
            self._autocast,
        )

    @torch.inference_mode()
    def run_network(self, images: torch.Tensor) -> NetworkOutput:
        """The dense output alone, of (B, 1, H, W) uint8 images on the host."""
        shape = (images.shape[0], images.shape[2], images.shape[3])
        return run_network(self._run_network, images.to(self.device), shape, self._autocast)

"""PyTorch backend: runs weights files on CPUs and GPUs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from mdnet_ros.features.backends.base import PRECISIONS, find_keypoints, run_network
from mdnet_ros.features.backends.frame_step import FrameSteps
from mdnet_ros.features.backends.fused_cpu_network import CpuNetwork
from mdnet_ros.features.backends.fused_cuda_network import CudaNetwork
from mdnet_ros.features.detection import DetectionSettings
from mdnet_ros.features.network import MDNet, NetworkOutput
from mdnet_ros.features.types import PaddedFeatures
from mdnet_ros.features.weights import load_weights


class WeightsBackend:
    """Runs a weights file with PyTorch: images of any size, all settings free.

    Args:
        weights: a shipped name, a path, or None for the default.
        device: where to run.
        precision: a key of :data:`PRECISIONS`.
        graphs: on CUDA, capture the work on a frame as a graph.

    Attributes:
        network: (B, 1, H, W) images to dense output, on the device.
        steps: the passes of fixed shapes, see :mod:`mdnet_ros.features.backends.frame_step`; None
            starts kernels one by one.

    Raises:
        WeightsError: if the file is missing or corrupt.
    """

    fixed_size: tuple[int, int] | None = None
    fixed_batch: int | None = None

    def __init__(
        self,
        weights: str | Path | None,
        device: torch.device,
        precision: str,
        graphs: bool = True,
    ) -> None:
        network, self.info = load_weights(weights)
        self.device = device
        self.precision = precision
        self.network = self._prepare(network.requires_grad_(False))
        self.steps: FrameSteps | None = None
        if graphs and device.type == 'cuda':
            self.steps = FrameSteps(self.network, device, capture=True)

    def _prepare(self, network: MDNet) -> Callable[[torch.Tensor], NetworkOutput]:
        """Return the network ready for the device and the precision."""
        dtype = PRECISIONS[self.precision]
        if self.device.type == 'cpu':
            return CpuNetwork(network, dtype)
        return CudaNetwork(network, dtype, self.device)

    def check(self, settings: DetectionSettings) -> None:
        """Accept all settings; see :meth:`Backend.check`."""

    @torch.inference_mode()
    def run(
        self, images: torch.Tensor, settings: DetectionSettings, mask: torch.Tensor | None
    ) -> PaddedFeatures:
        """Find keypoints; see :meth:`Backend.run`."""
        if self.steps is not None:
            return self.steps.run(images, settings, mask)
        return find_keypoints(
            self.network,
            images.to(self.device, non_blocking=True),
            (images.shape[0], images.shape[2], images.shape[3]),
            settings,
            None if mask is None else mask.to(self.device),
        )

    @torch.inference_mode()
    def run_network(self, images: torch.Tensor) -> NetworkOutput:
        """Return the dense output alone, of (B, 1, H, W) uint8 images on the host."""
        shape = (images.shape[0], images.shape[2], images.shape[3])
        return run_network(self.network, images.to(self.device), shape)

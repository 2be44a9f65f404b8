"""What runs a network on a batch of images.

PyTorch is here, OpenVINO in ``openvino.py``, exported files in ``exported.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch.nn import functional as F

from mdnet_ros.errors import SettingError
from mdnet_ros.features.backends.cpu_network import CpuNetwork
from mdnet_ros.features.backends.exported import SUFFIXES, open_exported
from mdnet_ros.features.detection import DetectionSettings, detect
from mdnet_ros.features.network import SIZE_MULTIPLE, MDNet, NetworkOutput, fuse
from mdnet_ros.features.types import PaddedFeatures
from mdnet_ros.features.weights import WeightsInfo, load_weights, resolve_weights

PRECISIONS = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
#: What may run a weights file; openvino on CPUs only, by the extra of that name.
RUNTIMES = ('torch', 'openvino')
#: How the name of a file with a network may end.
NETWORK_SUFFIXES = ('.safetensors', *sorted(set(SUFFIXES.values())))


class Backend(Protocol):
    """Runs a network and its detection.

    Attributes:
        info: where the network comes from.
        device: where it runs.
        precision: of its arithmetic, a key of :data:`PRECISIONS`.
        fixed_size: (height, width) of the images it takes; None: any.
        fixed_batch: how many images it takes at a time; None: any number.
    """

    info: WeightsInfo
    device: torch.device
    precision: str
    fixed_size: tuple[int, int] | None
    fixed_batch: int | None

    def check(self, settings: DetectionSettings) -> None:
        """Raise SettingError unless the detection can be done with these settings."""
        ...

    def run(
        self, images: torch.Tensor, settings: DetectionSettings, mask: torch.Tensor | None
    ) -> PaddedFeatures:
        """Find keypoints.

        Args:
            images: (B, 1, H, W) uint8 on the host.
            settings: of the detection.
            mask: (B, 1, H, W) bool on the host, where keypoints may lie; everywhere if None.

        Returns:
            K sets of fixed shape, in pixels of the images.

        Raises:
            ImageError: the file takes images of another size only.
        """
        ...


def run_network(
    network: Callable[[torch.Tensor], NetworkOutput],
    images: torch.Tensor,
    shape: tuple[int, int, int],
    dtype: torch.dtype = torch.float32,
) -> NetworkOutput:
    """Scale and pad images, and run the network on them.

    Args:
        network: an MDNet, or what stands for one.
        images: (B, 1, H, W) uint8 on the network's device.
        shape: (B, H, W) as plain numbers, which a tracer takes for constants.
        dtype: of PyTorch's arithmetic.
    """
    batch, height, width = shape
    right, bottom = -width % SIZE_MULTIPLE, -height % SIZE_MULTIPLE
    x = F.pad(images.float() / 255.0, (0, right, 0, bottom), mode='replicate')
    x = x.reshape(batch, 1, height + bottom, width + right)  # the ONNX tracer has lost it
    with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        return network(x.contiguous(memory_format=torch.channels_last))


def find_keypoints(
    network: Callable[[torch.Tensor], NetworkOutput],
    images: torch.Tensor,
    shape: tuple[int, int, int],
    settings: DetectionSettings,
    mask: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> PaddedFeatures:
    """The whole way on the device: scale, pad, network, detection.

    Args:
        network, images, shape, dtype: as for :func:`run_network`.
        settings: of the detection.
        mask: (B, 1, H, W) bool on the same device, or None.
    """
    output = run_network(network, images, shape, dtype)
    _, height, width = shape
    if mask is not None:
        mask = F.pad(mask, (0, -width % SIZE_MULTIPLE, 0, -height % SIZE_MULTIPLE))
    return detect(output, settings, (height, width), mask)


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


def load_backend(
    weights: str | Path | None, device: torch.device, precision: str, runtime: str = 'torch'
) -> Backend:
    """The backend that runs some weights or an exported file.

    Args:
        weights: a shipped name, a path that ends in one of :data:`NETWORK_SUFFIXES`, or None.
        device: where to run.
        precision: a key of :data:`PRECISIONS`; an exported file has its own.
        runtime: one of :data:`RUNTIMES`; an exported file has its own.

    Raises:
        SettingError: the runtime is not known.
        WeightsError: missing, corrupt, or not ours.
        MDNetError: it cannot run here.
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

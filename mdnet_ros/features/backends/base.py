"""Protocol of the backends, which run a network on a batch of images, and their common steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch.nn import functional as F

from mdnet_ros.features.detection import DetectionSettings, detect
from mdnet_ros.features.network import SIZE_MULTIPLE, NetworkOutput
from mdnet_ros.features.texture import find_texture
from mdnet_ros.features.types import PaddedFeatures
from mdnet_ros.features.weights import WeightsInfo

PRECISIONS = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}


class Backend(Protocol):
    """Runs a network and the keypoint detection.

    Attributes:
        info: description of the weights file.
        device: device it runs on.
        precision: precision of the network, a key of :data:`PRECISIONS`.
        fixed_size: (height, width) of the images it can process; None: any.
        fixed_batch: how many images it processes at a time; None: any number.
    """

    info: WeightsInfo
    device: torch.device
    precision: str
    fixed_size: tuple[int, int] | None
    fixed_batch: int | None

    def check(self, settings: DetectionSettings) -> None:
        """Raise SettingError if it cannot detect keypoints with these settings."""
        ...

    def run(
        self, images: torch.Tensor, settings: DetectionSettings, mask: torch.Tensor | None
    ) -> PaddedFeatures:
        """Detect keypoints.

        Args:
            images: (B, 1, H, W) uint8 on the host.
            settings: settings of the detection.
            mask: (B, 1, H, W) bool on the host, where keypoints are allowed; None: everywhere.

        Returns:
            K sets of fixed shape, in pixels of the images.

        Raises:
            ImageError: if it processes images of another size only.
        """
        ...


def run_network(
    network: Callable[[torch.Tensor], NetworkOutput],
    images: torch.Tensor,
    shape: tuple[int, int, int],
) -> NetworkOutput:
    """Scale and pad images, and run the network on them.

    Args:
        network: an MDNet, or a function that does the same.
        images: (B, 1, H, W) uint8 on the network's device.
        shape: (B, H, W) as Python numbers, which are constants for a tracer.
    """
    batch, height, width = shape
    right, bottom = -width % SIZE_MULTIPLE, -height % SIZE_MULTIPLE
    x = images.float() / 255.0
    if right or bottom:
        x = F.pad(x, (0, right, 0, bottom), mode='replicate')
    x = x.reshape(batch, 1, height + bottom, width + right)  # the ONNX tracer loses the shape
    return network(x.contiguous(memory_format=torch.channels_last))


def find_keypoints(
    network: Callable[[torch.Tensor], NetworkOutput],
    images: torch.Tensor,
    shape: tuple[int, int, int],
    settings: DetectionSettings,
    mask: torch.Tensor | None = None,
) -> PaddedFeatures:
    """Detect keypoints in textured regions; all work stays on the device.

    Args:
        network, images, shape: as for :func:`run_network`.
        settings: settings of the detection.
        mask: (B, 1, H, W) bool on the same device, or None.
    """
    _, height, width = shape
    if images.is_cuda and torch.cuda.is_current_stream_capturing():
        # A branch of the graph: its many small kernels leave room for the network's beside them.
        # Nothing else is done on its stream, so no later work of the graph reuses its memory.
        device = images.device
        here, beside = torch.cuda.current_stream(device), torch.cuda.Stream(device)
        beside.wait_stream(here)
        with torch.cuda.stream(beside):
            allowed = find_texture(images, (height, width))
        output = run_network(network, images, shape)
        here.wait_stream(beside)
    else:
        output = run_network(network, images, shape)
        allowed = find_texture(images, (height, width))
    if mask is not None:
        allowed = allowed & mask
    if width % SIZE_MULTIPLE or height % SIZE_MULTIPLE:
        allowed = F.pad(allowed, (0, -width % SIZE_MULTIPLE, 0, -height % SIZE_MULTIPLE))
    return detect(output, settings, (height, width), allowed)

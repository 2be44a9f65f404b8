"""Network, detection and matching to the previous images as one pass of fixed shapes.

On CUDA the pass is captured as a graph once for each size of image and set of settings, so that
the CPU starts one piece of work for each frame instead of a hundred. Descriptors stay on the
device from one frame to the next; what the host needs comes back in one download. The same class
runs without a capture on any device, which is how the tests compare it with the plain way.
"""

from __future__ import annotations

import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from mdnet_ros.features.backends.base import find_keypoints
from mdnet_ros.features.detection import DetectionSettings
from mdnet_ros.features.matching import mutual_nearest
from mdnet_ros.features.network import NetworkOutput
from mdnet_ros.features.packing import Packing, pack
from mdnet_ros.features.types import PaddedFeatures, StepMatches

_T = TypeVar('_T')

#: Passes before a capture: cuDNN and cuBLAS choose their kernels in the first ones.
_WARM_UP = 3
#: Sizes and settings whose passes are kept; the one unused for longest goes first.
_KEPT = 4


def capture_graph(work: Callable[[], _T], device: torch.device) -> tuple[torch.cuda.CUDAGraph, _T]:
    """Warm up some work on a stream of its own, then record it as a CUDA graph.

    Args:
        work: kernels that ask nothing of the host; done without gradients.
        device: a CUDA device.

    Returns:
        The graph, and what the work returned: each replay writes it again.
    """
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    # cuDNN times its kernels in the warm-up, and takes the fastest for these shapes.
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, benchmark=True):
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                work()
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Another thread may use the device during capture, e.g. the loader of a changed
        # configuration.
        with torch.cuda.graph(graph, capture_error_mode='thread_local'):
            output = work()
    return graph, output


class FrameStep:
    """One pass for images of one size under one set of settings.

    Args:
        network: an MDNet on the device, or its equivalent.
        shape: (B, H, W) of the images.
        settings: settings of the detection.
        masked: whether a mask is given with each batch.
        device: where the network is.
        capture: make a CUDA graph of the pass.
    """

    def __init__(
        self,
        network: Callable[[torch.Tensor], NetworkOutput],
        shape: tuple[int, int, int],
        settings: DetectionSettings,
        masked: bool,
        device: torch.device,
        capture: bool,
    ) -> None:
        self._network, self._shape, self._settings = network, shape, settings
        batch, height, width = shape
        pinned = device.type == 'cuda'
        self._upload = torch.zeros(batch, 1, height, width, dtype=torch.uint8, pin_memory=pinned)
        self._images = torch.zeros_like(self._upload, device=device)
        self._mask = None
        if masked:
            self._mask = torch.ones(batch, 1, height, width, dtype=torch.bool, device=device)
        self._last: tuple[StepMatches, ...] = ()
        self._previous_descriptors: torch.Tensor | None = None
        self._previous_valid: torch.Tensor | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._output: tuple[Packing, torch.Tensor] | None = None
        if capture:
            self._graph, self._output = capture_graph(self._pass, device)

    @torch.inference_mode()
    def run(self, images: torch.Tensor, mask: torch.Tensor | None) -> PaddedFeatures:
        """Find keypoints and match them to those of the images of the call before.

        Args:
            images: (B, 1, H, W) uint8 on the host.
            mask: (B, 1, H, W) bool on the host, if the pass takes one.

        Returns:
            The features, with their tables on the host and the matches of each image.
        """
        self._upload.copy_(images)
        self._images.copy_(self._upload, non_blocking=True)
        if self._mask is not None and mask is not None:
            self._mask.copy_(mask, non_blocking=True)
        if self._graph is not None and self._output is not None:
            self._graph.replay()
            packing, packed = self._output
            # The graph writes its output to the same place in the next replay.
            packed = packed.clone()
        else:
            packing, packed = self._pass()
        return self._with_host_tables(packing, packed)

    def _pass(self) -> tuple[Packing, torch.Tensor]:
        """Do all work on the device; returns the features and their matches in one tensor."""
        found = find_keypoints(
            self._network, self._images, self._shape, self._settings, self._mask
        )
        if self._previous_descriptors is None or self._previous_valid is None:
            self._previous_descriptors = torch.zeros_like(found.descriptors)
            self._previous_valid = torch.zeros_like(found.valid)
        partner, similarity = mutual_nearest(
            found.descriptors.flatten(0, 1), found.valid.flatten(0, 1),
            self._previous_descriptors.flatten(0, 1), self._previous_valid.flatten(0, 1),
        )
        shape = found.valid.shape
        packed = pack(found, partner.reshape(shape), similarity.reshape(shape))
        self._previous_descriptors.copy_(found.descriptors)
        self._previous_valid.copy_(found.valid)
        return Packing.of(found, extra=2), packed

    def _with_host_tables(self, packing: Packing, packed: torch.Tensor) -> PaddedFeatures:
        """Download once, and say which images the matches lead to."""
        cuda = packed.device.type == 'cuda'
        download = packed
        if cuda:
            # From torch's cache of pinned memory: the features own it, the next frame gets other.
            download = torch.empty(packed.shape, pin_memory=True)
            download.copy_(packed, non_blocking=True)
        features = packing.unpack(packed)  # while the device works
        if cuda:
            torch.cuda.current_stream(packed.device).synchronize()
        tables, (partner, similarity) = packing.unpack_on_host(download.numpy())
        previous: list[weakref.ref[StepMatches] | None] = [None] * self._shape[0]
        if self._last:
            previous = [weakref.ref(matches) for matches in self._last]
        self._last = tuple(
            StepMatches(*of_image)
            for of_image in zip(previous, partner.astype(np.int64), similarity, strict=True)
        )
        return replace(features, host=tables, matches=self._last)


class FrameSteps:
    """The passes in use, made when a size or settings first come, a few of them kept.

    Args:
        network: an MDNet on the device, or its equivalent.
        device: where the network is.
        capture: make CUDA graphs.
    """

    def __init__(
        self,
        network: Callable[[torch.Tensor], NetworkOutput],
        device: torch.device,
        capture: bool,
    ) -> None:
        self._network, self._device = network, device
        self._captures = capture
        self._steps: OrderedDict[Hashable, FrameStep] = OrderedDict()

    def __len__(self) -> int:
        return len(self._steps)

    def run(
        self, images: torch.Tensor, settings: DetectionSettings, mask: torch.Tensor | None
    ) -> PaddedFeatures:
        """Take a batch through the pass for its size and settings; see :meth:`FrameStep.run`."""
        shape = (images.shape[0], images.shape[2], images.shape[3])
        key = (shape, settings, mask is not None)
        if key not in self._steps:
            while len(self._steps) >= _KEPT:
                self._steps.popitem(last=False)
            self._steps[key] = self._make(shape, settings, mask is not None)
        self._steps.move_to_end(key)
        return self._steps[key].run(images, mask)

    def _make(
        self, shape: tuple[int, int, int], settings: DetectionSettings, masked: bool
    ) -> FrameStep:
        make = partial(
            FrameStep, self._network, shape, settings, masked, self._device
        )
        try:
            return make(self._captures)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if not self._captures:
                raise
            reason = ' '.join(str(error).split())[:200]
            warnings.warn(f'no CUDA graph, kernels are started one by one: {reason}', stacklevel=2)
            self._captures = False
            return make(False)

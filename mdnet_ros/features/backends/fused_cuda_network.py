"""The network rewritten for CUDA: it computes the same from its weights in fewer kernels.

On a GPU a frame's maps are small, and the time goes into the number of kernels and the number of
passes over a map. Norms are therefore folded into convolutions, biases, sums and ReLUs are left to
the kernel that computes the convolution or the matrix product before them, and everything stays in
one precision (PyTorch's autocast casts to float32 and back for each upsampling).
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional as F

from mdnet_ros.features.backends.folding import (
    Convolution,
    batch_norm_as_affine,
    through_blocks,
)
from mdnet_ros.features.network import EPSILON, Fold, MDNet, NetworkOutput, fuse, upsample

_C = TypeVar('_C', bound=Convolution)

#: Tensor cores take channels eight at a time; maps of other widths cuDNN pads for each convolution.
_CHANNELS_AT_ONCE = 8


@lru_cache
def _can_merge(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether cuDNN has convolutions with a bias, a sum and a ReLU merged in for a type."""
    if device.type != 'cuda':
        return False
    x = torch.randn(1, 8, 8, 8, device=device).to(dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    weight, bias, shape = x[..., :3, :3].expand(8, -1, -1, -1).contiguous(
        memory_format=torch.channels_last
    ), x[0, :, 0, 0].contiguous(), ((1, 1), (1, 1), (1, 1), 1)
    expected = F.conv2d(x, weight, bias, padding=1)
    try:
        plain = torch.cudnn_convolution_relu(x, weight, bias, *shape)
        summed = torch.cudnn_convolution_add_relu(x, weight, x, 1.0, bias, *shape)
    except RuntimeError:
        return False
    return all(
        torch.allclose(found.float(), wanted.float().relu(), rtol=0.02, atol=0.1)
        for found, wanted in ((plain, expected), (summed, expected + x))
    )


class _Convolution(Convolution):
    """A convolution of channels_last maps."""

    def __call__(
        self, x: torch.Tensor, *, relu: bool = False, onto: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Convolve, add ``onto`` (of the result's shape), and apply ReLU.

        Args:
            x: (B, C_in, H, W).
            relu: whether to apply ReLU.
            onto: added before the ReLU; may be overwritten. None: nothing.
        """
        if relu and self.groups == 1 and _can_merge(x.device, x.dtype):
            shape = (self.stride, self.padding, (1, 1), self.groups)
            if onto is None:
                return torch.cudnn_convolution_relu(x, self.weight, self.bias, *shape)
            return torch.cudnn_convolution_add_relu(x, self.weight, onto, 1.0, self.bias, *shape)
        return self.plain(x, relu, onto)


class _Product(Convolution):
    """A 1 x 1 convolution of channels_last maps as a product of matrices."""

    def __call__(
        self, x: torch.Tensor, *, relu: bool = False, onto: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Multiply, and add ``onto`` in place of the bias if given, see :class:`_Convolution`."""
        b, c, h, w = x.shape
        cells = x.permute(0, 2, 3, 1).reshape(-1, c)
        weight = self.weight[:, :, 0, 0].t()
        if onto is not None:
            table = onto.permute(0, 2, 3, 1).reshape(-1, len(self.bias))
            y = torch.addmm(table, cells, weight)
            y = y.relu_() if relu else y
        elif relu:
            y = torch._addmm_activation(self.bias, cells, weight)
        else:
            y = torch.addmm(self.bias, cells, weight)
        return y.reshape(b, h, w, -1).permute(0, 3, 1, 2)


def _rounded_up(network: MDNet) -> MDNet:
    """Return a fused network whose stages' widths, and the saliency head's, are multiples of eight.

    The added channels hold zeros throughout, so that the output stays the same.
    """
    def up(width: int) -> int:
        return -(-width // _CHANNELS_AT_ONCE) * _CHANNELS_AT_ONCE

    config = network.config
    c1, c2, c4, c8, c16 = map(up, config.channels)
    wide = fuse(MDNet(
        replace(config, channels=(c1, c2, c4, c8, c16), saliency=up(config.saliency))
    ).eval()).requires_grad_(False)
    values = network.state_dict()
    for name, tensor in wide.state_dict().items():
        tensor.zero_()[tuple(slice(length) for length in values[name].shape)] = values[name]
    return wide


def _with_bias_of(first: _C, later: Convolution) -> _C:
    """Return ``first`` with the bias of a layer that its upsampled output is added to.

    Upsampling is a weighted mean, which passes a constant on as it is.
    """
    return replace(first, bias=first.bias + later.bias)


class CudaNetwork:
    """Runs a network like :class:`MDNet`, without gradients.

    Args:
        network: the network in evaluation mode; it is not changed.
        dtype: type of the arithmetic and of the descriptor map.
        device: where to run: a CUDA device, or the CPU for tests.
    """

    @torch.no_grad()
    def __init__(self, network: MDNet, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype, self._device = dtype, device
        self._projection = tuple(p.detach().to(device) for p in network.projection())
        network = _rounded_up(fuse(copy.deepcopy(network)))
        self._fold = Fold()
        _, *stem = network.stem
        self._stem = [self._placed(_Convolution.of(layer)) for layer in stem]
        self._stages = [
            (
                self._placed(_Convolution.of(stage.widen)),
                self._placed(_Convolution.of(stage.refine)), self._placed_blocks(stage.blocks),
            )
            for stage in (network.stage4, network.stage8, network.stage16)
        ]
        self._blocks8 = self._placed_blocks(network.blocks8)
        lateral4, lateral8, lateral16, context, gate = (
            _Product.of(layer) for layer in (
                network.lateral4, network.lateral8, network.lateral16, network.context,
                network.gate,
            )
        )
        mix8 = _Convolution.of(network.mix8).plus_identity()
        self._lateral16 = self._placed(_with_bias_of(lateral16, lateral8))
        self._lateral8 = self._placed(lateral8)
        self._mix8 = self._placed(_with_bias_of(mix8, lateral4))
        self._lateral4 = self._placed(lateral4)
        self._mix4 = self._placed(_Convolution.of(network.mix4).plus_identity())
        self._scale, self._shift = (
            values.to(device, dtype)[:, None, None]
            for values in batch_norm_as_affine(network.descriptor_head[0])
        )
        self._context, self._gate = self._placed(context), self._placed(gate)
        self._detail = self._placed(_Convolution.of(network.detail))
        _, hidden, last = network.detector_head
        self._hidden = self._placed(_Convolution.of(hidden))
        self._last = self._placed(_Convolution.of(last))
        self._saliency: tuple[_Product, _Convolution, _Product] | None = None
        if network.saliency is not None:
            first, second, last = network.saliency
            self._saliency = (
                self._placed(_Product.of(first)), self._placed(_Convolution.of(second)),
                self._placed(_Product.of(last)),
            )

    def _placed(self, convolution: _C) -> _C:
        return convolution.cast(self._dtype, self._device)

    def _placed_blocks(self, blocks: nn.Sequential) -> list[tuple[_Convolution, _Product]]:
        return [
            (self._placed(_Convolution.of(look)), self._placed(_Product.of(add)))
            for look, add in (block.children() for block in blocks)
        ]

    def _standardise(self, image: torch.Tensor) -> torch.Tensor:
        """Take exposure and contrast out of images, in fewer kernels than ``standardise``."""
        variance, mean = torch.var_mean(image, (2, 3), correction=0, keepdim=True)
        return ((image - mean) * (variance + EPSILON).rsqrt()).to(self._dtype)

    def _logits(self, seen: torch.Tensor, wide: torch.Tensor) -> torch.Tensor:
        """Add the detectors' logits and the saliency head's, in float32 and in planes."""
        logits = self._last(seen)
        if self._saliency is None:
            return logits.contiguous().float()
        first, second, last = self._saliency
        salient = last(second(first(wide, relu=True), relu=True))
        return upsample(F.pixel_shuffle(salient.contiguous().float(), 2)).add_(logits)

    def __call__(self, image: torch.Tensor) -> NetworkOutput:
        """Run the network on (B, 1, H, W) float32 images, see :meth:`MDNet.forward`."""
        x1 = self._standardise(image)
        x2 = self._fold(x1).contiguous(memory_format=torch.channels_last)
        for layer in self._stem:
            x2 = layer(x2, relu=True)
        maps = [x2]
        for widen, refine, blocks in self._stages:
            x = widen(F.avg_pool2d(maps[-1], 2), relu=True)
            maps.append(through_blocks(blocks, refine(x, relu=True).add_(x)))
        _, x4, x8, x16 = maps
        pyramid = self._lateral8(x8, onto=upsample(self._lateral16(x16)))
        pyramid = through_blocks(self._blocks8, pyramid)
        pyramid = self._lateral4(x4, onto=upsample(self._mix8(pyramid)))
        pyramid = self._mix4(pyramid)
        wide = pyramid.relu()
        gate = self._gate(upsample(self._context(wide)).add_(x2).relu_())
        seen = self._hidden(self._detail(x1, relu=True, onto=upsample(gate)), relu=True)
        descriptors = torch.addcmul(self._shift, pyramid, self._scale).relu_()
        return NetworkOutput(self._logits(seen, wide), descriptors, *self._projection)

"""Convolutions with the operations around them folded into their weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from torch import nn
from torch.nn import functional as F

_T = TypeVar('_T', bound='Convolution')


@dataclass(frozen=True)
class Convolution:
    """A convolution's weights, to be rewritten before they are used.

    Attributes:
        weight: (C_out, C_in / groups, rows, columns).
        bias: (C_out,).
        padding: rows and columns of zeros on each side.
        stride: stride in rows and columns.
        groups: number of groups of channels.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    padding: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    groups: int = 1

    @classmethod
    def of(cls: type[_T], layer: nn.Module) -> _T:
        """Return a layer's convolution, or the first of a sequence whose norm was fused into it."""
        layer = layer[0] if isinstance(layer, nn.Sequential) else layer
        assert isinstance(layer, nn.Conv2d)
        rows, columns = layer.kernel_size
        weight = layer.weight
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias
        return cls(weight, bias, (rows // 2, columns // 2), groups=layer.groups)

    def plain(
        self, x: torch.Tensor, relu: bool = False, onto: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Convolve by separate operations, add ``onto``, which may be overwritten; apply ReLU."""
        y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, groups=self.groups)
        y = y if onto is None else onto.add_(y)
        return y.relu_() if relu else y

    def plus_identity(self: _T) -> _T:
        """Return a depthwise convolution that also adds its input to its output."""
        weight = self.weight.clone()
        weight[:, :, weight.shape[2] // 2, weight.shape[3] // 2] += 1.0
        return replace(self, weight=weight)

    def then_batch_norm(self: _T, norm: nn.Module) -> _T:
        """Return a convolution with the following batch norm, in evaluation mode, folded in."""
        scale, shift = batch_norm_as_affine(norm)
        return replace(
            self, weight=self.weight * scale[:, None, None, None], bias=self.bias * scale + shift
        )

    def cast(self: _T, dtype: torch.dtype, device: torch.device | None = None) -> _T:
        """Cast the weights, in the memory format channels_last."""
        weight = self.weight.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return replace(self, weight=weight, bias=self.bias.to(device, dtype))


class Merging(Protocol):
    """A convolution that merges the sum and the ReLU after it, as each backend can."""

    def __call__(
        self, x: torch.Tensor, *, relu: bool = False, onto: torch.Tensor | None = None
    ) -> torch.Tensor: ...


def through_blocks(blocks: Iterable[tuple[Merging, Merging]], x: torch.Tensor) -> torch.Tensor:
    """Take a map through residual blocks.

    Args:
        blocks: the two convolutions of each block.
        x: (B, C, H, W); may be overwritten.

    Returns:
        (B, C, H, W).
    """
    for look, add in blocks:
        x = add(look(x, relu=True), onto=x)
    return x


def batch_norm_as_affine(norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the (C,) scale and (C,) shift of a batch norm in evaluation mode."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale

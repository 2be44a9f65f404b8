"""The network rewritten for CPUs: it computes the same from its weights in fewer, wider steps.

CPUs are fastest with sixteen channels at a time and few passes over a map. Activations, sums and
norms are therefore merged into the convolutions before them, and at full resolution, where there
are few channels, one step of a convolution computes several neighbouring pixels.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional as F

from mdnet_ros.features.backends.folding import Convolution, through_blocks
from mdnet_ros.features.network import MDNet, NetworkOutput, fuse, standardise

#: Number of output channels that a convolution computes at once.
_LANES = 16


@lru_cache
def _can_merge(dtype: torch.dtype) -> bool:
    """Return whether this build of torch and this CPU have merged convolutions of a type."""
    if not torch.backends.mkldnn.is_available():
        return False
    probes = {
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }
    if dtype not in probes:
        return True
    # With the Arm Compute Library oneDNN merges in half precision by its slow reference code.
    return bool(probes[dtype]()) and not torch.ops.mkldnn._is_mkldnn_acl_supported()


@dataclass(frozen=True)
class _Convolution(Convolution):
    """A convolution of channels_last maps, with the following operations merged in.

    Attributes:
        pixels: how many neighbouring pixels each step computes; their channels follow each other.
    """

    pixels: int = 1

    def __call__(
        self, x: torch.Tensor, *, relu: bool = False, onto: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Convolve, then add ``onto`` (which is overwritten), then apply ReLU.

        Args:
            x: (B, C_in, H, W).
            relu: whether to apply ReLU.
            onto: added to the result, in the layout of the convolution before its pixels are
                separated; None: nothing.
        """
        y = self._merged(x, relu, onto) if _can_merge(x.dtype) else self.plain(x, relu, onto)
        if self.pixels == 1:
            return y
        # The channels of neighbouring pixels are in the order of the pixels already: no copy.
        rows = y.permute(0, 2, 3, 1).unflatten(3, (self.pixels, -1)).flatten(2, 3)
        return rows.permute(0, 3, 1, 2)

    def _merged(self, x: torch.Tensor, relu: bool, onto: torch.Tensor | None) -> torch.Tensor:
        shape = (self.padding, self.stride, (1, 1), self.groups)
        # What torch.compile makes of such sequences; neither has a public name yet.
        if onto is None:
            activation = 'relu' if relu else 'none'
            return torch.ops.mkldnn._convolution_pointwise(
                x, self.weight, self.bias, *shape, activation, [], ''
            )
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            onto, x, self.weight, self.bias, *shape, 'add', 1.0, 'relu' if relu else None, [], None
        )

    def side_by_side(self, pixels: int) -> _Convolution:
        """Return the same convolution with several neighbouring pixels in x computed per step."""
        c_out, c_in, rows, columns = self.weight.shape
        weight = self.weight.new_zeros(pixels, c_out, c_in, rows, columns + pixels - 1)
        for i in range(pixels):
            weight[i, ..., i : i + columns] = self.weight
        return replace(
            self, weight=weight.flatten(0, 1), bias=self.bias.repeat(pixels), stride=(1, pixels),
            pixels=pixels,
        )  # fmt: skip


def _fold_pixel_unshuffle(first: _Convolution) -> _Convolution:
    """Return a convolution with the 2 x 2 pixel unshuffle before it folded into it."""
    rows, columns = first.padding
    return replace(
        first, weight=F.pixel_shuffle(first.weight, 2), padding=(2 * rows, 2 * columns),
        stride=(2, 2),
    )


def _interpolation(channels: int) -> _Convolution:
    """Return a convolution that doubles maps in x, whose outermost columns were repeated once."""
    weight = torch.zeros(2, channels, channels, 1, 3)
    each = torch.arange(channels)
    for pixel, taps in enumerate(((0.25, 0.75, 0.0), (0.0, 0.75, 0.25))):
        weight[pixel, each, each, 0] = torch.tensor(taps)
    return _Convolution(weight.flatten(0, 1), torch.zeros(2 * channels), (0, 0))


def _unfolding(last: _Convolution, sets: int) -> _Convolution:
    """Reorder the channels of the saliency head's last layer: by pixels instead of by sets."""
    order = torch.arange(4 * sets).reshape(sets, 4).T.reshape(-1)
    return replace(last, weight=last.weight[order], bias=last.bias[order])


def _interpolation_of_two(sets: int) -> _Convolution:
    """Make a convolution that doubles maps in x, four pixels side by side for each cell of two.

    The cells at either end are repeated, so that the column beyond the outermost one equals it.
    """
    weight = torch.zeros(4, sets, 2, sets, 1, 3)
    each = torch.arange(sets)
    # Pixel, column of the cell, cell (before, own, after), share.
    for pixel, column, cell, share in (
        (0, 0, 1, 0.75), (0, 1, 0, 0.25), (1, 0, 1, 0.75), (1, 1, 1, 0.25),
        (2, 0, 1, 0.25), (2, 1, 1, 0.75), (3, 1, 1, 0.75), (3, 0, 2, 0.25),
    ):
        weight[pixel, each, column, each, 0, cell] = share
    return _Convolution(
        weight.reshape(4 * sets, 2 * sets, 1, 3), torch.zeros(4 * sets), (0, 0), pixels=4
    )


def _double_rows_of_two(x: torch.Tensor, sets: int) -> torch.Tensor:
    """Unfold (B, 4·K, H, W) cells of two by two pixels and double them in y: (B, 2·K, 4·H, W + 2).

    One cell more at either end holds the outermost column once more, in both its columns.
    """
    b, _, h, w = x.shape
    unfolded = x.permute(0, 2, 3, 1).unflatten(3, (2, 2 * sets)).transpose(2, 3)
    rows = x.new_empty(b, 4 * h, w + 2, 2 * sets)
    _double(unfolded.reshape(b, 2 * h, w, 2 * sets), rows[:, :, 1:-1], 1)
    columns = rows.unflatten(3, (2, sets))
    columns[:, :, 0] = columns[:, :, 1, :1]
    columns[:, :, -1] = columns[:, :, -2, 1:]
    return rows.permute(0, 3, 1, 2)


def _pixels_per_step(channels: int) -> int:
    """Return how many pixels fill the lanes: a power of two, so that it divides the width."""
    return 1 << max(0, (_LANES // channels).bit_length() - 1)


def _double(x: torch.Tensor, out: torch.Tensor, axis: int) -> None:
    """Interpolate along one axis: each cell becomes two, a quarter of a cell to either side.

    Args:
        x: length n along the axis.
        out: length 2·n along the axis; overwritten.
        axis: the axis.
    """
    last = x.shape[axis] - 1
    before, after = out.unflatten(axis, (last + 1, 2)).unbind(axis + 1)
    left, right = x.narrow(axis, 0, last), x.narrow(axis, 1, last)
    torch.lerp(right, left, 0.25, out=before.narrow(axis, 1, last))
    torch.lerp(left, right, 0.25, out=after.narrow(axis, 0, last))
    before.narrow(axis, 0, 1).copy_(x.narrow(axis, 0, 1))
    after.narrow(axis, last, 1).copy_(x.narrow(axis, last, 1))


def _upsample(x: torch.Tensor) -> torch.Tensor:
    """Upsample (B, C, H, W) to (B, C, 2H, 2W) bilinearly, with cell centres aligned.

    PyTorch's own function is slower on CPUs, by a factor of two to four in half precision.
    """
    b, c, h, w = x.shape
    wide = x.new_empty(b, h, 2 * w, c)
    _double(x.permute(0, 2, 3, 1), wide, 2)
    doubled = x.new_empty(b, 2 * h, 2 * w, c)
    _double(wide, doubled, 1)
    return doubled.permute(0, 3, 1, 2)


def _double_rows(x: torch.Tensor) -> torch.Tensor:
    """Upsample (B, C, H, W) to (B, C, 2H, W + 2) in y, and repeat the outermost columns."""
    b, c, h, w = x.shape
    rows = x.new_empty(b, 2 * h, w + 2, c)
    _double(x.permute(0, 2, 3, 1), rows[:, :, 1:-1], 1)
    rows[:, :, 0] = rows[:, :, 1]
    rows[:, :, -1] = rows[:, :, -2]
    return rows.permute(0, 3, 1, 2)


class CpuNetwork:
    """Runs a network like :class:`MDNet`, without gradients.

    Args:
        network: the network in evaluation mode, on the CPU; it is not changed.
        dtype: type of the arithmetic and of the descriptor map.
    """

    @torch.no_grad()
    def __init__(self, network: MDNet, dtype: torch.dtype) -> None:
        config = network.config
        self._dtype = dtype
        self._projection = tuple(p.detach() for p in network.projection())
        network = fuse(copy.deepcopy(network))
        _, widen, refine = network.stem
        self._stem = (
            self._cast(_fold_pixel_unshuffle(_Convolution.of(widen))),
            self._cast(_Convolution.of(refine)),
        )
        self._stages = [
            (
                self._cast(_Convolution.of(stage.widen)), self._cast(_Convolution.of(stage.refine)),
                self._cast_blocks(stage.blocks),
            )
            for stage in (network.stage4, network.stage8, network.stage16)
        ]
        self._blocks8 = self._cast_blocks(network.blocks8)
        self._lateral4 = self._cast(_Convolution.of(network.lateral4))
        self._lateral8 = self._cast(_Convolution.of(network.lateral8))
        self._lateral16 = self._cast(_Convolution.of(network.lateral16))
        self._mix8 = self._cast(_Convolution.of(network.mix8).plus_identity())
        mix4 = _Convolution.of(network.mix4).plus_identity()
        self._mix4 = self._cast(mix4)
        self._descriptors = self._cast(mix4.then_batch_norm(network.descriptor_head[0]))
        self._context = self._cast(_Convolution.of(network.context))
        self._gate = self._cast(_Convolution.of(network.gate))
        self._interpolation = self._cast(_interpolation(config.channels[0]))
        self._detail = self._cast(_Convolution.of(network.detail).side_by_side(2))
        _, hidden, last = network.detector_head
        pixels = _pixels_per_step(config.channels[0])
        self._hidden = self._cast(_Convolution.of(hidden).side_by_side(pixels))
        pixels = _pixels_per_step(config.num_sets)
        self._last = self._cast(_Convolution.of(last).side_by_side(pixels))
        self._sets = config.num_sets
        self._saliency: tuple[_Convolution, ...] = ()
        if network.saliency is not None:
            first, second, unfolded = (_Convolution.of(layer) for layer in network.saliency)
            self._saliency = tuple(self._cast(layer) for layer in (
                first, second, _unfolding(unfolded, self._sets), _interpolation_of_two(self._sets)
            ))

    def _cast(self, convolution: _Convolution) -> _Convolution:
        return convolution.cast(self._dtype)

    def _cast_blocks(self, blocks: nn.Sequential) -> list[tuple[_Convolution, _Convolution]]:
        return [
            (self._cast(_Convolution.of(look)), self._cast(_Convolution.of(add)))
            for look, add in (block.children() for block in blocks)
        ]

    def _salient(self, wide: torch.Tensor) -> torch.Tensor | None:
        """Compute the saliency head's logits, laid out like those of the detector's last layer."""
        if not self._saliency:
            return None
        first, second, unfolding, interpolation = self._saliency
        salient = unfolding(second(first(wide, relu=True), relu=True))
        whole = interpolation(_double_rows_of_two(salient, self._sets))
        pixels = self._last.pixels
        return whole.permute(0, 2, 3, 1).unflatten(2, (-1, pixels)).flatten(3).permute(0, 3, 1, 2)

    def __call__(self, image: torch.Tensor) -> NetworkOutput:
        """Run the network on (B, 1, H, W) float32 images, see :meth:`MDNet.forward`."""
        x1 = standardise(image).to(self._dtype)
        x2 = self._stem[1](self._stem[0](x1, relu=True), relu=True)
        maps = [x2]
        for widen, refine, blocks in self._stages:
            x = widen(F.avg_pool2d(maps[-1], 2), relu=True)
            maps.append(through_blocks(blocks, refine(x, relu=True).add_(x)))
        _, x4, x8, x16 = maps
        pyramid = self._lateral8(x8, onto=_upsample(self._lateral16(x16)))
        pyramid = through_blocks(self._blocks8, pyramid)
        pyramid = self._lateral4(x4, onto=_upsample(self._mix8(pyramid)))
        wide = self._mix4(pyramid, relu=True)
        context = self._context(wide)
        gate = self._gate(_upsample(context).add_(x2).relu_())
        seen = self._detail(x1, onto=self._interpolation(_double_rows(gate)), relu=True)
        logits = self._last(self._hidden(seen, relu=True), onto=self._salient(wide))
        return NetworkOutput(logits, self._descriptors(pyramid, relu=True), *self._projection)

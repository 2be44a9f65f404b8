"""The MD-Net network: a gray image in, K detection heatmaps and a descriptor map out.

MD-Net (Santellani et al., ICPR 2022) gives an image several complementary keypoint sets. The
network here is our own: the backbone runs at half resolution and below (the image is folded two by
two into channels first) and takes in context by a pyramid down to 1/16. Only the detectors work at
full resolution, with few channels: there the image moved by one pixel gives the heatmap moved by
one pixel, which no filter on folded pixels can promise. Every down- and upsampling keeps cell
centres aligned, so that a feature at cell (i, j) of a map of stride s describes pixel
(s·i + (s-1)/2, s·j + (s-1)/2).
"""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

#: Height and width of the network's input must be multiples of this.
SIZE_MULTIPLE = 16
#: The smallest image side, in pixels, the network takes.
MIN_SIDE = 32
#: Added to a variance, which may be zero.
EPSILON = 1e-5


@dataclass(frozen=True)
class MDNetConfig:
    """What shapes a network; stored in the header of a weights file.

    Attributes:
        num_sets: K, the number of detectors, 1 to 8.
        dim: D, the descriptor length.
        channels: width at strides 1, 2, 4, 8 and 16.
        saliency: width of the saliency head, which adds to the heatmaps what a deep and wide view
            at stride 4 says; 0 means that there is none, as in files written before it existed.
        blocks: how many residual blocks follow the stages at strides 8 and 16, and their sum at
            stride 8; 0 to 16 each; none in files written before they existed.
    """

    num_sets: int = 2
    dim: int = 128
    channels: tuple[int, int, int, int, int] = (16, 32, 48, 96, 128)
    saliency: int = 0
    blocks: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        if not 1 <= self.num_sets <= 8:
            raise ValueError(f'num_sets: expected 1 to 8, got {self.num_sets}')
        if not 8 <= self.dim <= 512:
            raise ValueError(f'dim: expected 8 to 512, got {self.dim}')
        if len(self.channels) != 5 or not all(4 <= c <= 1024 for c in self.channels):
            raise ValueError(f'channels: expected five of 4 to 1024, got {self.channels}')
        if not 0 <= self.saliency <= 1024:
            raise ValueError(f'saliency: expected 0 to 1024, got {self.saliency}')
        if len(self.blocks) != 3 or not all(0 <= n <= 16 for n in self.blocks):
            raise ValueError(f'blocks: expected three of 0 to 16, got {self.blocks}')

    @staticmethod
    def from_dict(values: dict[str, Any]) -> MDNetConfig:
        """Rebuild from what :meth:`to_dict` gave; raises ValueError where it does not fit."""
        try:
            return MDNetConfig(
                num_sets=int(values['num_sets']),
                dim=int(values['dim']),
                channels=tuple(int(c) for c in values['channels']),  # type: ignore[arg-type]
                saliency=int(values.get('saliency', 0)),
                blocks=tuple(int(n) for n in values.get('blocks', (0, 0, 0))),  # type: ignore[arg-type]
            )
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f'network configuration: {error!r} in {values!r}') from None

    def grown(self, wanted: MDNetConfig) -> MDNetConfig:
        """Add the saliency head, where there is none, and the blocks of another configuration.

        Where that one has other widths, this one is returned as it is: it is another network.
        """
        if (self.dim, self.channels) != (wanted.dim, wanted.channels):
            return self
        at8, at16, on_sum = (max(n) for n in zip(self.blocks, wanted.blocks, strict=True))
        return replace(self, saliency=self.saliency or wanted.saliency, blocks=(at8, at16, on_sum))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


#: The two sizes that ship.
CONFIGS = {
    'md2net': MDNetConfig(saliency=32, blocks=(1, 2, 1)),
    'md2net-light': MDNetConfig(dim=64, channels=(8, 16, 24, 44, 76), saliency=12),
}


class NetworkOutput(NamedTuple):
    """Dense output for a batch of B images of H x W.

    Attributes:
        logits: (B, K, H, W); the heatmaps are ``logits.sigmoid()``.
        descriptors: (B, C, H/4, W/4): to be sampled, then projected, then normalised.
        weight: (D, C) of the projection.
        bias: (D,) of the projection.
    """

    logits: torch.Tensor
    descriptors: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor


def standardise(image: torch.Tensor) -> torch.Tensor:
    """Take exposure and contrast out of (B, 1, H, W) images: mean 0, variance 1 for each.

    As ``nn.InstanceNorm2d(1)``, which takes five times as long on CPUs.
    """
    centred = image - image.mean((2, 3), keepdim=True)
    return centred * (centred.square().mean((2, 3), keepdim=True) + EPSILON).rsqrt()


class Fold(nn.Module):
    """Two by two pixels to four channels: ``PixelUnshuffle(2)``, on CPUs in a third of its time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
        return x.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)


class _ConvNorm(nn.Sequential):
    """Convolution, 3x3 if not said otherwise, and batch norm."""

    def __init__(self, c_in: int, c_out: int, side: int = 3) -> None:
        super().__init__(
            nn.Conv2d(c_in, c_out, side, padding=side // 2, bias=False),
            nn.BatchNorm2d(c_out),
        )

    def fuse(self) -> None:
        """Fold the batch norm into the convolution, in place; in evaluation mode only."""
        convolution, norm = self[0], self[1]
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            self[0] = fuse_conv_bn_eval(convolution, norm)
            self[1] = nn.Identity()


class _ConvBlock(_ConvNorm):
    """Convolution, batch norm, ReLU."""

    def __init__(self, c_in: int, c_out: int, side: int = 3) -> None:
        super().__init__(c_in, c_out, side)
        self.append(nn.ReLU(inplace=True))


def _opposites(convolution: nn.Conv2d) -> nn.Conv2d:
    """Make every second filter the negative of the one before.

    Detectors that begin like this rise where their partner falls. Random ones begin much alike,
    and then have to be parted while they learn (docs/training.md has the numbers).
    """
    with torch.no_grad():
        pairs = len(convolution.weight) // 2 * 2
        convolution.weight[1::2] = -convolution.weight[:pairs:2]
    return convolution


class ZeroConv(nn.Conv2d):
    """A 1x1 convolution that begins at zero: what it is added to stays as it is until it learns.

    The "zero convolution" of ControlNet (Zhang et al., ICCV 2023).

    Args:
        c_in, c_out: channels of the map and of the result.
        bias: whether it adds a bias.
    """

    def __init__(self, c_in: int, c_out: int, bias: bool = True) -> None:
        super().__init__(c_in, c_out, 1, bias=bias)

    def reset_parameters(self) -> None:
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


class ResidualBlock(nn.Module):
    """Add to a map what a 3x3 and a 1x1 convolution make of it; at first, nothing.

    Args:
        channels: channels of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.look = _ConvBlock(channels, channels)
        self.add = ZeroConv(channels, channels, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to the same shape."""
        return x + self.add(self.look(x))


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))


class _Stage(nn.Module):
    """Halve the resolution, widen, and refine with residual convolutions."""

    def __init__(self, c_in: int, c_out: int, blocks: int = 0) -> None:
        super().__init__()
        self.widen = _ConvBlock(c_in, c_out)
        self.refine = _ConvBlock(c_out, c_out)
        self.blocks = _blocks(c_out, blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Average pooling keeps cell centres aligned (a strided 3x3 would shift by half a cell).
        x = self.widen(F.avg_pool2d(x, 2))
        return self.blocks(x + self.refine(x))


class SaliencyHead(nn.Sequential):
    """Heatmap logits at half resolution from the pyramid at stride 4, four pixels to a cell.

    A corner of 7 pixels is another corner at 14: which structure deserves a keypoint is for a deep
    and wide view to say, where exactly it lies for the detectors at full resolution. The head's
    last layer begins at zero, so that it changes nothing before it has learned.

    Args:
        c_in: channels of the pyramid.
        width: width of the hidden layers.
        num_sets: K.
    """

    def __init__(self, c_in: int, width: int, num_sets: int) -> None:
        super().__init__(
            _ConvBlock(c_in, width, 1), _ConvBlock(width, width), ZeroConv(width, 4 * num_sets),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H/4, W/4) to (B, K, H/2, W/2)."""
        return F.pixel_shuffle(super().forward(x), 2)


def upsample(x: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) to (B, C, 2H, 2W), bilinear with cell centres aligned."""
    return F.interpolate(x, scale_factor=2.0, mode='bilinear', align_corners=False)


class MDNet(nn.Module):
    """K detectors and one descriptor map over a shared backbone."""

    def __init__(self, config: MDNetConfig) -> None:
        super().__init__()
        self.config = config
        c1, c2, c4, c8, c16 = config.channels
        self.stem = nn.Sequential(Fold(), _ConvBlock(4, c2), _ConvBlock(c2, c2))
        self.stage4 = _Stage(c2, c4)
        at8, at16, on_sum = config.blocks
        self.stage8 = _Stage(c4, c8, at8)
        self.stage16 = _Stage(c8, c16, at16)
        width = config.dim
        self.lateral4 = nn.Conv2d(c4, width, 1)
        self.lateral8 = nn.Conv2d(c8, width, 1)
        self.lateral16 = nn.Conv2d(c16, width, 1)
        self.blocks8 = _blocks(width, on_sum)
        self.mix8 = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.mix4 = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.descriptor_head = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 1),
        )
        self.context = nn.Conv2d(width, c2, 1)
        self.detail = _ConvNorm(1, c1)
        self.gate = nn.Conv2d(c2, c1, 1)
        self.detector_head = nn.Sequential(
            nn.ReLU(inplace=True),
            _ConvBlock(c1, c1),
            _opposites(nn.Conv2d(c1, config.num_sets, 3, padding=1)),
        )
        self.saliency = (
            SaliencyHead(width, config.saliency, config.num_sets) if config.saliency else None
        )

    def forward(self, image: torch.Tensor) -> NetworkOutput:
        """Run the network.

        Args:
            image: (B, 1, H, W) gray in [0, 1]; H and W multiples of ``SIZE_MULTIPLE``.

        Returns:
            The heatmap logits and the descriptor map.
        """
        x1 = standardise(image)
        x2 = self.stem(x1)
        x4 = self.stage4(x2)
        x8 = self.stage8(x4)
        x16 = self.stage16(x8)
        pyramid = self.blocks8(self.lateral8(x8) + upsample(self.lateral16(x16)))
        pyramid = self.lateral4(x4) + upsample(pyramid + self.mix8(pyramid))
        pyramid = pyramid + self.mix4(pyramid)
        seen = F.relu(pyramid)
        gate = self.gate(F.relu(x2 + upsample(self.context(seen))))
        logits = self.detector_head(self.detail(x1) + upsample(gate))
        if self.saliency is not None:
            logits = logits + upsample(self.saliency(seen))
        return NetworkOutput(logits, self.descriptor_head[:2](pyramid), *self.projection())

    def projection(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(D, C) and (D,): the last layer of the descriptors.

        It is linear and sampling is a weighted mean, so it gives the same after sampling as before,
        at a tenth of the cost: a couple of thousand keypoints instead of all cells.
        """
        last = self.descriptor_head[2]
        return last.weight[:, :, 0, 0], last.bias  # type: ignore[index,return-value]


def grow(network: MDNet, wanted: MDNetConfig, hidden_from: MDNet | None = None) -> MDNet:
    """Return a network with the saliency head and the residual blocks that it lacks.

    The last layers of the new parts begin at zero, so that the output stays the same until they
    learn.

    Args:
        network: its weights are copied.
        wanted: see :meth:`MDNetConfig.grown`.
        hidden_from: gives the new parts their other layers; None: these begin at random.
    """
    grown = MDNet(network.config.grown(wanted))
    if hidden_from is not None:
        last = [name for name, layer in grown.named_modules() if isinstance(layer, ZeroConv)]
        grown.load_state_dict({
            name: value for name, value in hidden_from.state_dict().items()
            if name.rpartition('.')[0] not in last
        }, strict=False)
    grown.load_state_dict(network.state_dict(), strict=False)
    return grown


def fuse(network: MDNet) -> MDNet:
    """Make a network in evaluation mode faster at the same output: fold its batch norms.

    The state dict changes with it: save weights before, not after.

    Args:
        network: changed in place.

    Returns:
        The same network.
    """
    for module in network.modules():
        if isinstance(module, _ConvNorm):
            module.fuse()
    return network


def count_parameters(network: nn.Module) -> int:
    """How many trained numbers the network holds."""
    return sum(p.numel() for p in network.parameters())


def count_flops(network: MDNet, width: int, height: int) -> int:
    """Floating-point operations of one forward pass (a multiply-add counts as two).

    Without the projection of the descriptors, which depends on the number of keypoints.
    """
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    device = next(network.parameters()).device
    frozen = copy.deepcopy(network).requires_grad_(False)  # the counter looks for gradients
    with counter:
        frozen(torch.zeros(1, 1, height, width, device=device))
    return int(counter.get_total_flops())

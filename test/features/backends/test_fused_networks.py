"""The networks rewritten for CPUs and for CUDA against the plain one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mdnet_ros.features.backends import fused_cpu_network
from mdnet_ros.features.backends.fused_cpu_network import CpuNetwork
from mdnet_ros.features.backends.fused_cuda_network import CudaNetwork
from mdnet_ros.features.network import (
    CONFIGS,
    MDNet,
    MDNetConfig,
    NetworkOutput,
    ZeroConv,
)
from mdnet_ros.features.weights import load_weights

#: The network for CUDA runs on the CPU too, though nobody would use it there.
DEVICE = torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def _for_cpu(network: MDNet, image: torch.Tensor, dtype: torch.dtype) -> NetworkOutput:
    return CpuNetwork(network, dtype)(image)


def _for_cuda(network: MDNet, image: torch.Tensor, dtype: torch.dtype) -> NetworkOutput:
    rewritten = CudaNetwork(network, dtype, DEVICE)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        output = rewritten(image.to(DEVICE, memory_format=torch.channels_last))
    return NetworkOutput(*(values.cpu() for values in output))


Rewritten = Callable[[MDNet, torch.Tensor, torch.dtype], NetworkOutput]


@pytest.fixture(params=[_for_cpu, _for_cuda])
def rewritten(request: pytest.FixtureRequest) -> Rewritten:
    """Run a rewritten network: (network, images, type) to its output."""
    return request.param


def _photographs() -> torch.Tensor:
    from skimage import data

    pair = (data.camera()[:240, :320], data.camera()[200:440, 100:420])
    return torch.stack([torch.from_numpy(p.copy()) for p in pair])[:, None].float() / 255


def _untrained(config: MDNetConfig) -> MDNet:
    """With norms that are not the identity."""
    torch.manual_seed(0)
    network = MDNet(config)
    with torch.no_grad():
        network.train()(torch.rand(4, 1, 64, 64))
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * (0.1 if 'weight' in name else 0.3))
        for layer in network.modules():
            if isinstance(layer, ZeroConv):
                layer.weight.normal_(std=0.3)
    return network.eval().requires_grad_(False)


def _apart(a: NetworkOutput, b: NetworkOutput) -> float:
    """The greatest difference, in units of the greatest value."""
    return max(
        ((x.float() - y.float()).abs().max() / x.float().abs().max()).item()
        for x, y in zip(a[:2], b[:2], strict=True)
    )


@pytest.mark.parametrize(
    'channels',
    [(8, 16, 24, 44, 96), (16, 32, 16, 16, 16), (4, 8, 8, 8, 8), (5, 6, 7, 8, 9), (24, 8, 8, 8, 8)],
)
@pytest.mark.parametrize('sets', [1, 2, 3, 5, 8])
@torch.inference_mode()
def test_gives_the_same(
    rewritten: Rewritten, channels: tuple[int, int, int, int, int], sets: int
) -> None:
    network = _untrained(MDNetConfig(num_sets=sets, dim=16, channels=channels))
    image = torch.rand(2, 1, 48, 80)
    expected, found = network(image), rewritten(network, image, torch.float32)
    assert found.logits.shape == expected.logits.shape
    assert _apart(expected, found) < 1e-5
    assert torch.equal(expected.weight, found.weight)


@pytest.mark.parametrize('sets', [1, 2, 3])
@pytest.mark.parametrize('saliency', [1, 12, 32])
@torch.inference_mode()
def test_gives_the_same_with_a_saliency_head(
    rewritten: Rewritten, saliency: int, sets: int
) -> None:
    config = MDNetConfig(num_sets=sets, dim=16, channels=(8, 16, 8, 8, 8), saliency=saliency)
    network = _untrained(config)
    image = torch.rand(2, 1, 48, 80)
    expected = network(image)
    assert _apart(expected, rewritten(network, image, torch.float32)) < 1e-5
    network.saliency = None  # and the head has a say
    assert _apart(expected, network(image)) > 0.01


@pytest.mark.parametrize('blocks', [(1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 1, 3)])
@torch.inference_mode()
def test_gives_the_same_with_more_blocks(
    rewritten: Rewritten, blocks: tuple[int, int, int]
) -> None:
    network = _untrained(MDNetConfig(dim=16, channels=(8, 16, 8, 12, 20), blocks=blocks))
    image = torch.rand(2, 1, 48, 80)
    expected = network(image)
    assert _apart(expected, rewritten(network, image, torch.float32)) < 1e-5
    for layer in network.modules():
        if isinstance(layer, ZeroConv):
            layer.weight.zero_()
    assert _apart(expected, network(image)) > 0.01  # and the blocks have a say


@pytest.mark.parametrize('size', [(32, 32), (16, 16), (16, 48)])
@torch.inference_mode()
def test_gives_the_same_up_to_the_edges_of_the_smallest_maps(
    rewritten: Rewritten, size: tuple[int, int]
) -> None:
    network = _untrained(MDNetConfig(dim=16, channels=(8, 16, 8, 8, 8)))
    image = torch.rand(1, 1, *size)
    assert _apart(network(image), rewritten(network, image, torch.float32)) < 1e-5


@pytest.mark.parametrize('name', sorted(CONFIGS))
@torch.inference_mode()
def test_shipped_weights_give_the_same(rewritten: Rewritten, name: str) -> None:
    network, _ = load_weights(name)
    image = _photographs()
    expected = network(image)
    assert _apart(expected, rewritten(network, image, torch.float32)) < 1e-5
    rounded = rewritten(network, image, torch.bfloat16)
    assert rounded.descriptors.dtype == torch.bfloat16
    # No farther off than PyTorch's own arithmetic of that precision.
    with torch.autocast('cpu', torch.bfloat16):
        usual = network(image.contiguous(memory_format=torch.channels_last))
    assert _apart(expected, rounded) < 1.5 * _apart(expected, usual)


@torch.inference_mode()
def test_needs_no_merged_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    network, _ = load_weights('md2net-light')
    image = _photographs()
    monkeypatch.setattr(fused_cpu_network, '_can_merge', lambda dtype: False)
    assert _apart(network(image), CpuNetwork(network, torch.float32)(image)) < 1e-5


@torch.inference_mode()
def test_leaves_the_network_and_the_image_as_they_are(rewritten: Rewritten) -> None:
    network, _ = load_weights('md2net-light')
    image = _photographs()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    pixels = image.clone()
    first = rewritten(network, image, torch.float32)
    assert _apart(first, rewritten(network, image, torch.float32)) == 0.0
    assert torch.equal(image, pixels)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())

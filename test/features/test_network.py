"""The network's shapes, size and pixel alignment."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mdnet_ros.features.network import (
    CONFIGS,
    SIZE_MULTIPLE,
    Fold,
    MDNet,
    MDNetConfig,
    ZeroConv,
    count_flops,
    count_parameters,
    fuse,
    grow,
    standardise,
)
from mdnet_ros.features.weights import load_weights


@pytest.mark.parametrize('num_sets', range(1, 9))
def test_output_shapes(num_sets: int, make) -> None:
    config = MDNetConfig(num_sets=num_sets, dim=16, channels=(4, 4, 4, 8, 8))
    with torch.inference_mode():
        output = make.network(config)(torch.rand(2, 1, 48, 80))
    assert output.logits.shape == (2, num_sets, 48, 80)
    assert output.descriptors.shape == (2, 16, 12, 20)
    assert torch.isfinite(output.logits).all()
    assert torch.isfinite(output.descriptors).all()


@pytest.mark.parametrize('num_sets', [1, 2, 3, 4])
def test_untrained_detectors_come_in_opposite_pairs(num_sets: int, make) -> None:
    config = MDNetConfig(num_sets=num_sets, dim=16, channels=(4, 4, 4, 8, 8))
    with torch.inference_mode():
        logits = make.network(config)(torch.rand(1, 1, 64, 64)).logits[0]
    varying = logits - logits.mean((1, 2), keepdim=True)
    assert varying.std((1, 2)).min() > 0
    for first in range(0, num_sets - 1, 2):
        torch.testing.assert_close(varying[first + 1], -varying[first], atol=1e-4, rtol=1e-4)
    if num_sets == 4:
        alike = F.cosine_similarity(varying[0].flatten(), varying[2].flatten(), 0)
        assert alike.abs() < 0.99


def test_folding_is_pixel_unshuffle() -> None:
    x = torch.randn(2, 3, 32, 48)
    assert torch.equal(Fold()(x), F.pixel_unshuffle(x, 2))


@pytest.mark.parametrize('contrast', [1.0, 0.02])
def test_standardising_is_instance_norm(contrast: float) -> None:
    x = torch.rand(3, 1, 33, 47) * contrast + torch.tensor([0.0, 0.4, 0.9])[:, None, None, None]
    torch.testing.assert_close(standardise(x), F.instance_norm(x), atol=1e-4, rtol=1e-4)


def test_flat_image_gives_finite_output(network: MDNet) -> None:
    with torch.inference_mode():
        for value in (0.0, 0.5, 1.0):
            output = network(torch.full((1, 1, 32, 32), value))
            assert torch.isfinite(output.logits).all()
            assert torch.isfinite(output.descriptors).all()


def test_light_keeps_its_budget() -> None:
    network = MDNet(CONFIGS['md2net-light']).eval()
    assert count_parameters(network) <= 1_000_000
    assert count_flops(network, 640, 480) <= 2e9


def test_flops_of_a_known_convolution() -> None:
    class One(nn.Conv2d):
        pass

    # 3x3, 1 -> 2 channels, 8x6 pixels: 2 operations for each of 9·1·2·48 multiply-adds.
    assert count_flops(One(1, 2, 3, padding=1), 8, 6) == 2 * 9 * 2 * 48  # type: ignore[arg-type]


def test_two_sets_by_default_in_both_sizes() -> None:
    assert set(CONFIGS) == {'md2net', 'md2net-light'}
    assert [CONFIGS[name].num_sets for name in ('md2net', 'md2net-light')] == [2, 2]
    assert [CONFIGS[name].dim for name in ('md2net', 'md2net-light')] == [128, 64]


def test_brightness_and_contrast_of_the_whole_image_do_not_matter(network: MDNet) -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        one, other = network(image), network(0.5 * image + 0.2)
    torch.testing.assert_close(one.logits, other.logits, atol=2e-3, rtol=1e-2)
    torch.testing.assert_close(one.descriptors, other.descriptors, atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize('shift', [(SIZE_MULTIPLE, 0), (0, SIZE_MULTIPLE), (-32, 48)])
def test_shifting_the_image_shifts_the_output(network: MDNet, shift: tuple[int, int]) -> None:
    """By whole cells, far from the edges; the roll keeps the image's mean and contrast."""
    torch.manual_seed(1)
    dx, dy = shift
    image = torch.rand(1, 1, 384, 384)
    with torch.inference_mode():
        here, there = network(image), network(image.roll((dy, dx), (2, 3)))
    inner = slice(160, 224)
    moved = there.logits.roll((-dy, -dx), (2, 3))
    torch.testing.assert_close(
        moved[..., inner, inner], here.logits[..., inner, inner], atol=1e-4, rtol=1e-4
    )
    inner = slice(40, 56)
    moved = there.descriptors.roll((-dy // 4, -dx // 4), (2, 3))
    torch.testing.assert_close(
        moved[..., inner, inner], here.descriptors[..., inner, inner], atol=1e-4, rtol=1e-4
    )


def mirrored(network: MDNet, axis: int) -> MDNet:
    """The network that sees the mirrored world: all kernels flipped along ``axis`` (-1: x).

    Folding pixels into channels orders them row by row, so a flip also swaps the two columns
    (rows) of each 2x2 block.
    """
    swap = [1, 0, 3, 2] if axis == -1 else [2, 3, 0, 1]
    twin = copy.deepcopy(network)
    for module in twin.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.flip(axis)
        if not isinstance(module, nn.Sequential):
            continue
        for first, second in zip(list(module)[:-1], list(module)[1:], strict=True):
            if isinstance(first, Fold):
                convolution = next(m for m in second.modules() if isinstance(m, nn.Conv2d))
                convolution.weight.data = convolution.weight.data[:, swap]
    return twin


@pytest.mark.parametrize('shift', [(1, 0), (0, 1), (1, 1)])
def test_detail_follows_an_image_that_moves_by_one_pixel(
    network: MDNet, shift: tuple[int, int]
) -> None:
    """What finds the place of a keypoint works at full resolution, the same at every pixel."""
    torch.manual_seed(4)
    dx, dy = shift
    image = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        context = torch.rand(1, network.config.channels[0], 1, 1).expand(-1, -1, 64, 64)
        here, there = (
            network.detector_head(network.detail(standardise(x)) + context)
            for x in (image, image.roll((dy, dx), (2, 3)))
        )
    inner = slice(8, 56)
    moved = there.roll((-dy, -dx), (2, 3))
    torch.testing.assert_close(moved[..., inner, inner], here[..., inner, inner])


@pytest.mark.parametrize('axis', [-1, -2])
def test_no_layer_shifts_by_part_of_a_cell(network: MDNet, axis: int) -> None:
    """Mirrored kernels on a mirrored image give the mirrored output, to the pixel.

    A strided convolution or an interpolation with aligned corners would break this.
    """
    torch.manual_seed(2)
    image = torch.rand(1, 1, 64, 96)
    with torch.inference_mode():
        here, there = network(image), mirrored(network, axis)(image.flip(axis))
    torch.testing.assert_close(there.logits.flip(axis), here.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        there.descriptors.flip(axis), here.descriptors, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    'values',
    [
        {'num_sets': 0}, {'num_sets': 9}, {'dim': 4}, {'dim': 1024},
        {'channels': (8, 8, 8, 8)}, {'channels': (8, 8, 8, 8, 2)},
        {'channels': (8, 8, 8, 8, 4096)}, {'saliency': -1}, {'saliency': 2048},
        {'blocks': (1, 1)}, {'blocks': (0, -1, 0)}, {'blocks': (0, 0, 17)},
    ],
)
def test_configuration_out_of_range(values: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        MDNetConfig(**values)


def test_configuration_round_trip() -> None:
    for config in (*CONFIGS.values(), MDNetConfig(num_sets=8, dim=8, channels=(4, 4, 5, 6, 7))):
        assert MDNetConfig.from_dict(config.to_dict()) == config


def test_configuration_of_files_from_before_the_saliency_head_and_the_blocks() -> None:
    values = {'num_sets': 2, 'dim': 64, 'channels': [8, 16, 24, 44, 96]}
    assert MDNetConfig.from_dict(values).saliency == 0
    assert MDNetConfig.from_dict(values).blocks == (0, 0, 0)
    assert MDNet(MDNetConfig.from_dict(values)).saliency is None


@pytest.mark.parametrize(
    'more', [{'saliency': 8}, {'blocks': (1, 2, 1)}, {'saliency': 4, 'blocks': (0, 1, 0)}]
)
def test_what_a_network_grows_changes_nothing_before_it_learns(more: dict) -> None:
    torch.manual_seed(5)
    config = MDNetConfig(dim=16, channels=(4, 4, 4, 8, 8))
    network = MDNet(config).eval()
    grown = grow(network, replace(config, **more)).eval()
    assert grown.config == replace(config, **more)
    image = torch.rand(1, 1, 48, 80)
    with torch.inference_mode():
        for expected, found in zip(network(image), grown(image), strict=True):
            assert torch.equal(expected, found)
    grown.train()(image).logits[:, 0].sum().backward()
    assert all(
        layer.weight.grad.abs().max() > 0
        for layer in grown.modules() if isinstance(layer, ZeroConv)
    )


def test_a_network_keeps_the_more_that_it_has() -> None:
    config = MDNetConfig(dim=16, channels=(4, 4, 4, 8, 8), saliency=8, blocks=(2, 0, 1))
    wanted = replace(config, saliency=4, blocks=(1, 1, 1))
    assert config.grown(wanted) == replace(config, blocks=(2, 1, 1))


@pytest.mark.parametrize('other', [{'dim': 32}, {'channels': (4, 4, 4, 8, 16)}])
def test_a_network_of_other_widths_stays_as_it_is(other: dict) -> None:
    config = MDNetConfig(dim=16, channels=(4, 4, 4, 8, 8))
    assert config.grown(replace(config, saliency=8, blocks=(1, 1, 1), **other)) == config
    assert CONFIGS['md2net-light'].grown(CONFIGS['md2net']) == CONFIGS['md2net-light']


@pytest.mark.parametrize('cell', [(3, 5), (6, 2)])
def test_the_saliency_head_speaks_of_its_own_cell(cell: tuple[int, int]) -> None:
    """What it says at cell (i, j) of stride 4 lands on pixels 4·i … 4·i + 3, 4·j … 4·j + 3."""
    head = MDNet(MDNetConfig(num_sets=2, dim=16, channels=(4, 4, 4, 8, 8), saliency=8)).saliency
    assert head is not None
    head.eval()
    i, j = cell
    with torch.inference_mode():
        head[1][0].weight.zero_()
        head[1][0].weight[:, :, 1, 1] = 1.0  # no look at neighbours
        head[2].weight.fill_(1.0)
        seen = torch.zeros(1, 16, 12, 20)
        flat = head(seen)
        seen[..., i, j] = 5.0
        changed = (head(seen) - flat).abs()[0, 1] > 1e-6
    expected = torch.zeros(24, 40, dtype=torch.bool)
    expected[2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = True
    assert torch.equal(changed, expected)


@pytest.mark.parametrize(
    'values',
    [
        {}, [], 3, None, {'num_sets': 2, 'dim': 64}, {'num_sets': 2, 'dim': 64, 'channels': 5},
        {'num_sets': None, 'dim': 64, 'channels': [8, 8, 8, 8, 8]},
        {'num_sets': 2, 'dim': 'wide', 'channels': [8, 8, 8, 8, 8]},
        {'num_sets': 2, 'dim': float('inf'), 'channels': [8, 8, 8, 8, 8]},
        {'num_sets': float('nan'), 'dim': 64, 'channels': [8, 8, 8, 8, 8]},
        {'num_sets': 2, 'dim': 64, 'channels': [8, 8, 8, 8, [8]]},
    ],
)
def test_configuration_from_nonsense(values: object) -> None:
    with pytest.raises(ValueError, match='.'):
        MDNetConfig.from_dict(values)  # type: ignore[arg-type]


@pytest.mark.parametrize('name', sorted(CONFIGS))
def test_fused_network_gives_the_same(name: str) -> None:
    from skimage import data

    image = torch.from_numpy(data.camera()[:240, :320].copy())[None, None].float() / 255
    plain, _ = load_weights(name)
    fused = fuse(copy.deepcopy(plain))
    norms = [sum(isinstance(m, nn.BatchNorm2d) for m in n.modules()) for n in (plain, fused)]
    assert norms[0] > norms[1] == 1  # the descriptor head's does not follow a convolution
    with torch.inference_mode():
        a, b = plain(image), fused(image)
    torch.testing.assert_close(a.logits, b.logits, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(a.descriptors, b.descriptors, atol=1e-3, rtol=1e-4)

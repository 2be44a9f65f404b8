"""Keypoints from heatmaps made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from mdnet_ros.errors import SettingError
from mdnet_ros.features.detection import (
    MIN_BORDER,
    DetectionSettings,
    _ramp,
    _strongest,
    detect,
    local_maxima,
    refine,
    sample_descriptors,
    slide_max,
    window_at,
)
from mdnet_ros.features.network import NetworkOutput
from mdnet_ros.features.weights import load_weights

H, W = 96, 128
#: Background logit: scores near zero, but not excluded.
FLOOR = -9.0


def bump(x: float, y: float, peak: float = 4.0, sigma: float = 0.7) -> torch.Tensor:
    """(H, W) logits of one Gaussian at a sub-pixel place, on a low floor."""
    xs, ys = torch.arange(W), torch.arange(H)
    square = (xs[None, :] - x) ** 2 + (ys[:, None] - y) ** 2
    return torch.clamp(peak - square / (2 * sigma**2), min=FLOOR)


def output_of(logits: torch.Tensor, dim: int = 8) -> NetworkOutput:
    """Network output of a batch of one with the given (K, H, W) logits."""
    torch.manual_seed(0)
    return with_descriptors(torch.randn(1, dim, H // 4, W // 4), logits[None])


def with_descriptors(
    descriptors: torch.Tensor, logits: torch.Tensor | None = None
) -> NetworkOutput:
    """Network output with descriptors that no projection changes."""
    dim = descriptors.shape[1]
    logits = torch.zeros(len(descriptors), 1, H, W) if logits is None else logits
    return NetworkOutput(logits, descriptors, torch.eye(dim), torch.zeros(dim))


PLACES = [(20.0, 20.0), (40.3, 24.8), (63.5, 50.0), (100.26, 70.74), (90.9, 20.1)]


def heatmap_with(places: list[tuple[float, float]], falling: float = 0.5) -> torch.Tensor:
    return torch.stack([bump(x, y, 4 - falling * i) for i, (x, y) in enumerate(places)]).amax(0)


def test_sub_pixel_places_scores_and_order() -> None:
    found = detect(
        output_of(heatmap_with(PLACES)[None]), DetectionSettings(32, score_threshold=0.3), (H, W)
    )
    assert found.valid[0, 0].tolist() == [True] * 5 + [False] * 27
    np.testing.assert_allclose(found.keypoints[0, 0, :5].numpy(), PLACES, atol=0.02)
    scores = found.scores[0, 0]
    assert (scores.diff() <= 0).all()
    # The score is the heatmap's value at the peak's pixel.
    assert scores[0].item() == pytest.approx(torch.sigmoid(torch.tensor(4.0)).item())
    assert (scores[5:] == 0).all()


@settings(max_examples=40, deadline=None)
@given(st.floats(15, W - 16), st.floats(15, H - 16))
def test_refinement_anywhere(x: float, y: float) -> None:
    logits = bump(x, y)[None, None]
    index = logits.flatten(2).argmax(-1, keepdim=True)
    place = refine(logits, index)[0, 0, 0]
    assert place.tolist() == pytest.approx([x, y], abs=0.02)


@pytest.mark.parametrize('num_sets', [1, 2, 3])
@pytest.mark.parametrize('count', [1, 2, 3, 4, 5, 7, 100])
def test_the_sets_share_any_number_of_keypoints_exactly(num_sets: int, count: int) -> None:
    torch.manual_seed(0)
    found = detect(output_of(torch.randn(num_sets, H, W)), DetectionSettings(count), (H, W))
    shares = found.valid[0].sum(-1)
    assert shares.sum() == count
    assert shares.max() - shares.min() <= 1
    full = detect(output_of(torch.randn(num_sets, H, W)), DetectionSettings(num_sets), (H, W))
    assert full.valid.all()


@pytest.mark.parametrize(
    'wrong',
    [
        {'max_keypoints': 0}, {'max_keypoints': -5}, {'score_threshold': -0.1},
        {'score_threshold': float('nan')}, {'nms_radius': 99}, {'nms_radius': -1}, {'border': -1},
    ],
)
def test_settings_out_of_range_are_refused_wherever_they_are_made(wrong: dict) -> None:
    name = next(iter(wrong))
    with pytest.raises(SettingError, match=f'{name}: expected'):
        DetectionSettings(**wrong)
    with pytest.raises(SettingError, match=f'{name}: expected'):
        replace(DetectionSettings(), **wrong)


def test_refinement_is_differentiable() -> None:
    logits = bump(40.3, 24.8)[None, None].requires_grad_()
    refine(logits, logits.detach().flatten(2).argmax(-1, keepdim=True)).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().sum() > 0


def test_window_holds_the_neighbours_row_by_row() -> None:
    maps = torch.arange(2 * H * W, dtype=torch.float32).reshape(1, 2, H, W)
    y, x = 10, 17
    index = torch.tensor([[[y * W + x], [y * W + x]]])
    got = window_at(maps, index, 1)
    assert got.shape == (1, 2, 1, 9)
    expected = maps[0, :, y - 1 : y + 2, x - 1 : x + 2].reshape(2, 9)
    torch.testing.assert_close(got[0, :, 0], expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3), st.integers(0, 2**31), st.booleans())
def test_no_two_maxima_within_the_radius(radius: int, seed: int, ties: bool) -> None:
    torch.manual_seed(seed)
    logits = torch.rand(1, 1, 18, 21)
    if ties:  # low-precision networks give many equal values
        logits = (logits * 3).round()
    ys, xs = local_maxima(logits, radius)[0, 0].nonzero(as_tuple=True)
    for i in range(len(ys)):
        apart = torch.maximum((ys - ys[i]).abs(), (xs - xs[i]).abs())
        apart[i] = radius + 1
        assert (apart > radius).all()


@pytest.mark.parametrize('radius', [1, 2, 4])
def test_maxima_equal_brute_force(radius: int) -> None:
    torch.manual_seed(radius)
    logits = torch.randn(2, 3, 16, 19)
    got = local_maxima(logits, radius)
    for b, k, y, x in np.ndindex(*logits.shape):
        window = logits[
            b, k, max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1
        ]
        assert bool(got[b, k, y, x]) == bool(logits[b, k, y, x] >= window.max())


@pytest.mark.parametrize('precision', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('with_mask', [False, True])
def test_the_way_on_the_cpu_finds_what_the_plain_way_finds(
    precision: torch.dtype, with_mask: bool
) -> None:
    """On heatmaps of the weights that ship; bfloat16 makes many pixels equal."""
    network, _ = load_weights('md2net-light')
    images = torch.from_numpy(np.stack([data.camera()[:256, :320], data.brick()[:256, :320]]))
    with torch.inference_mode(), torch.autocast('cpu', precision, precision != torch.float32):
        logits = network(images[:, None] / 255.0).logits.float().contiguous()
    allowed = torch.ones(1, 1, 256, 320, dtype=torch.bool)
    if with_mask:  # one for each image
        allowed = torch.arange(2 * 256 * 320).reshape(2, 1, 256, 320) % 7 > 2
    best, index = _strongest(logits, allowed, 2, 60)
    raised = logits + _ramp(256, 320, logits.device, logits.dtype)
    peaks = raised == slide_max(raised, 2)
    assert torch.equal(local_maxima(logits, 2), peaks)
    plain = logits.masked_fill(~(peaks & allowed), -1e4).flatten(2)
    assert torch.equal(best, plain.topk(60).values)
    assert torch.equal(plain.gather(2, index), best)
    assert all(len(set(rows.tolist())) == 60 for rows in index.flatten(0, 1))


def test_the_weaker_of_two_close_peaks_goes() -> None:
    logits = torch.maximum(bump(40, 40, 4), bump(42, 40, 3))[None]
    for radius, count in [(1, 2), (2, 1)]:
        settings_ = DetectionSettings(16, score_threshold=0.5, nms_radius=radius)
        found = detect(output_of(logits), settings_, (H, W))
        assert int(found.valid.sum()) == count
    assert found.keypoints[0, 0, 0].round().tolist() == [40, 40]


@pytest.mark.parametrize('border', [0, 4, 8, 20])
def test_border(border: int) -> None:
    torch.manual_seed(1)
    found = detect(
        output_of(torch.randn(2, H, W)), DetectionSettings(4096, border=border), (H, W)
    )
    edge = max(border, MIN_BORDER)
    points = found.keypoints[found.valid].round()
    assert len(points) > 50
    # Refinement moves a peak by less than its window's radius.
    assert points.min() >= edge - 3
    assert (points.amax(0) <= torch.tensor([W, H]) - 1 - edge + 3).all()
    # A peak on the border's first pixel counts, one outside does not.
    for x, expected in [(edge, True), (edge - 1, False)]:
        spike = torch.full((1, H, W), FLOOR)
        spike[0, 40, x] = 5.0
        found = detect(
            output_of(spike), DetectionSettings(4, score_threshold=0.9, border=border), (H, W)
        )
        assert bool(found.valid[0, 0, 0]) == expected


def test_nothing_in_the_padding() -> None:
    """The batch is padded at the right and bottom; the border counts from the real edge."""
    logits = torch.full((1, H, W), FLOOR)
    logits[0, 40, 100] = 5.0
    logits[0, 70, 40] = 5.0
    logits[0, 40, 40] = 5.0
    found = detect(output_of(logits), DetectionSettings(8, 0.9, border=4), (70, 90))
    assert found.keypoints[found.valid].round().tolist() == [[40, 40]]


@pytest.mark.parametrize('num_sets', range(1, 9))
def test_fixed_shapes_and_shared_budget(num_sets: int) -> None:
    torch.manual_seed(2)
    budget = 100
    shapes = set()
    for logits in (torch.randn(num_sets, H, W), torch.full((num_sets, H, W), -50.0)):
        found = detect(output_of(logits), DetectionSettings(budget), (H, W))
        shapes.add(
            (found.keypoints.shape, found.scores.shape, found.descriptors.shape, found.valid.shape)
        )
        assert int(found.valid.sum()) <= budget
    m = -(-budget // num_sets)  # rounded up
    assert shapes == {((1, num_sets, m, 2), (1, num_sets, m), (1, num_sets, m, 8),
                       (1, num_sets, m))}
    for tensor in (found.keypoints, found.scores, found.descriptors):
        assert torch.isfinite(tensor).all()


def test_sets_are_independent() -> None:
    one, two = heatmap_with(PLACES[:2]), heatmap_with(PLACES[2:])
    found = detect(output_of(torch.stack([one, two])), DetectionSettings(8, 0.3), (H, W))
    np.testing.assert_allclose(found.keypoints[0, 0][found.valid[0, 0]], PLACES[:2], atol=0.02)
    np.testing.assert_allclose(found.keypoints[0, 1][found.valid[0, 1]], PLACES[2:], atol=0.02)


def test_threshold_is_inclusive_and_budget_takes_the_best() -> None:
    logits = heatmap_with(PLACES)[None]
    third = torch.sigmoid(logits[0, 50, 63])
    reached = detect(output_of(logits), DetectionSettings(9, float(third)), (H, W))
    assert int(reached.valid.sum()) == 3
    best = detect(output_of(logits), DetectionSettings(2, 0.3), (H, W))
    np.testing.assert_allclose(best.keypoints[0, 0].numpy(), PLACES[:2], atol=0.02)


def test_mask_keeps_peaks_where_it_is_true() -> None:
    mask = torch.zeros(H, W, dtype=torch.bool)
    mask[:, :60] = True
    found = detect(
        output_of(heatmap_with(PLACES)[None]), DetectionSettings(16, 0.3), (H, W), mask
    )
    np.testing.assert_allclose(found.keypoints[found.valid].numpy(), PLACES[:2], atol=0.02)


def test_everything_masked_gives_nothing_valid() -> None:
    found = detect(
        output_of(torch.randn(2, H, W)), DetectionSettings(16), (H, W),
        torch.zeros(H, W, dtype=torch.bool),
    )
    assert not found.valid.any()
    assert (found.scores == 0).all()


def test_more_slots_than_pixels() -> None:
    found = detect(output_of(torch.randn(1, H, W)), DetectionSettings(10 * H * W), (H, W))
    assert found.valid.shape == (1, 1, H * W)
    assert 0 < int(found.valid.sum()) < H * W / 4


def test_batch_equals_single() -> None:
    torch.manual_seed(3)
    logits, descriptors = torch.randn(3, 2, H, W), torch.randn(3, 8, H // 4, W // 4)
    together = detect(with_descriptors(descriptors, logits), DetectionSettings(64), (H, W))
    for i in range(3):
        alone = detect(
            with_descriptors(descriptors[i : i + 1], logits[i : i + 1]), DetectionSettings(64),
            (H, W),
        )
        for name in ('keypoints', 'scores', 'descriptors', 'valid'):
            torch.testing.assert_close(getattr(together[i], name), getattr(alone, name))


def test_descriptors_lie_at_their_cells_centre() -> None:
    """Cell (i, j) of the stride-4 map describes pixel (4j + 1.5, 4i + 1.5), exactly."""
    torch.manual_seed(4)
    descriptors = torch.randn(1, 8, H // 4, W // 4)
    rows, columns = torch.meshgrid(torch.arange(H // 4), torch.arange(W // 4), indexing='ij')
    centres = torch.stack([4 * columns + 1.5, 4 * rows + 1.5], -1).reshape(1, -1, 2)
    got = sample_descriptors(with_descriptors(descriptors), centres, (H, W))
    expected = torch.nn.functional.normalize(descriptors.flatten(2).transpose(1, 2), dim=-1)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


def test_descriptors_between_cells_follow_a_ramp() -> None:
    """A map that is linear in x and y is reproduced between cell centres."""
    rows, columns = torch.meshgrid(
        torch.arange(H // 4.0), torch.arange(W // 4.0), indexing='ij'
    )
    descriptors = torch.stack([4 * columns + 1.5, 4 * rows + 1.5, torch.ones_like(rows)])[None]
    places = torch.tensor([[[33.0, 47.0], [10.25, 80.5], [100.0, 5.75]]])
    got = sample_descriptors(with_descriptors(descriptors), places, (H, W))
    expected = torch.nn.functional.normalize(
        torch.cat([places, torch.ones(1, 3, 1)], -1), dim=-1
    )
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(got.norm(dim=-1), torch.ones(1, 3))


def test_descriptors_at_the_image_edge_are_finite_and_unit() -> None:
    corners = torch.tensor([[[0.0, 0.0], [W - 1.0, 0.0], [0.0, H - 1.0], [W - 1.0, H - 1.0]]])
    output = with_descriptors(torch.randn(1, 8, H // 4, W // 4))
    got = sample_descriptors(output, corners, (H, W))
    torch.testing.assert_close(got.norm(dim=-1), torch.ones(1, 4))


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_projecting_samples_is_sampling_the_projected_map(layout: torch.memory_format) -> None:
    """As PyTorch's own grid_sample has it, of the whole map after its last convolution."""
    torch.manual_seed(5)
    layer = torch.nn.Conv2d(8, 12, 1)
    cells = torch.randn(2, 8, H // 4, W // 4).to(memory_format=layout)
    places = torch.rand(2, 500, 2) * torch.tensor([W + 4.0, H + 4.0]) - 2.0  # some outside
    output = NetworkOutput(torch.zeros(2, 1, H, W), cells, layer.weight[:, :, 0, 0], layer.bias)
    got = sample_descriptors(output, places, (H, W))
    grid = (places + 0.5) * torch.tensor([2.0 / W, 2.0 / H]) - 1.0
    sampled = torch.nn.functional.grid_sample(
        layer(cells), grid[:, None], padding_mode='border', align_corners=False
    )[:, :, 0]
    expected = torch.nn.functional.normalize(sampled.transpose(1, 2), dim=-1)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)

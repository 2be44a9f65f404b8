"""The objective's parts by hand: unwarping, what is visible, each term, gradients on both views."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from skimage import data

from mdnet_ros.features.network import MDNet, MDNetConfig, NetworkOutput
from mdnet_ros.features.weights import load_weights
from mdnet_ros.training import losses
from mdnet_ros.training.descriptor_pairs import correspondences
from mdnet_ros.training.images import ImagePool, NamedImage
from mdnet_ros.training.keypoint_terms import (
    EDGE,
    ViewKeypoints,
    find_keypoints,
    keypoint_terms,
    match_quality,
)
from mdnet_ros.training.objective import LossTerms, LossWeights, draw, objective
from mdnet_ros.training.overlap import lookup_at, overlap, overlaps, unwarp, unwarp_logits
from mdnet_ros.training.views import ViewPair, make_pairs
from mdnet_ros.training.warps import WarpRanges, apply_homography

SIDE = 64


def moved(dx: float, dy: float, scale: float = 1.0) -> torch.Tensor:
    """(1, 3, 3): first-view pixels to second-view pixels."""
    return torch.tensor([[[scale, 0.0, dx], [0.0, scale, dy], [0.0, 0.0, 1.0]]])


def everywhere(side: int = SIDE) -> torch.Tensor:
    return torch.ones(1, 1, side, side, dtype=torch.bool)


def spike(x: int, y: int, height: float = 12.0, side: int = SIDE) -> torch.Tensor:
    logits = torch.zeros(1, 1, side, side)
    logits[0, 0, y, x] = height
    return logits


def peak(maps: torch.Tensor) -> tuple[int, int]:
    """x, y of the maximum."""
    index = int(maps.flatten().argmax())
    return index % maps.shape[-1], index // maps.shape[-1]


def test_unwarping_brings_the_second_views_values_to_the_first() -> None:
    """What the first view shows at (20, 30) the second shows at (25, 27)."""
    shared = overlap(everywhere(), everywhere(), moved(5, -3))
    assert peak(unwarp(spike(25, 27), shared)) == (20, 30)
    assert unwarp(spike(25, 27), shared)[0, 0, 30, 20].item() == pytest.approx(12.0, abs=1e-3)
    assert peak(unwarp_logits(spike(25, 27), shared)) == (20, 30)
    torch.testing.assert_close(unwarp_logits(spike(25, 27), shared), unwarp(spike(25, 27), shared))


def test_the_two_overlaps_of_a_pair_are_each_others_inverse() -> None:
    pair = ViewPair(torch.zeros(2, 1, SIDE, SIDE), everywhere().repeat(2, 1, 1, 1), moved(5, -3))
    first, second = overlaps(pair)
    assert peak(unwarp(spike(25, 27), first)) == (20, 30)
    assert peak(unwarp(spike(20, 30), second)) == (25, 27)
    torch.testing.assert_close(second.to_second @ first.to_second, torch.eye(3)[None])


def test_visible_is_what_lies_on_the_photograph_in_both_views() -> None:
    first, second = everywhere(), everywhere()
    first[..., :, 40:] = False
    second[..., 50:, :] = False
    visible = overlap(first, second, moved(5, 10)).visible[0, 0]
    y, x = visible.nonzero().unbind(1)
    # first view: x < 40; second: y + 10 < 50, x + 5 and y + 10 at least 2 px inside
    assert (x.min(), x.max()) == (0, 39)
    assert (y.min(), y.max()) == (0, 39)
    assert visible.sum() == 40 * 40
    outside = overlap(everywhere(), everywhere(), moved(20, 0)).visible[0, 0]
    assert outside[2:-2, : SIDE - 20 - 2].all()
    assert not outside[:, SIDE - 20 - 2 :].any()
    assert not outside[:2].any()


def test_level_says_how_much_nearer_the_second_view_is() -> None:
    assert overlap(everywhere(), everywhere(), moved(0, 0, 1.0)).level.abs().max() < 1e-4
    nearer = overlap(everywhere(), everywhere(), moved(-32, -32, 2**0.5))
    torch.testing.assert_close(nearer.level, torch.full_like(nearer.level, 0.5), atol=1e-3, rtol=0)
    farther = overlap(everywhere(), everywhere(), moved(10, 10, 0.5))
    assert farther.level.max() == 0.0


@pytest.mark.parametrize('at', [(31, 33), (32, 33), (31, 32), (32, 32)])
def test_a_peak_of_a_nearer_view_is_not_lost_between_pixels(at: tuple[int, int]) -> None:
    """At twice the scale three of four pixels of the second view are skipped by sampling."""
    shared = overlap(everywhere(), everywhere(), moved(0.5, 0.5, 2.0))
    found = unwarp_logits(spike(*at), shared)
    x, y = peak(found)
    assert (x, y) == (at[0] // 2, at[1] // 2)
    # the probability of the four covered pixels adds up: log of the mean of exp
    expected = torch.tensor([12.0, 0.0, 0.0, 0.0]).exp().mean().log().item()
    assert found[0, 0, y, x].item() == pytest.approx(expected, abs=1e-3)


def test_lookup_takes_the_nearest_pixel_and_nothing_outside() -> None:
    mask = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.bool)
    mask[0, 0, 10, 20] = True
    points = torch.tensor([[[20.4, 9.6], [20.6, 10.0], [-1.0, 10.0], [20.0, 70.0]]])
    assert lookup_at(mask, points).tolist() == [[True, False, False, False]]


def output_of(descriptors: torch.Tensor) -> NetworkOutput:
    c = descriptors.shape[1]
    return NetworkOutput(torch.zeros(1, 1, SIDE, SIDE), descriptors, torch.eye(c), torch.zeros(c))


def keypoints_at(
    points: list[tuple[int, int]], to_second: torch.Tensor, count: int | None = None,
    descriptors: torch.Tensor | None = None,
) -> ViewKeypoints:
    """Keypoints found in a map of single peaks, the earlier the stronger."""
    logits = torch.full((1, 1, SIDE, SIDE), -5.0)
    for rank, (x, y) in enumerate(points):
        logits[0, 0, y, x] = 20.0 - rank
    maps = torch.randn(1, 8, SIDE // 4, SIDE // 4) if descriptors is None else descriptors
    shared = overlap(everywhere(), everywhere(), to_second)
    return find_keypoints(logits, output_of(maps), everywhere(), shared, count or len(points))


def test_keypoints_carry_their_true_place_and_whether_it_is_seen() -> None:
    view = keypoints_at([(20, 30), (40, 20), (52, 40)], moved(5, -3))
    torch.testing.assert_close(
        view.warped[0, 0], torch.tensor([[25.0, 27.0], [45.0, 17.0], [57.0, 37.0]]),
        atol=0.01, rtol=0,
    )
    # 57 is within 8 px of the second view's edge
    assert view.visible[0, 0].tolist() == [True, True, False]
    assert view.valid.all()
    torch.testing.assert_close(view.logits[0, 0].detach(), torch.tensor([20.0, 19.0, 18.0]))


def test_no_keypoint_lies_off_the_photograph_or_at_the_edge() -> None:
    logits = torch.randn(1, 2, SIDE, SIDE)
    on_photo = everywhere()
    on_photo[..., 40:] = False
    shared = overlap(on_photo, everywhere(), moved(0, 0))
    found = find_keypoints(logits, output_of(torch.randn(1, 8, 16, 16)), on_photo, shared, 500)
    x, y = (found.index % SIDE)[found.valid], (found.index // SIDE)[found.valid]
    assert not found.valid.all()  # fewer than 500 fit
    assert (x.min() >= EDGE, x.max() < 40, y.min() >= EDGE, y.max() < SIDE - EDGE) == (True,) * 4


def test_quality_counts_thresholds_of_mutual_matches() -> None:
    """Three true pairs, found 0, 1.5 and 5 px beside their true place."""
    torch.manual_seed(0)
    maps = torch.randn(1, 8, SIDE // 4, SIDE // 4)
    first = keypoints_at([(20, 30), (40, 20), (30, 48)], moved(0, 0), descriptors=maps)
    second = keypoints_at([(20, 30), (41, 21), (30, 53)], moved(0, 0), descriptors=maps)
    second = replace(second, descriptors=first.descriptors)  # matches are certain
    quality, back = match_quality(first, second)
    torch.testing.assert_close(quality[0, 0], torch.tensor([1.0, 2 / 3, 0.0]))
    torch.testing.assert_close(back[0, 0], torch.tensor([1.0, 2 / 3, 0.0]))
    swapped = replace(second, descriptors=first.descriptors.flip(2))
    quality, _ = match_quality(first, swapped)
    assert quality[0, 0].tolist() == [0.0, pytest.approx(2 / 3), 0.0]


def test_keypoint_terms_by_hand() -> None:
    first = keypoints_at([(20, 30), (40, 20)], moved(5, -3))
    second = keypoints_at([(25, 27), (30, 40)], moved(-5, 3))
    quality = (torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[1.0, 0.0]]]))
    terms = keypoint_terms(first, second, quality)
    # logits 20 and 19: a right one costs nothing, a wrong one its logit
    assert terms.reliability.item() == pytest.approx(19.0 / 2, abs=1e-3)
    assert terms.reprojection.item() == pytest.approx(0.0, abs=1e-3)
    assert terms.repeated.item() == pytest.approx(0.5)
    assert terms.correct.item() == pytest.approx(0.5)


def test_unrepeated_detections_are_pushed_down_in_both_views() -> None:
    views = [keypoints_at([(20, 30), (40, 20)], moved(0, 0)),
             keypoints_at([(20, 30), (30, 45)], moved(0, 0))]
    logits = [view.logits.detach().requires_grad_() for view in views]
    first, second = (replace(v, logits=z) for v, z in zip(views, logits, strict=True))
    quality = (torch.tensor([[[1.0, 0.0]]]),) * 2
    keypoint_terms(first, second, quality).reliability.backward()
    for z in logits:
        assert z.grad is not None
        assert z.grad[0, 0, 1] > 0.2  # descent lowers the score of what is not repeated
        assert abs(z.grad[0, 0, 0]) < 1e-6


def test_unmatched_detections_are_rivals_in_their_own_view() -> None:
    """First view: A, B. Second: A, C. C has no counterpart and still competes for A."""
    maps = torch.randn(2, 8, SIDE // 4, SIDE // 4)
    first = keypoints_at([(20, 20), (44, 20)], moved(0, 0), descriptors=maps[:1])
    second = keypoints_at([(20, 20), (20, 44)], moved(0, 0), descriptors=maps[1:])
    hidden = replace(second, visible=torch.tensor([[[True, False]]]))  # C lies outside the first
    # every second keypoint is left out: double them
    double = [ViewKeypoints(*(getattr(v, f.name).repeat_interleave(2, 2) for f in fields(v)))
              for v in (first, hidden)]
    shared = overlaps(
        ViewPair(torch.zeros(2, 1, SIDE, SIDE), everywhere().repeat(2, 1, 1, 1), moved(0, 0))
    )
    outputs = (output_of(maps[:1]), output_of(maps[1:]))
    points = correspondences(outputs, (double[0], double[1]), shared, torch.empty(1, 0, 2))
    a, b, a_again, c = range(4)
    assert points.visible[0].tolist() == [True, True, True, False]
    assert points.negatives[0, a].tolist() == [False, True, False, True]  # B and C, not A itself
    assert points.negatives_back[0, :, a].tolist() == [False, True, False, False]  # C is not there
    assert not points.negatives[0, c].any()  # what is not visible has nothing to match
    assert not points.negatives_back[0, :, c].any()
    # each descriptor is that of the point's place in its own view
    torch.testing.assert_close(points.first[0, a], first.descriptors[0, 0, 0])
    torch.testing.assert_close(points.second[0, a_again], second.descriptors[0, 0, 0])
    torch.testing.assert_close(points.second[0, c], second.descriptors[0, 0, 1])


@pytest.fixture(scope='module')
def batch() -> tuple[MDNet, ViewPair]:
    network, _ = load_weights('md2net-light')
    pool = ImagePool([NamedImage('camera', data.camera()), NamedImage('coins', data.coins())])
    ranges = WarpRanges(small_motion=0.0, scale=1.3, tilt=1.2, rotation=15.0)
    pair = make_pairs(
        pool, torch.tensor([0, 1]), 128, ranges, 1.0, torch.Generator().manual_seed(4)
    )
    return network, pair


def terms_of(
    output: NetworkOutput, pair: ViewPair, weights: LossWeights, reliability: float = 1.0
) -> LossTerms:
    generator = torch.Generator().manual_seed(0)
    draws = draw(len(pair.to_second), 128, generator, generator)
    return objective(output, pair, weights, 0.03, reliability, draws)


EVERY_TERM = LossWeights(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize('name', [f.name for f in fields(LossWeights)])
def test_every_term_reaches_both_views(name: str, batch: tuple[MDNet, ViewPair]) -> None:
    network, pair = batch
    with torch.no_grad():
        output = network(pair.images)
    logits, descriptors = (t.detach().clone().requires_grad_() for t in output[:2])
    term = getattr(terms_of(output._replace(logits=logits, descriptors=descriptors), pair,
                            EVERY_TERM), name)
    term.backward()
    of_descriptors = name in ('triplet', 'dual_softmax')
    gradient = (descriptors if of_descriptors else logits).grad
    assert gradient is not None
    for view in gradient.split(len(pair.to_second)):
        assert view.abs().sum() > 0
    assert term.item() > 0


@pytest.mark.parametrize('name', [f.name for f in fields(LossWeights)])
def test_each_weight_weighs_its_own_term(name: str, batch: tuple[MDNet, ViewPair]) -> None:
    network, pair = batch
    with torch.no_grad():
        output = network(pair.images)
        every = terms_of(output, pair, EVERY_TERM)
        weights = {f.name: 0.0 for f in fields(LossWeights)}
        alone = terms_of(output, pair, LossWeights(**{**weights, name: 3.0}))
        assert alone.total.item() == pytest.approx(3 * getattr(every, name).item(), rel=1e-5)
    if name == 'reliability':
        half = terms_of(output, pair, LossWeights(**{**weights, name: 3.0}), 0.5)
        assert half.total.item() == pytest.approx(1.5 * every.reliability.item(), rel=1e-5)


def test_a_trained_network_scores_better_on_the_true_map_than_on_another(
    batch: tuple[MDNet, ViewPair],
) -> None:
    network, pair = batch
    shift = torch.tensor([[1.0, 0.0, 6.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    wrong = replace(pair, to_second=shift @ pair.to_second)
    with torch.no_grad():
        output = network(pair.images)
        right, off = (terms_of(output, p, EVERY_TERM) for p in (pair, wrong))
    for name in ('agreement', 'triplet', 'dual_softmax', 'similarity'):
        assert getattr(right, name) < getattr(off, name), name
    assert right.repeated > off.repeated + 0.1
    assert right.correct > off.correct + 0.3


def test_a_view_and_itself_cost_least() -> None:
    """The same image twice and the identity: every keypoint is repeated and matched."""
    network = MDNet(MDNetConfig(dim=16, channels=(8, 8, 8, 8, 8))).eval()
    image = torch.from_numpy(data.camera()[:128, :128].copy())[None, None].float() / 255
    valid = everywhere(128).repeat(2, 1, 1, 1)
    pair = ViewPair(image.repeat(2, 1, 1, 1), valid, torch.eye(3)[None])
    with torch.no_grad():
        terms = terms_of(network(pair.images), pair, EVERY_TERM)
    assert terms.similarity.item() == pytest.approx(0.0, abs=1e-6)
    assert terms.reprojection.item() == pytest.approx(0.0, abs=1e-3)
    assert terms.repeated.item() == pytest.approx(1.0)


def test_windows_are_as_many_for_every_offset() -> None:
    maps = torch.zeros(1, 1, 64, 64)
    counts = {losses.windows_of(maps, 16, (y, x)).shape for y in (0, 7, 15) for x in (0, 15)}
    assert counts == {(1, 1, 9, 256)}


def test_points_of_a_step_lie_inside_and_come_again() -> None:
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    one, two = (draw(4, 96, g, g) for g in generators)
    assert one.offset == two.offset
    assert torch.equal(one.points, two.points)
    assert one.points.min() >= EDGE
    assert one.points.max() <= 96 - 1 - EDGE
    place = apply_homography(torch.eye(3).expand(4, 3, 3), one.points)
    torch.testing.assert_close(place, one.points)

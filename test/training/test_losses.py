"""Losses against values computed by hand, their gradients, and their minima."""

from __future__ import annotations

import math

import pytest
import torch

from mdnet_ros.training import losses


def test_similarity_by_hand() -> None:
    a = torch.tensor([[[[0.2, 0.8], [0.5, 1.0]]]])
    b = torch.tensor([[[[0.4, 0.8], [0.0, 0.0]]]])
    everywhere = torch.ones(1, 1, 2, 2)
    # (0.04 + 0 + 0.25 + 1) / 4
    assert losses.similarity_loss(a, b, everywhere).item() == pytest.approx(0.3225)
    top = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    assert losses.similarity_loss(a, b, top).item() == pytest.approx(0.02)
    assert losses.similarity_loss(a, a, everywhere).item() == 0.0
    assert losses.similarity_loss(a, b, everywhere * 0).item() == 0.0


def test_peaky_by_hand() -> None:
    one_peak = torch.zeros(1, 1, 16, 16)
    one_peak[0, 0, 5, 9] = 1.0
    # max 1, mean 1/256
    assert losses.peaky_loss(one_peak).item() == pytest.approx(1 / 256, abs=1e-5)
    assert losses.peaky_loss(torch.full((1, 1, 16, 16), 0.7)).item() == pytest.approx(1.0, abs=1e-5)
    half = one_peak * 0.5
    assert losses.peaky_loss(half).item() == pytest.approx(1 - (0.5 - 0.5 / 256), abs=1e-5)


def test_peaky_weight_spares_unreliable_windows() -> None:
    heat = torch.zeros(1, 1, 16, 32)
    heat[0, 0, 8, 8] = 1.0  # a peak on the left only
    left = torch.zeros(1, 1, 16, 32)
    left[..., :16] = 1.0
    assert losses.peaky_loss(heat, left, window=16).item() < losses.peaky_loss(heat).item()
    flat_only = losses.peaky_loss(heat[..., 16:], left[..., 16:])
    assert flat_only.item() == 0.0  # no weight, nothing to pay


def test_windows_of_cuts_in_order() -> None:
    maps = torch.arange(36.0).reshape(1, 1, 6, 6)
    cut = losses.windows_of(maps, 2, (1, 1))
    assert cut.shape == (1, 1, 4, 4)
    assert cut[0, 0, 0].tolist() == [7.0, 8.0, 13.0, 14.0]
    assert cut[0, 0, 3].tolist() == [21.0, 22.0, 27.0, 28.0]


def test_agreement_by_hand() -> None:
    everywhere = torch.ones(1, 1, 1, 4, dtype=torch.bool)
    weight = torch.ones(1, 1, 1)
    flat = torch.zeros(1, 1, 1, 4)
    none = losses.agreement_loss(flat, flat, everywhere, weight).item()
    assert none == pytest.approx(1.0, abs=1e-5)
    peak = torch.tensor([[[[20.0, 0.0, 0.0, 0.0]]]])
    same = losses.agreement_loss(peak, peak, everywhere, weight).item()
    assert same == pytest.approx(0, abs=1e-5)
    # p = (1/2, 1/6, 1/6, 1/6) against q = uniform: ½ [log 4 + mean over q of -log p]
    p = torch.tensor([[[[math.log(3.0), 0.0, 0.0, 0.0]]]])
    expected = 0.5 * (math.log(4) + 0.25 * (math.log(2) + 3 * math.log(6))) / math.log(4)
    got = losses.agreement_loss(p, flat, everywhere, weight).item()
    assert got == pytest.approx(expected, abs=1e-6)


def test_agreement_prefers_the_same_peak_to_none_to_another() -> None:
    everywhere = torch.ones(1, 1, 1, 16, dtype=torch.bool)
    weight = torch.ones(1, 1, 1)
    here = torch.zeros(1, 1, 1, 16)
    here[..., 3] = 8.0
    there = here.roll(5, -1)
    flat = torch.zeros_like(here)
    same, none, other = (
        losses.agreement_loss(a, b, everywhere, weight).item()
        for a, b in ((here, here), (flat, flat), (here, there))
    )
    assert same < none < other


def test_intersection_by_hand() -> None:
    everywhere = torch.ones(1, 1, 1, 256, dtype=torch.bool)
    weight = torch.ones(1, 1, 1)
    same = torch.zeros(1, 2, 1, 256)
    same[..., 100] = 30.0
    assert losses.intersection_loss(same, everywhere, weight).item() == pytest.approx(1.0, abs=1e-5)
    apart = same.clone()
    apart[0, 1] = apart[0, 1].roll(50, -1)
    assert losses.intersection_loss(apart, everywhere, weight).item() == pytest.approx(0, abs=1e-6)
    neighbour = same.clone()
    neighbour[0, 1] = neighbour[0, 1].roll(1, -1)  # within one pixel counts as the same place
    near = losses.intersection_loss(neighbour, everywhere, weight).item()
    assert near == pytest.approx(1.0, abs=1e-5)
    copies = same.repeat(1, 2, 1, 1)  # each of four sets shares all with three others
    all_alike = losses.intersection_loss(copies, everywhere, weight).item()
    assert all_alike == pytest.approx(3.0, abs=1e-5)
    copies[0, 2:] = copies[0, 2:].roll(50, -1)  # two with a copy each: as bad as two copies
    two_pairs = losses.intersection_loss(copies, everywhere, weight).item()
    assert two_pairs == pytest.approx(1.0, abs=1e-5)
    one_set = same[:, :1]
    assert losses.intersection_loss(one_set, everywhere, weight).item() == 0.0


def test_reliability_by_hand() -> None:
    logits = torch.tensor([[[0.0, math.log(3.0), 5.0]]])
    quality = torch.tensor([[[1.0, 0.25, 0.0]]])
    weight = torch.tensor([[[1.0, 1.0, 0.0]]])
    # -log 0.5, and with p = 3/4: -(0.25 log 0.75 + 0.75 log 0.25)
    expected = (math.log(2) - 0.25 * math.log(0.75) - 0.75 * math.log(0.25)) / 2
    assert losses.reliability_loss(logits, quality, weight).item() == pytest.approx(expected)


def test_reliability_is_least_when_scores_are_the_true_chances() -> None:
    quality = torch.tensor([[[0.9, 0.1, 2 / 3, 1 / 3]]])
    weight = torch.ones_like(quality)
    logits = torch.logit(quality).requires_grad_()
    losses.reliability_loss(logits, quality, weight).backward()
    assert logits.grad is not None
    assert logits.grad.abs().max().item() < 1e-6


def test_reprojection_by_hand() -> None:
    a = torch.tensor([[[[10.0, 10.0], [5.0, 5.0]]]])
    b = torch.tensor([[[[10.5, 9.0], [50.0, 5.0]]]])
    weight = torch.tensor([[[1.0, 0.0]]])
    assert losses.reprojection_loss(a, b, weight).item() == pytest.approx(1.5)


def _similarity(rows: list[list[float]], others: list[list[float]]) -> torch.Tensor:
    return torch.tensor([rows]) @ torch.tensor([others]).transpose(1, 2)


def _triplet(rows: list[list[float]], others: list[list[float]], temperature: float) -> float:
    n = len(rows)
    negatives = ~torch.eye(n, dtype=torch.bool)[None]
    return losses.triplet_loss(
        _similarity(rows, others), negatives, negatives, torch.ones(1, n), temperature
    )[0].item()


def test_triplet_by_hand() -> None:
    # two points, one negative each: the soft maximum is that negative at any temperature
    right, up = [1.0, 0.0], [0.0, 1.0]
    left = [-1.0, 0.0]
    assert _triplet([right, left], [right, left], 0.1) == 0.0  # lecture: 0.5 - 1 + (-1) < 0
    assert _triplet([right, up], [right, up], 0.1) == 0.0  # 0.5 - 1 + 0 < 0
    assert _triplet([right, right], [right, right], 0.1) == pytest.approx(0.5)  # all alike
    assert _triplet([right, up], [up, right], 0.1) == pytest.approx(1.5)  # 0.5 - 0 + 1
    c, s = 0.6, 0.8  # positives at 0.6, negatives at 0.8: lecture's "wrong match"
    got = _triplet([right, up], [[c, s], [s, c]], 0.1)
    assert got == pytest.approx(0.5 - 0.6 + 0.8, abs=1e-5)


def test_triplet_counts_the_hardest_rival_in_full() -> None:
    """A lone hard negative among many easy ones: never taken for easier than it is."""
    n = 300
    similarity = torch.zeros(1, n, n)
    similarity[0, 0, 0], similarity[0, 0, 1] = 0.9, 0.8
    negatives = torch.zeros(1, n, n, dtype=torch.bool)
    negatives[0, 0, 1:] = True
    weight = torch.zeros(1, n)
    weight[0, 0] = 1.0
    none = torch.zeros_like(negatives)
    loss, hardest = losses.triplet_loss(similarity, negatives, none, weight, 0.03)
    # one direction of two: half of 0.5 - 0.9 + 0.8
    assert loss.item() == pytest.approx(0.5 * 0.4, abs=1e-4)
    assert hardest[0, 0].item() == pytest.approx(0.8)
    # equal negatives add tau log n
    similarity[0, 0, 1:5] = 0.8
    loss, _ = losses.triplet_loss(similarity, negatives, none, weight, 0.03)
    assert loss.item() == pytest.approx(0.5 * (0.4 + 0.03 * math.log(4)), abs=1e-4)


def test_triplet_directions_have_their_own_rivals() -> None:
    similarity = torch.tensor([[[0.6, 0.3], [0.7, 0.9]]])
    weight = torch.tensor([[1.0, 0.0]])
    to_second = torch.tensor([[[False, True], [False, False]]])
    to_first = torch.tensor([[[False, False], [True, False]]])
    none = torch.zeros_like(to_second)
    forward, _ = losses.triplet_loss(similarity, to_second, none, weight, 0.01)
    backward, _ = losses.triplet_loss(similarity, none, to_first, weight, 0.01)
    assert forward.item() == pytest.approx(0.5 * (0.5 - 0.6 + 0.3), abs=1e-4)
    assert backward.item() == pytest.approx(0.5 * (0.5 - 0.6 + 0.7), abs=1e-4)


def test_dual_softmax_by_hand() -> None:
    similarity = torch.tensor([[[0.6, 0.3], [0.7, 0.9]]])
    negatives = torch.tensor([[[False, True], [False, False]]])
    negatives_back = torch.tensor([[[False, False], [True, False]]])
    weight = torch.tensor([[1.0, 0.0]])
    loss = losses.dual_softmax_loss(similarity, negatives, negatives_back, weight, 0.1)
    forward = math.log(1 + math.exp((0.3 - 0.6) / 0.1))
    backward = math.log(1 + math.exp((0.7 - 0.6) / 0.1))
    assert loss.item() == pytest.approx(0.5 * (forward + backward), abs=1e-5)


@pytest.mark.parametrize(
    'name', ['agreement', 'intersection', 'peaky', 'triplet', 'dual_softmax', 'similarity']
)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    torch.manual_seed(3)
    z = torch.randn(1, 2, 1, 256, dtype=torch.float64, requires_grad=True)
    other = torch.randn(1, 2, 1, 256, dtype=torch.float64)
    valid = torch.rand(1, 1, 1, 256) > 0.1
    weight = torch.ones(1, 1, 1, dtype=torch.float64)

    def value(x: torch.Tensor) -> torch.Tensor:
        if name == 'agreement':
            return losses.agreement_loss(x, other, valid, weight)
        if name == 'intersection':
            return losses.intersection_loss(x, valid, weight)
        if name == 'peaky':
            return losses.peaky_loss(x.reshape(1, 2, 16, 16).sigmoid())
        if name == 'similarity':
            return losses.similarity_loss(x.sigmoid(), other.sigmoid(), weight[..., None])
        unit = torch.nn.functional.normalize(x.reshape(1, 32, 16), dim=-1)
        fixed = torch.nn.functional.normalize(other.reshape(1, 32, 16), dim=-1)
        apart = ~torch.eye(32, dtype=torch.bool)[None]
        compared = (unit @ fixed.transpose(1, 2), apart, apart, torch.ones(1, 32).double())
        if name == 'dual_softmax':
            return losses.dual_softmax_loss(*compared, 0.1)
        return losses.triplet_loss(*compared, 0.1)[0]

    assert torch.autograd.gradcheck(value, (z,), atol=1e-5, fast_mode=True)

"""Mutual nearest neighbours against a brute-force reference."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mdnet_ros import Features, match_mutual_nearest
from mdnet_ros.features import matching
from mdnet_ros.features.extractor import MDNetExtractor
from mdnet_ros.features.matching import has_fast_integers, mutual_nearest
from mdnet_ros.features.weights import CONFIGS


def random_features(rng: np.random.Generator, count: int, num_sets: int, dim: int = 8) -> Features:
    rows = rng.normal(size=(count, dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Features(
        keypoints=rng.uniform(0, 100, (count, 2)).astype(np.float32),
        scores=rng.uniform(size=count).astype(np.float32),
        sets=np.sort(rng.integers(0, num_sets, count)).astype(np.int32),
        descriptors=rows.astype(np.float32),
        image_size=(100, 100),
        num_sets=num_sets,
    )


def brute_force(a: Features, b: Features, across_sets: bool) -> list[tuple[int, int]]:
    """Row by row, in float64; correct wherever there are no ties."""
    cosine = a.descriptors.astype(np.float64) @ b.descriptors.astype(np.float64).T
    pairs = []
    for i in range(len(a)):
        others = [j for j in range(len(b)) if across_sets or a.sets[i] == b.sets[j]]
        if not others:
            continue
        j = max(others, key=lambda j: cosine[i, j])
        back = [k for k in range(len(a)) if across_sets or a.sets[k] == b.sets[j]]
        if max(back, key=lambda k: cosine[k, j]) == i:
            pairs.append((i, j))
    return pairs


@pytest.mark.parametrize('across_sets', [False, True])
@pytest.mark.parametrize('num_sets', [1, 2, 3, 8])
def test_equals_brute_force(num_sets: int, across_sets: bool) -> None:
    rng = np.random.default_rng(num_sets)
    a, b = random_features(rng, 61, num_sets), random_features(rng, 47, num_sets)
    matches = match_mutual_nearest(a, b, across_sets=across_sets)
    assert [tuple(row) for row in matches.indices] == brute_force(a, b, across_sets)
    i, j = matches.indices.T
    expected = np.sum(a.descriptors[i] * b.descriptors[j], axis=1)
    np.testing.assert_allclose(matches.similarity, expected, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 12), st.integers(0, 12), st.integers(1, 8), st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_any_size_equals_brute_force(
    count_a: int, count_b: int, num_sets: int, across_sets: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    a, b = random_features(rng, count_a, num_sets), random_features(rng, count_b, num_sets)
    matches = match_mutual_nearest(a, b, across_sets=across_sets)
    assert [tuple(row) for row in matches.indices] == brute_force(a, b, across_sets)
    assert matches.indices.shape == (len(matches), 2)
    assert matches.indices.dtype == np.int64
    assert matches.similarity.shape == (len(matches),)
    assert np.isfinite(matches.similarity).all()


def test_swapping_the_images_swaps_the_pairs() -> None:
    rng = np.random.default_rng(5)
    a, b = random_features(rng, 40, 2), random_features(rng, 50, 2)
    forward = {tuple(row) for row in match_mutual_nearest(a, b).indices}
    backward = {tuple(row[::-1]) for row in match_mutual_nearest(b, a).indices}
    assert forward == backward


def test_an_image_matches_itself_row_by_row() -> None:
    a = random_features(np.random.default_rng(6), 80, 4)
    matches = match_mutual_nearest(a, a)
    np.testing.assert_array_equal(matches.indices, np.arange(80)[:, None].repeat(2, axis=1))
    np.testing.assert_allclose(matches.similarity, 1.0, atol=1e-6)


def test_only_the_same_set_is_matched_unless_asked(make) -> None:
    desc = np.eye(2, dtype=np.float32)
    points = np.zeros((2, 2))
    a = make.features(points, desc, sets=[0, 1], num_sets=2)
    b = make.features(points, desc[::-1], sets=[0, 1], num_sets=2)  # twins lie in the other set
    apart = match_mutual_nearest(a, b)
    np.testing.assert_array_equal(apart.indices, [[0, 0], [1, 1]])
    np.testing.assert_array_equal(apart.similarity, [0.0, 0.0])
    across = match_mutual_nearest(a, b, across_sets=True)
    np.testing.assert_array_equal(across.indices, [[0, 1], [1, 0]])
    np.testing.assert_array_equal(across.similarity, [1.0, 1.0])


def test_rows_need_not_be_grouped_by_set(make) -> None:
    rng = np.random.default_rng(7)
    desc = make.unit_rows(rng, 6, 8)
    order = np.array([3, 0, 5, 1, 4, 2])
    a = make.features(np.zeros((6, 2)), desc, sets=[0, 0, 0, 1, 1, 1], num_sets=2)
    b = make.features(
        np.zeros((6, 2)), desc[order], sets=np.array([0, 0, 0, 1, 1, 1])[order], num_sets=2
    )
    matches = match_mutual_nearest(a, b)
    np.testing.assert_array_equal(matches.indices[:, 0], np.arange(6))
    np.testing.assert_array_equal(order[matches.indices[:, 1]], np.arange(6))


def test_different_numbers_of_sets(make) -> None:
    a = make.features(np.zeros((2, 2)), np.eye(2), sets=[0, 2], num_sets=3)
    b = make.features(np.zeros((1, 2)), np.eye(2)[1:], sets=[0], num_sets=1)
    np.testing.assert_array_equal(match_mutual_nearest(a, b).indices, [[0, 0]])


def test_a_set_empty_on_one_side_gives_no_match(make) -> None:
    a = make.features(np.zeros((2, 2)), np.eye(2), sets=[0, 0], num_sets=2)
    b = make.features(np.zeros((2, 2)), np.eye(2), sets=[1, 1], num_sets=2)
    assert len(match_mutual_nearest(a, b)) == 0
    assert len(match_mutual_nearest(a, b, across_sets=True)) == 2


@pytest.mark.parametrize('across_sets', [False, True])
def test_empty_images(across_sets: bool) -> None:
    some = random_features(np.random.default_rng(8), 5, 2)
    none = Features.empty((100, 100), 8, num_sets=2)
    for a, b in [(some, none), (none, some), (none, none)]:
        matches = match_mutual_nearest(a, b, across_sets=across_sets)
        assert matches.indices.shape == (0, 2)
        assert matches.similarity.shape == (0,)


@pytest.mark.parametrize('across_sets', [False, True])
def test_padding_never_wins_over_a_real_opposite(make, across_sets: bool) -> None:
    """The best partner may have cosine -1, below the zero of a padding slot."""
    a = make.features(
        np.zeros((3, 2)), [[1, 0], [0, 1], [0, -1]], sets=[0, 1, 1], num_sets=2
    )
    b = make.features(np.zeros((2, 2)), [[-1, 0], [0, 1]], sets=[0, 1], num_sets=2)
    matches = match_mutual_nearest(a, b, across_sets=across_sets)
    expected = [[1, 1], [2, 0]] if across_sets else [[0, 0], [1, 1]]
    if across_sets:  # rows 0 and 2 of a tie at best; only the clear pair is sure
        assert [1, 1] in matches.indices.tolist()
    else:
        np.testing.assert_array_equal(matches.indices, expected)
        np.testing.assert_array_equal(matches.similarity, [-1.0, 1.0])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 3), max_size=12),
    st.integers(1, 3),
)
def test_ties_stay_one_to_one(words_a: list[int], words_b: list[int], num_sets: int) -> None:
    """Many equal descriptors: each row at most once, and no better free partner on either side."""
    eye = np.eye(4, dtype=np.float32)

    def features(words: list[int]) -> Features:
        count = len(words)
        return Features(
            np.zeros((count, 2), np.float32), np.ones(count, np.float32),
            np.sort(np.arange(count) % num_sets).astype(np.int32),
            eye[words].reshape(count, 4), (9, 9), num_sets,
        )

    a, b = features(words_a), features(words_b)
    matches = match_mutual_nearest(a, b)
    i, j = matches.indices.T
    assert len(set(i)) == len(i)
    assert len(set(j)) == len(j)
    np.testing.assert_array_equal(a.sets[i], b.sets[j])
    cosine = np.where(a.sets[:, None] == b.sets[None], a.descriptors @ b.descriptors.T, -2)
    np.testing.assert_array_equal(cosine[i, j], cosine[i].max(axis=1, initial=-2))
    np.testing.assert_array_equal(cosine[i, j], cosine[:, j].max(axis=0, initial=-2))


def test_min_similarity_keeps_what_reaches_it(make) -> None:
    a = make.features(np.zeros((3, 2)), [[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    b = make.features(np.zeros((3, 2)), [[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]])
    assert len(match_mutual_nearest(a, b)) == 3
    np.testing.assert_array_equal(
        match_mutual_nearest(a, b, min_similarity=0.9).indices, [[1, 1]]
    )
    assert len(match_mutual_nearest(a, b, min_similarity=1.0)) == 1


def test_descriptors_of_different_length_are_refused(make) -> None:
    a = make.features(np.zeros((1, 2)), np.ones((1, 4)))
    b = make.features(np.zeros((1, 2)), np.ones((1, 8)))
    with pytest.raises(ValueError, match='same length'):
        match_mutual_nearest(a, b)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 3), st.integers(0, 2**31))
def test_rounded_products_pick_a_partner_as_near_as_rounding_tells(
    count_a: int, count_b: int, num_sets: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    a, b = random_features(rng, count_a, num_sets), random_features(rng, count_b, num_sets)
    matches = match_mutual_nearest(a, b, exact=False)
    i, j = matches.indices.T
    assert len(set(i)) == len(i)
    assert len(set(j)) == len(j)
    cosine = np.where(a.sets[:, None] == b.sets[None], a.descriptors @ b.descriptors.T, -2)
    np.testing.assert_allclose(matches.similarity, cosine[i, j], atol=1e-6)
    # Two unit vectors whose entries are off by up to half a step of 1/127 each.
    error = 2.1 * np.sqrt(a.descriptors.shape[1]) / 127
    assert (cosine[i, j] >= cosine[i].max(axis=1, initial=-2) - error).all()
    assert (cosine[i, j] >= cosine[:, j].max(axis=0, initial=-2) - error).all()


@pytest.mark.skipif(
    not has_fast_integers(torch.device('cpu')), reason='this processor has no fast 8-bit products'
)
@pytest.mark.parametrize('weights', sorted(CONFIGS))
def test_rounded_products_match_a_photograph_as_float_products_do(
    weights: str, photo: np.ndarray
) -> None:
    extract = MDNetExtractor(weights, device='cpu')
    height, width = photo.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 8.0, 1.1)
    first, second = extract(photo), extract(cv2.warpAffine(photo, turn, (width, height)))
    exact = {tuple(row) for row in match_mutual_nearest(first, second).indices}
    rounded = {tuple(row) for row in match_mutual_nearest(first, second, exact=False).indices}
    assert len(exact) > 500
    assert len(exact & rounded) > 0.97 * max(len(exact), len(rounded))


def test_batched_core_ignores_invalid_slots() -> None:
    a = torch.eye(3)[None].repeat(2, 1, 1)
    valid = torch.tensor([[True, True, False], [False, False, False]])
    partner, cosine = mutual_nearest(a, valid, a, torch.ones(2, 3, dtype=torch.bool))
    assert partner.tolist() == [[0, 1, -1], [-1, -1, -1]]
    assert cosine[0, :2].tolist() == [1.0, 1.0]
    assert torch.isfinite(cosine).all()


@pytest.mark.parametrize('tile', [1, 60, 1 << 19])
def test_tiles_give_what_the_whole_table_gives(
    tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (
        torch.nn.functional.normalize(torch.randn(3, n, 16, generator=generator), dim=-1)
        for n in (37, 23)
    )
    valid_a, valid_b = (torch.rand(3, n, generator=generator) > 0.2 for n in (37, 23))
    monkeypatch.setattr(matching, '_TILE', tile)
    forward, best, columns = matching._nearest_in_tiles(a, valid_a, b, valid_b)
    whole = matching._nearest(a, valid_a, b, valid_b)
    assert torch.equal(forward[valid_a], whole[0][valid_a])
    torch.testing.assert_close(best[valid_a], whole[1][valid_a])
    torch.testing.assert_close(columns[valid_a], whole[2][valid_a])
    assert bool((best[~valid_a] == whole[1][~valid_a]).all())

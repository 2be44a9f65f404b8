"""Metrics that are watched during training, on photographs and the weights that ship."""

from __future__ import annotations

import pytest
import torch
from skimage import data

from mdnet_ros.features.extractor import MDNetExtractor
from mdnet_ros.features.weights import CONFIGS, load_weights
from mdnet_ros.training.validation import SIDE, overlap, steadiness


def photograph() -> torch.Tensor:
    return torch.from_numpy(data.coins()[:SIDE, :SIDE].copy()) / 255.0


@pytest.mark.parametrize('name', ['md2net', 'md2net-light'])
def test_keypoints_stay_on_their_place(name: str) -> None:
    network, _ = load_weights(name)
    image = photograph()[None, None]
    assert float(steadiness(network, image, torch.float32, shift=0)) == 1.0
    moved_by_one = float(steadiness(network, image, torch.float32))
    # Detectors unfolded from half resolution kept 0.34 and 0.40 of them.
    assert moved_by_one > 0.5


def test_overlap_counts_what_another_set_found_too() -> None:
    keypoints = torch.tensor([
        [[10.0, 10.0], [20.0, 20.0], [20.5, 20.0]],  # two near each other, but of one set
        [[10.6, 10.6], [30.0, 30.0], [20.2, 20.2]],
    ])
    valid = torch.ones(2, 3, dtype=torch.bool)
    assert float(overlap(keypoints, valid)) == pytest.approx(5 / 6)
    valid[1, 2] = False
    assert float(overlap(keypoints, valid)) == pytest.approx(2 / 5)
    assert float(overlap(keypoints[:1], valid[:1])) == 0.0
    assert float(overlap(keypoints, torch.zeros_like(valid))) == 0.0


@pytest.mark.parametrize('name', sorted(CONFIGS))
def test_the_sets_of_the_shipped_weights_complement_each_other(name: str) -> None:
    features = MDNetExtractor(name, 'cpu', 400, precision='fp32')(data.coins())
    tables = [torch.from_numpy(features.keypoints[features.sets == n]) for n in range(2)]
    assert len({len(table) for table in tables}) == 1
    keypoints = torch.stack(tables)
    # Copies of each other, as weights once were, share nine tenths.
    assert float(overlap(keypoints, torch.ones(keypoints.shape[:2], dtype=torch.bool))) < 0.1


def test_nothing_to_find_is_not_steady() -> None:
    network, _ = load_weights('md2net-light')
    # Every peak of a black image lies on the edge's echo or nowhere: a number all the same.
    value = float(steadiness(network, torch.zeros(1, 1, SIDE, SIDE), torch.float32))
    assert 0.0 <= value <= 1.0

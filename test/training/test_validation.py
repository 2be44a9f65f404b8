"""Figures that are watched during training, on photographs and the weights that ship."""

from __future__ import annotations

import pytest
import torch
from skimage import data

from mdnet_ros.features.weights import load_weights
from mdnet_ros.training.validation import SIDE, steadiness


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


def test_nothing_to_find_is_not_steady() -> None:
    network, _ = load_weights('md2net-light')
    # Every peak of a black image lies on the edge's echo or nowhere: a number all the same.
    value = float(steadiness(network, torch.zeros(1, 1, SIDE, SIDE), torch.float32))
    assert 0.0 <= value <= 1.0

"""Each class of pairs changes what its name says, as far as it says; nothing is enlarged."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mdnet_ros.errors import DataError
from mdnet_ros.training.images import ImagePool, NamedImage
from mdnet_ros.training.pair_classes import CLASSES, PairClass, pairs_of
from mdnet_ros.training.views import ViewPair

SIDE = 64
COUNT = 40


@pytest.fixture(scope='module')
def pool() -> ImagePool:
    rng = np.random.default_rng(0)
    return ImagePool([
        NamedImage(str(i), rng.integers(0, 255, (size, size * 4 // 3), np.uint8))
        for i, size in enumerate((70, 130, 200, 300))
    ])


def changes(pair: ViewPair) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale, tilt and angle (degrees) of the map between the views, at their centre."""
    middle = torch.tensor([(SIDE - 1) / 2, (SIDE - 1) / 2, 1.0]).double()
    scales, tilts, angles = [], [], []
    for h in pair.to_second.double():
        place = h @ middle
        jacobian = (h[:2, :2] - torch.outer(place[:2] / place[2], h[2, :2])) / place[2]
        u, s, v = torch.linalg.svd(jacobian)
        scales.append(float((s[0] * s[1]).sqrt()))
        tilts.append(float(s[0] / s[1]))
        turn = u @ v
        angles.append(float(torch.rad2deg(torch.atan2(turn[1, 0], turn[0, 0]))))
    return np.array(scales), np.array(tilts), np.abs(angles)


@pytest.mark.parametrize('kind', CLASSES, ids=[kind.name for kind in CLASSES])
def test_changes_are_those_of_the_class(kind: PairClass, pool: ImagePool) -> None:
    scale, tilt, angle = changes(pairs_of(pool, kind, COUNT, SIDE))
    ratio = np.maximum(scale, 1 / scale)
    slack = 1.25  # corners move a little in every class but light
    assert ratio.min() > kind.scale[0] / slack
    assert ratio.max() < kind.scale[1] * slack
    assert tilt.min() > kind.tilt[0] / slack
    assert tilt.max() < kind.tilt[1] * slack
    # the angle of a slanted view is that of the nearest rotation
    assert angle.min() > kind.rotation[0] - 8
    assert angle.max() < kind.rotation[1] + 8
    if kind.scale[1] > 1.2:
        assert (scale > 1).any()
        assert (scale < 1).any()
        assert ratio.max() > 0.8 * kind.scale[1]
    if kind.rotation[1] > 20:
        assert angle.max() > 0.8 * kind.rotation[1]


def test_light_changes_nothing_but_light(pool: ImagePool) -> None:
    kind = next(kind for kind in CLASSES if kind.light)
    pair = pairs_of(pool, kind, 8, SIDE)
    torch.testing.assert_close(
        pair.to_second / pair.to_second[:, 2:, 2:], torch.eye(3).expand(8, 3, 3), atol=1e-3, rtol=0
    )
    assert (pair.images[:8] - pair.images[8:]).abs().mean() > 0.02
    assert pair.valid.all()


def test_pairs_are_the_same_for_everyone(pool: ImagePool) -> None:
    first, second = (pairs_of(pool, CLASSES[2], 6, SIDE) for _ in range(2))
    assert torch.equal(first.images, second.images)
    other = pairs_of(pool, CLASSES[5], 6, SIDE)
    assert not torch.equal(first.images, other.images)


def test_photographs_too_small_for_a_class_are_left_out() -> None:
    small = ImagePool([NamedImage('small', np.zeros((100, 140), np.uint8))])
    assert len(pairs_of(small, CLASSES[1], 2, SIDE).to_second) == 2
    with pytest.raises(DataError, match=r"pairs 'scale 2-3': .* short side over 128 px"):
        pairs_of(small, CLASSES[3], 2, SIDE)

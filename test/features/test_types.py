"""What Features refuses and promises."""

from __future__ import annotations

import numpy as np
import pytest

from mdnet_ros import Features


def values(**changes: object) -> dict:
    base: dict[str, object] = {
        'keypoints': np.zeros((3, 2), np.float32),
        'scores': np.zeros(3, np.float32),
        'sets': np.zeros(3, np.int32),
        'descriptors': np.zeros((3, 8), np.float32),
        'image_size': (64, 48),
        'num_sets': 2,
    }
    base.update(changes)
    return base


def test_well_formed() -> None:
    assert len(Features(**values())) == 3


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('keypoints', np.zeros((3, 3), np.float32)),
        ('keypoints', np.zeros(3, np.float32)),
        ('scores', np.zeros(2, np.float32)),
        ('sets', np.zeros(4, np.int32)),
        ('sets', np.array([0, 1, 2], np.int32)),
        ('sets', np.array([-1, 0, 1], np.int32)),
        ('descriptors', np.zeros((1, 8), np.float32)),
        ('descriptors', np.zeros(3, np.float32)),
    ],
)
def test_malformed_names_the_field(name: str, value: np.ndarray) -> None:
    with pytest.raises(ValueError, match=name):
        Features(**values(**{name: value}))


def test_empty() -> None:
    none = Features.empty((64, 48), dim=16, num_sets=3)
    assert len(none) == 0
    assert none.keypoints.shape == (0, 2)
    assert none.descriptors.shape == (0, 16)
    assert (none.image_size, none.num_sets) == ((64, 48), 3)


def test_frozen() -> None:
    with pytest.raises(AttributeError):
        Features(**values()).num_sets = 5  # type: ignore[misc]

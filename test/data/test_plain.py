"""Dataclasses become plain values and come back the same; wrong values are named."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pytest

from mdnet_ros.data.plain import from_plain, to_plain
from mdnet_ros.errors import DataError

ItemT = TypeVar('ItemT')


@dataclass(frozen=True)
class Item:
    name: str
    size: tuple[int, float] = (1, 2.0)
    share: float | None = None
    within: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Shelf(Generic[ItemT]):
    items: tuple[ItemT, ...]
    first: ItemT
    open: bool = False


SHELF = Shelf((Item('a', (3, 0.1)), Item('b', share=0.5, within={1: 0.25})), Item('c'), True)


def test_a_generic_dataclass_comes_back_the_same_through_json() -> None:
    plain = json.loads(json.dumps(to_plain(SHELF)))
    assert plain['items'][1]['within'] == {'1': 0.25}
    assert from_plain(Shelf[Item], plain, 'shelf') == SHELF


def test_arrays_and_paths() -> None:
    @dataclass(frozen=True)
    class Track:
        path: Path
        points: np.ndarray

    plain = to_plain(Track(Path('a/b'), np.arange(4.0).reshape(2, 2)))
    assert plain == {'path': 'a/b', 'points': [[0.0, 1.0], [2.0, 3.0]]}
    points = from_plain(np.ndarray, plain['points'], 'points')
    np.testing.assert_array_equal(points, [[0, 1], [2, 3]])
    assert points.dtype == np.float64


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        ([], 'shelf: expected a table of values, got []'),
        ({'items': []}, "shelf: 'first' is missing"),
        ({'items': [], 'first': {'name': 1}}, 'shelf: first: name: expected str, got 1'),
        ({'items': 3, 'first': {'name': 'x'}}, 'shelf: items: expected tuple, got 3'),
        ({'items': [{'name': 'a', 'sise': 1}], 'first': {'name': 'x'}},
         "shelf: items: 0: unknown key 'sise'"),
        ({'items': [], 'first': {'name': 'x', 'size': [1]}}, 'shelf: first: size: expected tuple'),
        ({'items': [], 'first': {'name': 'x', 'size': [True, 1]}}, 'size: 0: expected int'),
        ({'items': [], 'first': {'name': 'x', 'share': 'half'}}, 'share: expected float'),
        ({'items': [], 'first': {'name': 'x', 'share': True}}, 'share: expected float'),
        ({'items': [], 'first': {'name': 'x', 'within': {'a': 1}}}, 'expected int as key'),
        ({'items': [], 'first': {'name': 'x'}, 'open': 1}, 'shelf: open: expected bool, got 1'),
    ],
)  # fmt: skip
def test_wrong_values_are_named(value: Any, message: str) -> None:
    with pytest.raises(DataError) as caught:
        from_plain(Shelf[Item], value, 'shelf')
    assert message in str(caught.value)


@pytest.mark.parametrize('value', ['1e-3', 1e-3, 10**400, 'nan?', [[1, 2], [3]]])
def test_numbers(value: Any) -> None:
    if value in ('1e-3', 1e-3):
        assert from_plain(float, value, 'rate') == 1e-3  # YAML 1.1 reads 1e-3 as text
    else:
        with pytest.raises(DataError, match='rate: expected float'):
            from_plain(float, value, 'rate')
        if isinstance(value, list):
            with pytest.raises(DataError, match='rate: expected ndarray'):
                from_plain(np.ndarray, value, 'rate')

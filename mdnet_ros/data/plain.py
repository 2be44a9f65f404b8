"""Dataclasses as the plain values of a JSON or YAML file, and back.

>>> to_plain(Settings(max_keypoints=300))
{'max_keypoints': 300}
>>> from_plain(Settings, {'max_keypoints': 300}, 'settings')
Settings(max_keypoints=300)
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import numpy as np
import yaml

from mdnet_ros.errors import DataError


def parse_yaml(text: str, where: str) -> Any:
    """Read plain values from the text of a YAML file or of a command line.

    Raises:
        DataError: it is not YAML; one line that begins with ``where``.
    """
    try:
        return yaml.safe_load(text)
    except Exception as error:  # of many kinds: dates that do not exist, lists 1000 deep
        reason = ' '.join(str(error).split())[:160] or type(error).__name__
        raise DataError(f'{where}: not readable YAML: {reason}') from None


def to_plain(value: Any) -> Any:
    """Turn dataclasses, mappings, tuples, arrays and paths into dicts, lists, numbers and text.

    Keys become text, as JSON wants them; :func:`from_plain` turns them back.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(entry) for entry in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value) if isinstance(value, Path) else value


def from_plain(kind: Any, value: Any, where: str) -> Any:
    """Build a value of a type from plain values.

    Args:
        kind: a dataclass (its fields with a default may be left out), ``X | None``,
            ``tuple[X, ...]``, ``tuple[X, Y]``, ``dict[K, X]``, ``np.ndarray`` (of float64),
            ``float``, ``int``, ``str`` or ``bool``.
        value: value of a parsed JSON or YAML file.
        where: what the error names, such as ``config 'a.yaml'``.

    Raises:
        DataError: a key is unknown or missing, or a value has the wrong type.
    """
    origin = get_origin(kind)
    if is_dataclass(origin or kind):
        return _dataclass_from_plain(kind, value, where)
    if origin in (Union, types.UnionType):
        (inner,) = (part for part in get_args(kind) if part is not type(None))
        return None if value is None else from_plain(inner, value, where)
    if origin is tuple and isinstance(value, list | tuple):
        inner_kinds = get_args(kind)
        if inner_kinds[-1] is Ellipsis:
            inner_kinds = inner_kinds[:1] * len(value)
        if len(inner_kinds) == len(value):
            return tuple(
                from_plain(inner, entry, f'{where}: {i}')
                for i, (inner, entry) in enumerate(zip(inner_kinds, value, strict=True))
            )
    elif origin is dict and isinstance(value, dict):
        key_kind, inner = get_args(kind)
        return {
            _key(key_kind, key, where): from_plain(inner, entry, f'{where}: {key}')
            for key, entry in value.items()
        }
    elif kind is np.ndarray:
        try:
            return np.array(value, np.float64)
        except (TypeError, ValueError, OverflowError):
            pass
    elif kind is float and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML 1.1 reads 1e-3 as text
        except (ValueError, OverflowError):
            pass
    elif isinstance(kind, type) and isinstance(value, kind) and not (
        kind is int and isinstance(value, bool)
    ):
        return value
    raise DataError(f'{where}: expected {getattr(kind, "__name__", kind)}, got {value!r}')


def _key(kind: type, key: Any, where: str) -> Any:
    try:
        return kind(key)
    except (TypeError, ValueError):
        raise DataError(f'{where}: expected {kind.__name__} as key, got {key!r}') from None


def _dataclass_from_plain(kind: Any, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise DataError(f'{where}: expected a table of values, got {values!r}')
    cls = get_origin(kind) or kind
    unknown = sorted(set(map(str, values)) - {field.name for field in fields(cls)})
    if unknown:
        known = sorted(field.name for field in fields(cls))
        raise DataError(f'{where}: unknown key {unknown[0]!r}; known: {known}')
    required = (f.name for f in fields(cls) if f.default is f.default_factory is MISSING)
    missing = [name for name in required if name not in values]
    if missing:
        raise DataError(f'{where}: {missing[0]!r} is missing')
    # A generic dataclass such as Result[Settings]: its parameters stand for these types.
    types_of = dict(zip(getattr(cls, '__parameters__', ()), get_args(kind), strict=True))
    hints = typing.get_type_hints(cls)
    return cls(**{
        name: from_plain(_resolve(hints[name], types_of), value, f'{where}: {name}')
        for name, value in values.items()
    })


def _resolve(hint: Any, types_of: dict[Any, Any]) -> Any:
    """Put types in the place of a hint's type variables."""
    if isinstance(hint, TypeVar):
        return types_of[hint]
    parameters = getattr(hint, '__parameters__', ())
    return hint[tuple(types_of[p] for p in parameters)] if parameters else hint

"""Read NumPy's files so that every damage is one error."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from mdnet_ros.errors import DataError


def read_npy(path: Path) -> np.ndarray:
    """Read the array in an ``.npy`` file.

    Raises:
        DataError: the file is missing, damaged, or not of one array.
    """
    found = _load(path)
    if isinstance(found, dict):
        raise DataError(f"'{path}': expected an npy file of one array, got an npz file")
    return found


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays in an ``.npz`` file, by name.

    Raises:
        DataError: the file is missing, damaged, or not of named arrays.
    """
    found = _load(path)
    if not isinstance(found, dict):
        raise DataError(f"'{path}': expected an npz file of named arrays, got one array")
    return found


def _load(path: Path) -> Any:
    """Read an array or a dict of arrays; objects, which could run code, are refused."""
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return _checked(found)
        with found:
            return {name: _checked(np.asarray(found[name])) for name in found.files}
    except OSError as error:
        raise DataError(f"'{path}': cannot be read: {error.strerror or error}") from None
    except Exception as error:  # of zipfile, zlib, tokenize and NumPy: many, and no family
        reason = ' '.join(str(error).split())[:160] or type(error).__name__
        raise DataError(f"'{path}': not a readable NumPy file: {reason}") from None


def _checked(array: np.ndarray) -> np.ndarray:
    """Refuse text with code points that do not exist: Python fails wherever it is used."""
    if array.dtype.kind == 'U' and array.dtype.itemsize and array.size:
        native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder('=')))
        if native.view(np.uint32).max() > sys.maxunicode:
            raise ValueError('expected text, got numbers that are no characters')
    return array

"""Open h5 files so that every damage is one error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mdnet_ros.errors import DataError, MDNetError, MissingDependencyError


@contextmanager
def open_h5(path: Path) -> Iterator[Any]:
    """Open an h5 file for reading, and read it within the block.

    Args:
        path: path of the file.

    Raises:
        DataError: if the file, or what is read from it, is missing or damaged: h5py raises errors
            of many kinds, wherever a damaged place is met.
        MissingDependencyError: if ``h5py`` is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise MissingDependencyError('h5py', 'evaluate', 'reading h5 files') from None
    try:
        with h5py.File(path, 'r') as file:
            yield file
    except MDNetError:
        raise
    except (
        OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError, MemoryError,
        UnicodeError, OverflowError,
    ) as error:
        reason = ' '.join(str(error).split())[:160] or type(error).__name__
        raise DataError(f"'{path}': not a readable h5 file: {reason}") from None

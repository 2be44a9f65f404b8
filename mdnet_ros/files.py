"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mdnet_ros.errors import DataError


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whose name appears once it is complete and on disk.

    Raises:
        DataError: that cannot be.
    """
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open('wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # robots are switched off without warning
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"output '{path}': {error.strerror}") from None
    finally:
        if temporary.exists():
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as :func:`write_bytes` does."""
    write_bytes(path, text.encode())


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON document as :func:`write_text` does; numbers must be finite."""
    write_text(path, json.dumps(document, indent=1, allow_nan=False) + '\n')


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill; it gets its name when the block ends without an error, else it is removed.

    Raises:
        DataError: if something is there already, or it cannot be written.
    """
    if path.exists():
        raise DataError(f"output '{path}': is there already, expected nothing")
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"output '{path}': {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

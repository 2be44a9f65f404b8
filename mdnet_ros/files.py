"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mdnet_ros.errors import DataError


def write_text(path: Path, text: str) -> None:
    """Write a file whose name appears once it is complete; DataError if that cannot be."""
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding='utf-8')
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"output '{path}': {error.strerror}") from None
    finally:
        if temporary.exists():
            temporary.unlink()


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON document as :func:`write_text` does; numbers must be finite."""
    write_text(path, json.dumps(document, indent=1, allow_nan=False) + '\n')

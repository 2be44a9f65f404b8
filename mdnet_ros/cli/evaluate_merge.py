"""``mdnet evaluate merge``: the JSON files of shards, joined exactly."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

from mdnet_ros.cli.evaluate import PROTOCOLS
from mdnet_ros.cli.evaluate_common import Merged, add_file_arguments, write_files
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.reports.page import print_parts
from mdnet_ros.evaluation.reports.provenance import provenances_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('inputs', type=Path, nargs='+', metavar='JSON', help='of one protocol')
    add_file_arguments(parser, json_required=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise DataError(f"results '{path}': cannot be read: {error}") from None
    if not isinstance(document, dict) or document.get('protocol') not in PROTOCOLS:
        raise DataError(f"results '{path}': expected the JSON of mdnet evaluate")
    return document


def run(args: argparse.Namespace) -> int:
    """Read, join, show and write."""
    documents = [_read(path) for path in args.inputs]
    protocols = sorted({document['protocol'] for document in documents})
    if len(protocols) > 1:
        raise DataError(f'results: expected one protocol, got {", ".join(protocols)}')
    module = importlib.import_module(
        f'mdnet_ros.cli.evaluate_{protocols[0].replace("-", "_")}'
    )
    merged: Merged = module.merge(documents)
    print_parts(merged.parts)
    sources = [source.to_json() for d in documents for source in provenances_of(d)]
    document = {**merged.document, 'provenance': sources}
    write_files(args, document, merged.parts, merged.write_page)
    return 0

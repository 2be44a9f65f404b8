"""``mdnet evaluate merge``: join the JSON files of shards exactly."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from mdnet_ros.cli.evaluate_common import add_file_arguments, read_document, show_and_write
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.reports.provenance import provenances_of
from mdnet_ros.evaluation.reports.results import ReportFormat, merge


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('inputs', type=Path, nargs='+', metavar='JSON',
                        help='files of one protocol')
    add_file_arguments(parser, json_required=True)


def run(args: argparse.Namespace) -> int:
    """Read the files, join them, show the result and write it; the page has no pictures."""
    documents = [(f"results '{path}'", read_document(path)) for path in args.inputs]
    names = sorted({document['protocol'] for _, document in documents})
    if len(names) > 1:
        raise DataError(f'results: expected one protocol, got {", ".join(names)}')
    module = importlib.import_module(f'mdnet_ros.evaluation.{names[0].replace("-", "_")}.report')
    report_format: ReportFormat = module.REPORT_FORMAT
    result = merge([report_format.from_json(document, where) for where, document in documents])
    sources = [s for where, document in documents for s in provenances_of(document, where)]
    published = any('published' in document for _, document in documents)
    show_and_write(args, report_format, result, sources, published)
    return 0

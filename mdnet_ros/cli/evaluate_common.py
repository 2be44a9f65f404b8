"""Arguments and outputs that the protocols of ``mdnet evaluate`` share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mdnet_ros.baselines.registry import ExtractorSpec, extractor_names
from mdnet_ros.cli.evaluate import PROTOCOLS
from mdnet_ros.data.plain import to_plain
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.extraction import MeasuredData, default_cache
from mdnet_ros.evaluation.reports.provenance import Provenance, provenance
from mdnet_ros.evaluation.reports.results import EvaluationResult, ReportFormat
from mdnet_ros.evaluation.reports.tables import markdown_of, print_sections, text_of
from mdnet_ros.files import write_json, write_text


def add_extractor_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that choose extractors."""
    parser.add_argument(
        '--extractors', default='md2net', metavar='A,B,…',
        help=f'which to measure: {", ".join(extractor_names())}, .safetensors paths, '
        'precomputed:PATH',
    )
    parser.add_argument('--max-keypoints', type=int, default=2048, help='keypoints per image')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument('--weights-dir', type=Path, help="folder with weights of baselines")
    parser.add_argument('--cache', type=Path, default=default_cache(), help='folder for features')
    parser.add_argument(
        '--no-cache', dest='cache', action='store_const', const=None, help='extract afresh'
    )


def add_output_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """Declare the arguments that choose a part of the data and where results are written.

    Args:
        parser: parser to add them to.
        what: what the parts consist of, such as ``sequences``.
    """
    parser.add_argument('--shard', type=parse_shard, default=(1, 1), metavar='i/n',
                        help=f'only the i-th of n parts of the {what}')
    add_file_arguments(parser)
    parser.add_argument('--remark', default='', metavar='TEXT',
                        help='a line for the head of --text, such as what else the machine did')


def add_file_arguments(parser: argparse.ArgumentParser, json_required: bool = False) -> None:
    """Declare the arguments that say where results are written."""
    parser.add_argument('--json', type=Path, required=json_required,
                        help='write the results to this file')
    parser.add_argument('--html', type=Path, help='write the report to this file')
    parser.add_argument('--text', type=Path, help='write the tables to this file, with the '
                        'command, the date, the machine, versions and hashes of weights; as '
                        'Markdown where the name ends with .md')


def parse_shard(text: str) -> tuple[int, int]:
    """Parse ``i/n`` with 1 ≤ i ≤ n."""
    index, _, count = text.partition('/')
    if index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count):
        return int(index), int(count)
    raise argparse.ArgumentTypeError(f"'{text}': expected i/n with 1 ≤ i ≤ n")


def show_and_write(
    args: argparse.Namespace,
    report_format: ReportFormat,
    result: EvaluationResult[Any, Any],
    sources: Sequence[Provenance],
    published: bool = False,
    data: MeasuredData | None = None,
) -> None:
    """Show a result in the terminal and write the files that were asked for.

    Args:
        args: parsed arguments, with those of :func:`add_file_arguments`.
        report_format: how results of this kind are shown and written.
        result: result to show.
        sources: how its runs came to their results.
        published: show published results beside.
        data: data set and extractors, for pictures of the HTML report; None: no pictures.

    Raises:
        DataError: a file cannot be written.
    """
    sections = report_format.sections(result, published)
    print_sections(sections)
    if args.json:
        document = report_format.to_json(result, published)
        write_json(args.json, {**document, 'provenance': to_plain(sources)})
    if args.text:
        markdown = args.text.suffix == '.md'
        # Lines that several runs share are shown once.
        lines = list(dict.fromkeys(line for source in sources for line in source.lines()))
        head = [line if line.startswith('$') else f'# {line}' for line in lines]
        head = ['```', *head, '```'] if markdown else head
        body = markdown_of(sections) if markdown else text_of(sections)
        write_text(args.text, '\n'.join([*head, '', body]))
    if args.html:
        report_format.page(result, published, data).write(args.html)


def own_provenance(
    args: argparse.Namespace, specs: Iterable[ExtractorSpec]
) -> list[Provenance]:
    """Provenance of the command that is running.

    Args:
        args: parsed arguments, with those of :func:`add_output_arguments` and the words of the
            command line.
        specs: the extractors that were measured.

    Raises:
        WeightsError: weights are missing.
    """
    return [provenance(args.words, specs, args.remark)]


def read_document(path: Path) -> dict[str, Any]:
    """Read a JSON file of ``mdnet evaluate``; its ``protocol`` is one of them.

    Raises:
        DataError: it cannot be read, or is not such a file.
    """
    try:
        document = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"results '{path}': cannot be read: {error}") from None
    name = document.get('protocol') if isinstance(document, dict) else None
    if not isinstance(name, str) or name not in PROTOCOLS:
        raise DataError(f"results '{path}': expected the JSON of mdnet evaluate")
    return document

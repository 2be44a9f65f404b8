"""What the protocols of ``mdnet evaluate`` share: arguments and outputs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdnet_ros.baselines.registry import ExtractorSpec, extractor_names
from mdnet_ros.evaluation.extraction import default_cache
from mdnet_ros.evaluation.reports.page import Part, print_parts, text_of
from mdnet_ros.evaluation.reports.provenance import Provenance, provenance, provenances_of
from mdnet_ros.files import write_json, write_text


@dataclass(frozen=True)
class Merged:
    """Shards joined.

    Attributes:
        document: the results as JSON, without their provenance.
        parts: tables and lines for the terminal.
        write_page: writes the HTML report.
    """

    document: dict[str, Any]
    parts: list[Part]
    write_page: Callable[[Path], None]


def add_extractor_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that choose extractors; every protocol has them."""
    parser.add_argument(
        '--extractors', default='md2net', metavar='A,B,…',
        help=f'of {", ".join(extractor_names())}, .safetensors paths, precomputed:PATH',
    )
    parser.add_argument('--max-keypoints', type=int, default=2048, help='of one image')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument('--weights-dir', type=Path, help="folder with peers' weights")
    parser.add_argument('--cache', type=Path, default=default_cache(), help='folder for features')
    parser.add_argument(
        '--no-cache', dest='cache', action='store_const', const=None, help='extract afresh'
    )


def add_output_arguments(parser: argparse.ArgumentParser, what: str) -> None:
    """The arguments that say where results go, and of which part.

    Args:
        parser: to add them to.
        what: is shared out among shards, such as ``sequences``.
    """
    parser.add_argument('--shard', type=parse_shard, default=(1, 1), metavar='i/n',
                        help=f'only the i-th of n parts of the {what}')
    add_file_arguments(parser)
    parser.add_argument('--remark', default='', metavar='TEXT',
                        help='a line for the head of --text, such as what else the machine did')


def add_file_arguments(parser: argparse.ArgumentParser, json_required: bool = False) -> None:
    """Where results are written."""
    parser.add_argument('--json', type=Path, required=json_required,
                        help='write the figures to this file')
    parser.add_argument('--html', type=Path, help='write the report to this file')
    parser.add_argument('--text', type=Path, help='write the tables to this file, with the '
                        'command, the date, the machine, versions and hashes of weights')


def parse_shard(text: str) -> tuple[int, int]:
    """``i/n`` as numbers, 1 ≤ i ≤ n."""
    index, _, count = text.partition('/')
    if index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count):
        return int(index), int(count)
    raise argparse.ArgumentTypeError(f"'{text}': expected i/n with 1 ≤ i ≤ n")


def put_out(
    args: argparse.Namespace,
    document: dict[str, Any],
    parts: Sequence[Part],
    specs: Iterable[ExtractorSpec],
    write_page: Callable[[Path], None],
) -> None:
    """Show a run's results and write the files that were asked for.

    Args:
        args: with those of :func:`add_output_arguments`, and the words of the command.
        document: the results as JSON; their provenance is added.
        parts: tables and lines.
        specs: the extractors.
        write_page: writes the HTML report.

    Raises:
        DataError: a file cannot be written.
    """
    print_parts(parts)
    source = provenance(args.words, specs, args.remark)
    write_files(args, {**document, 'provenance': [source.to_json()]}, parts, write_page)


def write_files(
    args: argparse.Namespace,
    document: dict[str, Any],
    parts: Sequence[Part],
    write_page: Callable[[Path], None],
) -> None:
    """Write the files of :func:`add_file_arguments`, as :func:`put_out` does."""
    if args.json:
        write_json(args.json, document)
    if args.text:
        write_text(args.text, _head(provenances_of(document)) + text_of(parts))
    if args.html:
        write_page(args.html)


def _head(sources: Sequence[Provenance]) -> str:
    """Of a text file; lines that several runs share are shown once."""
    lines = dict.fromkeys(line for source in sources for line in source.lines())
    shown = (line if line.startswith('$') else f'# {line}' for line in lines)
    return '\n'.join([*shown, '', ''])

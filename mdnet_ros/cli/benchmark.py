"""``mdnet benchmark``: time extraction, matching and tracking."""

from __future__ import annotations

import argparse
from pathlib import Path

from mdnet_ros.cli.export import parse_size
from mdnet_ros.evaluation.benchmark.protocol import (
    Benchmark,
    BenchmarkResult,
    BenchmarkSettings,
    ExtractorRow,
    MatchingRow,
)
from mdnet_ros.evaluation.reports.tables import Column, Section, Table, print_sections
from mdnet_ros.files import write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument(
        '--sizes', type=parse_sizes, default='640x480', metavar='WxH,…',
        help='sizes of the images, px',
    )
    parser.add_argument(
        '--keypoints', type=parse_numbers, default='2048', metavar='N,…',
        help='keypoints per image',
    )
    parser.add_argument(
        '--matching', type=parse_numbers, default='2048,8192', metavar='N,…',
        help='descriptors in each image where only matching is measured',
    )
    parser.add_argument(
        '--sets', type=parse_numbers, default='1,2,4,8', metavar='K,…',
        help='numbers of keypoint sets to match within',
    )
    parser.add_argument(
        '--extractors', type=_names, default='md2net,md2net-light,sift,orb,klt', metavar='A,B,…',
        help='names or paths as for mdnet evaluate, and klt; ratios refer to the first',
    )
    parser.add_argument(
        '--repetitions', type=_number, default=50, metavar='N',
        help='repetitions of each measurement',
    )
    parser.add_argument('--weights-dir', type=Path, help="folder with weights of baselines")
    parser.add_argument('--json', type=Path, help='write the results to this file')


def _number(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}': expected a number above 0")


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(',') if part.strip()))
    if names:
        return names
    raise argparse.ArgumentTypeError('expected at least one name')


def parse_numbers(text: str) -> tuple[int, ...]:
    """Read numbers above 0 that are separated by commas."""
    return tuple(_number(part) for part in _names(text))


def parse_sizes(text: str) -> tuple[tuple[int, int], ...]:
    """Read sizes like 640x480 that are separated by commas."""
    return tuple(parse_size(part) for part in _names(text))


def run(args: argparse.Namespace) -> int:
    """Run the benchmark, show its tables and write them."""
    settings = BenchmarkSettings(
        args.extractors, args.sizes, args.keypoints, args.matching, args.sets, args.device,
        args.repetitions, args.weights_dir,
    )
    result = Benchmark(settings).run()
    print_sections(_sections(result))
    if args.json:
        write_json(args.json, result.to_json())
    return 0


def _sections(result: BenchmarkResult) -> list[Section]:
    columns = ('extractor', 'size', 'keypoints', 'found', 'precision')
    extraction = Table(
        (*map(Column, columns), Column('network ms', 2), Column('extract ms', 2),
         Column('p99', 2), Column('bound ms', 3),
         Column('x bound', 1), Column('step ms', 2, best='min'), Column('p99', 2),
         Column('x network', 2),
         Column('frames/s', 1), Column('x first', 2), Column('peak MB', 0)),
        tuple(map(_extractor_cells, result.extractors)),
        f'{result.device}, {result.threads} threads: extraction and the whole tracker step',
    )  # fmt: skip
    matching = Table(
        (Column('keypoints'), Column('sets'), Column('products'), Column('ms', 3), Column('p99', 3),
         Column('bound ms', 3), Column('x bound', 1), Column('x one set', 3),
         Column('MB', 1)),
        tuple(map(_matching_cells, result.matching)),
        'Matching within sets',
    )  # fmt: skip
    omitted = (f'left out: {name}: {why}' for name, why in result.unavailable.items())
    return [extraction, matching, *omitted]


def _extractor_cells(row: ExtractorRow) -> tuple[object, ...]:
    extraction = row.extraction
    return (
        row.name, f'{row.size[0]}x{row.size[1]}', row.keypoints, row.found, row.precision,
        row.network.median_ms if row.network else None,
        extraction.median_ms if extraction else None, extraction.p99_ms if extraction else None,
        row.floor_ms, row.floor_ratio, row.step.median_ms, row.step.p99_ms,
        row.network_ratio, row.fps,
        row.step_ratio, row.memory_mb,
    )  # fmt: skip


def _matching_cells(row: MatchingRow) -> tuple[object, ...]:
    return (
        row.keypoints, row.sets, row.products, row.timing.median_ms, row.timing.p99_ms,
        row.floor_ms, row.floor_ratio, row.one_set_ratio, row.memory_mb,
    )

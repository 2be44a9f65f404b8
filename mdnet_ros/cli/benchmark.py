"""``mdnet benchmark``: time extraction, matching and tracking."""

from __future__ import annotations

import argparse
from pathlib import Path

from mdnet_ros.cli.export import parse_size
from mdnet_ros.evaluation.benchmark.protocol import (
    Benchmark,
    BenchmarkSettings,
)
from mdnet_ros.evaluation.benchmark.report import benchmark_sections
from mdnet_ros.evaluation.reports.tables import print_sections
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
    print_sections(benchmark_sections(result))
    if args.json:
        write_json(args.json, result.to_json())
    return 0

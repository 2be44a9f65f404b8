"""``mdnet evaluate homography``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mdnet_ros.baselines.registry import extractor_names, parse_extractors
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.cache import default_cache
from mdnet_ros.evaluation.homography import HomographyResult, HomographySettings, evaluate
from mdnet_ros.evaluation.homography_json import from_json, to_json
from mdnet_ros.evaluation.homography_json import merge as merge_results
from mdnet_ros.evaluation.homography_report import print_result, write_page
from mdnet_ros.files import write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('--root', type=Path, required=True, help='folder of v_* and i_* sequences')
    add_extractor_arguments(parser)
    parser.add_argument(
        '--max-side', type=int, default=0, help='shrink images to this longer side, px (0: native)'
    )
    parser.add_argument(
        '--all-sequences', action='store_true',
        help='also the eight large ones that the usual protocol leaves out',
    )
    parser.add_argument(
        '--across-sets', action='store_true', help='match all keypoint sets with each other'
    )
    parser.add_argument('--published', action='store_true', help='show published figures beside')
    parser.add_argument('--shard', type=parse_shard, default=(1, 1), metavar='i/n',
                        help='only the i-th of n parts of the sequences')
    parser.add_argument('--json', type=Path, help='write the figures to this file')
    parser.add_argument('--html', type=Path, help='write the report to this file')


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


def parse_shard(text: str) -> tuple[int, int]:
    """``i/n`` as numbers, 1 ≤ i ≤ n."""
    index, _, count = text.partition('/')
    if index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count):
        return int(index), int(count)
    raise argparse.ArgumentTypeError(f"'{text}': expected i/n with 1 ≤ i ≤ n")


def run(args: argparse.Namespace) -> int:
    """Measure, show and write."""
    specs = parse_extractors(args.extractors, args.max_keypoints, args.device, args.weights_dir)
    if args.max_side < 0:
        raise DataError(f'--max-side: expected 0 or more, got {args.max_side}')
    settings = HomographySettings(
        args.max_keypoints, args.max_side, args.all_sequences, args.across_sets
    )
    result = evaluate(args.root, specs, settings, args.cache, args.shard)
    _show(result, args.published, args.json)
    if args.html:
        write_page(args.html, result, args.root, specs, args.cache, args.published)
    return 0


def _show(result: HomographyResult, published: bool, json: Path | None) -> None:
    print_result(result, published)
    if json:
        write_json(json, to_json(result, published))


def merge(documents: list[dict[str, Any]], html: Path | None) -> dict[str, Any]:
    """Join shards, show the tables, write the report (without pictures) if asked to.

    Raises:
        DataError: they do not belong together.
    """
    result = merge_results([from_json(document) for document in documents])
    published = any('published' in document for document in documents)
    print_result(result, published)
    if html:
        write_page(html, result, published=published)
    return to_json(result, published)

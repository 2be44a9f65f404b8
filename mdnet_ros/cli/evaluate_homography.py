"""``mdnet evaluate homography``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mdnet_ros.baselines.registry import parse_extractors
from mdnet_ros.cli.evaluate_common import (
    Merged,
    add_extractor_arguments,
    add_output_arguments,
    put_out,
)
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.homography.protocol import HomographySettings, evaluate
from mdnet_ros.evaluation.homography.report import result_parts, write_page
from mdnet_ros.evaluation.homography.results import from_json, to_json
from mdnet_ros.evaluation.homography.results import merge as merge_results


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
    parser.add_argument(
        '--rounded', action='store_true',
        help='compare descriptors in 8 bits where the processor does that faster, as the tracker '
        'does, instead of in float32',
    )
    parser.add_argument('--published', action='store_true', help='show published figures beside')
    add_output_arguments(parser, 'sequences')


def run(args: argparse.Namespace) -> int:
    """Measure, show and write."""
    specs = parse_extractors(args.extractors, args.max_keypoints, args.device, args.weights_dir)
    if args.max_side < 0:
        raise DataError(f'--max-side: expected 0 or more, got {args.max_side}')
    settings = HomographySettings(
        args.max_keypoints, args.max_side, args.all_sequences, args.across_sets,
        exact=not args.rounded,
    )
    result = evaluate(args.root, specs, settings, args.cache, args.shard)
    put_out(
        args,
        to_json(result, args.published),
        result_parts(result, args.published),
        specs,
        lambda path: write_page(path, result, args.root, specs, args.cache, args.published),
    )
    return 0


def merge(documents: list[dict[str, Any]]) -> Merged:
    """Join shards; the report has no pictures.

    Raises:
        DataError: they do not belong together.
    """
    result = merge_results([from_json(document) for document in documents])
    published = any('published' in document for document in documents)
    return Merged(
        to_json(result, published),
        result_parts(result, published),
        lambda path: write_page(path, result, published=published),
    )

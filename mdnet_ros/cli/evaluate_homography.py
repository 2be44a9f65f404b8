"""``mdnet evaluate homography``: matching accuracy on data sets in the HPatches layout."""

from __future__ import annotations

import argparse
from pathlib import Path

from mdnet_ros.baselines.registry import parse_extractors
from mdnet_ros.cli.evaluate_common import (
    add_extractor_arguments,
    add_output_arguments,
    own_provenance,
    show_and_write,
)
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.extraction import MeasuredData
from mdnet_ros.evaluation.homography.protocol import evaluate
from mdnet_ros.evaluation.homography.report import REPORT_FORMAT
from mdnet_ros.evaluation.homography.results import HomographySettings


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
    parser.add_argument('--published', action='store_true', help='show published results beside')
    add_output_arguments(parser, 'sequences')


def run(args: argparse.Namespace) -> int:
    """Run the protocol, show its tables and write its files."""
    specs = parse_extractors(args.extractors, args.max_keypoints, args.device, args.weights_dir)
    if args.max_side < 0:
        raise DataError(f'--max-side: expected 0 or more, got {args.max_side}')
    settings = HomographySettings(
        args.max_keypoints, args.max_side, args.all_sequences, args.across_sets,
        exact=not args.rounded,
    )
    result = evaluate(args.root, specs, settings, args.cache, args.shard)
    show_and_write(
        args, REPORT_FORMAT, result, own_provenance(args, specs), args.published,
        MeasuredData(args.root, specs, args.cache),
    )
    return 0

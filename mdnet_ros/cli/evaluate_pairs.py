"""``mdnet evaluate pairs``."""

from __future__ import annotations

import argparse
from pathlib import Path

from mdnet_ros.baselines.registry import extractor_names, parse_extractors
from mdnet_ros.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('--images', nargs='+', required=True, metavar='PATH',
                        help='folders or tar packs of large photographs')
    parser.add_argument('--held-back', type=float, default=0.03, metavar='SHARE',
                        help='use only the share that mdnet train holds back; 1: all')
    parser.add_argument('--extractors', default='md2net', metavar='A,B,…',
                        help=f'which to measure: {", ".join(extractor_names())}, '
                        '.safetensors paths')
    parser.add_argument('--max-keypoints', type=int, default=0,
                        help='keypoints per view (0: the density of 2048 in 640x480)')
    parser.add_argument('--pairs', type=int, default=24, help='pairs of each class')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument('--weights-dir', type=Path, help="folder with weights of baselines")
    parser.add_argument('--json', type=Path, help='write the results to this file')


def run(args: argparse.Namespace) -> int:
    """Measure, show and write."""
    from mdnet_ros.data.plain import to_plain
    from mdnet_ros.evaluation.homography.rendered import (
        default_keypoints,
        measure,
        tables,
    )
    from mdnet_ros.evaluation.reports.provenance import provenance
    from mdnet_ros.evaluation.reports.tables import print_sections
    from mdnet_ros.files import write_json
    from mdnet_ros.training.images import ImagePool, is_held_back, read_images
    from mdnet_ros.training.pair_classes import CLASSES

    if not 0 < args.held_back <= 1:
        raise DataError(f'held-back: expected a share over 0 up to 1, got {args.held_back}')
    if args.pairs < 1:
        raise DataError(f'pairs: expected at least 1, got {args.pairs}')
    keypoints = args.max_keypoints or default_keypoints()
    specs = parse_extractors(args.extractors, keypoints, args.device, args.weights_dir)
    pool = ImagePool(
        image for path in args.images
        for image in read_images(path, wanted=lambda name: is_held_back(name, args.held_back))
    )
    metrics = measure(pool, specs, args.pairs, CLASSES)
    print_sections(tables(metrics))
    if args.json:
        write_json(args.json, {
            'protocol': 'pairs', 'photographs': len(pool), 'max_keypoints': keypoints,
            'figures': to_plain(metrics),
            'provenance': to_plain([provenance(args.words, specs, '')]),
        })
    return 0

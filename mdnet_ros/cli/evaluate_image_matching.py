"""``mdnet evaluate image-matching``: pose accuracy in the Image Matching Benchmark."""

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
from mdnet_ros.evaluation.image_matching.protocol import evaluate
from mdnet_ros.evaluation.image_matching.report import REPORT_FORMAT
from mdnet_ros.evaluation.image_matching.results import ImageMatchingSettings
from mdnet_ros.evaluation.image_matching.scene import SUBSET_SIZES, SceneSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    scene = SceneSettings()
    parser.add_argument('--root', type=Path, required=True, help='folder of SCENE/set_100, or one')
    add_extractor_arguments(parser)
    parser.add_argument('--validation-scene', metavar='SCENE',
                        help="choose each extractor's inlier threshold here; not measured then")
    parser.add_argument('--threshold', type=float, default=1.0,
                        help='inlier threshold without a validation scene, px (default: 1)')
    parser.add_argument('--ratio', default='1', metavar='R',
                        help='ratio test in both directions; 1: none, auto: by validation scene')
    parser.add_argument('--max-pairs', type=int, default=scene.max_pairs,
                        help='pairs of each scene, drawn at random (0: all)')
    parser.add_argument('--max-angle', type=float, default=scene.max_angle,
                        help='without a visibility file, pairs up to this angle, degrees')
    parser.add_argument('--bag-sizes', type=_sizes, default=SUBSET_SIZES, metavar='N,N,…',
                        help='sizes of the subsets to reconstruct (default: 5,10,25,100)')
    parser.add_argument('--bags', type=int, default=scene.subsets_per_size,
                        help='subsets of each size, at most (default: 5)')
    parser.add_argument('--no-multiview', action='store_true', help='stereo only')
    parser.add_argument('--known-intrinsics', action='store_true',
                        help='give COLMAP the calibration; the benchmark does not')
    parser.add_argument('--seed', type=int, default=0, help='seed of every random choice')
    parser.add_argument('--pose-seeds', type=int, default=5, metavar='N',
                        help='seeds of the robust pose, whose accuracies are averaged (default: 5)')
    parser.add_argument('--published', action='store_true', help='show published results beside')
    add_output_arguments(parser, 'scenes')


def _sizes(text: str) -> tuple[int, ...]:
    parts = text.split(',')
    if all(part.strip().isdecimal() and int(part) >= 3 for part in parts):
        return tuple(int(part) for part in parts)
    raise argparse.ArgumentTypeError(f"'{text}': expected numbers of at least 3, as in 5,10")


def _ratio(text: str) -> float | None:
    if text == 'auto':
        return None
    try:
        ratio = float(text)
    except ValueError:
        ratio = 0.0
    if 0.0 < ratio <= 1.0:
        return ratio
    raise DataError(f"--ratio: expected a number over 0 and up to 1, or auto, got '{text}'")


def run(args: argparse.Namespace) -> int:
    """Run the protocol, show its tables and write its files."""
    specs = parse_extractors(args.extractors, args.max_keypoints, args.device, args.weights_dir)
    if not args.threshold > 0:
        raise DataError(f'--threshold: expected more than 0, got {args.threshold}')
    if args.pose_seeds < 1:
        raise DataError(f'--pose-seeds: expected at least 1, got {args.pose_seeds}')
    settings = ImageMatchingSettings(
        max_keypoints=args.max_keypoints,
        scene=SceneSettings(
            args.max_pairs, args.max_angle, args.bag_sizes, args.bags, args.seed
        ),
        threshold=args.threshold,
        ratio=_ratio(args.ratio),
        validation_scene=args.validation_scene,
        multiview=not args.no_multiview,
        known_intrinsics=args.known_intrinsics,
        pose_seeds=args.pose_seeds,
    )
    result = evaluate(args.root, specs, settings, args.cache, args.shard)
    show_and_write(
        args, REPORT_FORMAT, result, own_provenance(args, specs), args.published,
        MeasuredData(args.root, specs, args.cache),
    )
    return 0

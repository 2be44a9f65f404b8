"""``mdnet evaluate replay``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mdnet_ros.cli.evaluate_homography import add_extractor_arguments, parse_shard
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.frontend import frontend_specs
from mdnet_ros.evaluation.replay import ReplaySettings, evaluate
from mdnet_ros.evaluation.replay_json import from_json, to_json
from mdnet_ros.evaluation.replay_json import merge as merge_results
from mdnet_ros.evaluation.replay_report import print_result, write_page
from mdnet_ros.evaluation.report import write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('--bag', type=Path, action='append', required=True,
                        help='rosbag2 folder, .mcap, .db3 or ROS 1 .bag; give it again for more')
    parser.add_argument('--ground-truth', type=Path, action='append', default=[], metavar='FILE',
                        help='poses of the camera, TUM, KITTI or EuRoC, one file for each --bag '
                        "(default: the bag's own topic)")
    add_extractor_arguments(parser)
    parser.set_defaults(extractors='md2net,klt', max_keypoints=1024)
    parser.add_argument('--image-topic', help="default: the bag's only one")
    parser.add_argument('--pose-topic', help="default: the bag's only one")
    parser.add_argument('--max-frames', type=int, default=0, help='of each bag (0: all)')
    parser.add_argument('--threshold', type=float, default=1.0,
                        help='inlier threshold of relative poses, px (default: 1)')
    parser.add_argument('--no-odometry', action='store_true', help='no visual odometry')
    parser.add_argument('--shard', type=parse_shard, default=(1, 1), metavar='i/n',
                        help='only the i-th of n parts of the bags')
    parser.add_argument('--json', type=Path, help='write the figures to this file')
    parser.add_argument('--html', type=Path, help='write the report to this file')


def run(args: argparse.Namespace) -> int:
    """Replay, show and write."""
    if args.max_frames < 0:
        raise DataError(f'--max-frames: expected 0 or more, got {args.max_frames}')
    if not args.threshold > 0:
        raise DataError(f'--threshold: expected more than 0, got {args.threshold}')
    specs = frontend_specs(
        args.extractors, args.max_keypoints, args.device, args.weights_dir, args.cache
    )
    settings = ReplaySettings(
        args.max_keypoints,
        args.image_topic,
        args.pose_topic,
        args.max_frames,
        args.threshold,
        not args.no_odometry,
    )
    result = evaluate(args.bag, specs, settings, args.ground_truth, args.shard)
    print_result(result)
    if args.json:
        write_json(args.json, to_json(result))
    if args.html:
        write_page(args.html, result)
    return 0


def merge(documents: list[dict[str, Any]], html: Path | None) -> dict[str, Any]:
    """Join shards, show the tables, write the report if asked to.

    Raises:
        DataError: they do not belong together.
    """
    result = merge_results([from_json(document) for document in documents])
    print_result(result)
    if html:
        write_page(html, result)
    return to_json(result)

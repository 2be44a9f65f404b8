"""``mdnet soak``: run the live tracker for long and check memory, open files and latency."""

from __future__ import annotations

import argparse
import importlib.util
import io
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from mdnet_ros.bags.reader import BagReader
from mdnet_ros.cli.tracking import (
    add_image_topic_arguments,
    add_tracker_arguments,
    changed_from_default,
    tracker_settings,
)
from mdnet_ros.demo.recording import write_scene
from mdnet_ros.demo.scene import Scene
from mdnet_ros.errors import MissingDependencyError, SettingError
from mdnet_ros.evaluation.benchmark.endurance import SoakRun
from mdnet_ros.evaluation.reports.plots import new_figure
from mdnet_ros.evaluation.reports.tables import print_sections
from mdnet_ros.features.weights import resolve_weights
from mdnet_ros.files import write_bytes, write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        '--minutes', type=float, default=30.0, metavar='N', help='minutes to run [30]'
    )
    parser.add_argument(
        '--bag', help='rosbag2 folder, .mcap or .db3 file to play round and round; default: the '
        "demo's scene",
    )
    add_image_topic_arguments(parser)
    parser.add_argument(
        '--rate', type=float, default=1.0, metavar='X', help='speed, 1: as recorded [1]'
    )
    parser.add_argument('--json', type=Path, metavar='FILE', help='metrics and all samples')
    parser.add_argument(
        '--plot', type=Path, metavar='FILE.png', help='memory and latency over time'
    )
    add_tracker_arguments(parser, weights='md2net-light')


def run(args: argparse.Namespace) -> int:
    """Run the tracker and its checks; return 1 if a check fails."""
    settings = tracker_settings(args)
    resolve_weights(settings.weights)  # fail before the rendering
    if not args.minutes > 0:
        raise SettingError(f'--minutes: expected more than 0, got {args.minutes:g}')
    if args.plot:
        if args.plot.suffix != '.png':
            raise SettingError(f"--plot '{args.plot}': expected a name that ends with .png")
        new_figure()  # a missing matplotlib must show now, not after half an hour
    if importlib.util.find_spec('rclpy') is None:
        raise MissingDependencyError('rclpy', 'ros', 'the live tracker')
    with TemporaryDirectory() as folder:
        path = Path(args.bag) if args.bag else Path(folder) / 'scene'
        if not args.bag:
            write_scene(Scene(), path, progress=True)
        from mdnet_ros.nodes.harness.soak import soak  # rclpy takes the process over from here

        with BagReader(path) as bag:
            topic = bag.image_topic(args.image_topic)
            info_topic = bag.camera_info_topic(topic, args.camera_info_topic)
            result = soak(
                bag, topic, info_topic, settings, args.minutes * 60, Path(folder) / 'tracker.log',
                rate=args.rate, progress=True,
            )
    about = {
        'bag': args.bag or 'demo scene', 'rate': args.rate,
        'settings': changed_from_default(settings),
    }
    result = replace(result, about=about)
    print_sections(result.tables())
    if args.json:
        write_json(args.json, result.to_json())
    if args.plot:
        _plot(result, args.plot)
    return 0 if result.held else 1


def _plot(result: SoakRun, path: Path) -> None:
    picture = io.BytesIO()
    result.figure().savefig(picture, format='png', dpi=120)
    write_bytes(path, picture.getvalue())

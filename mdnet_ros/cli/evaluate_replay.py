"""``mdnet evaluate replay``: tracks, times and poses of front ends on bags."""

from __future__ import annotations

import argparse
import importlib.util
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from mdnet_ros.bags.reader import BagReader
from mdnet_ros.bags.writer import BagWriter
from mdnet_ros.cli.evaluate_common import (
    add_extractor_arguments,
    add_output_arguments,
    own_provenance,
    show_and_write,
)
from mdnet_ros.errors import DataError, MissingDependencyError
from mdnet_ros.evaluation.replay.bag import BagSequence
from mdnet_ros.evaluation.replay.frontend import FrontendSpec, frontend_specs
from mdnet_ros.evaluation.replay.meter import BagMeter
from mdnet_ros.evaluation.replay.protocol import evaluate
from mdnet_ros.evaluation.replay.report import REPORT_FORMAT
from mdnet_ros.evaluation.replay.results import BagResult, ReplaySettings
from mdnet_ros.tracker.recording import read_tracks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('--bag', type=Path, action='append', required=True,
                        help='rosbag2 folder, .mcap, .db3 or ROS 1 .bag; give it again for more')
    parser.add_argument('--ground-truth', type=Path, action='append', default=[], metavar='FILE',
                        help='poses of the camera, TUM, KITTI or EuRoC, one file for each --bag '
                        "(default: the bag's own topic)")
    parser.add_argument('--extrinsics', type=Path, action='append', default=[], metavar='YAML',
                        help="if the poses are the body's, not the camera's: EuRoC sensor.yaml of "
                        "the camera (T_BS, camera to body) or Kalibr's camchain, one per --bag "
                        "(default: the bag's /tf_static; the one in the folder of an EuRoC "
                        'ground truth)')
    add_extractor_arguments(parser)
    parser.set_defaults(extractors='md2net,klt', max_keypoints=1024)
    parser.add_argument('--image-topic', help="default: the bag's only one")
    parser.add_argument('--camera-info-topic', help='default: the one beside the image topic')
    parser.add_argument('--pose-topic',
                        help='true poses of the camera or, with static transforms in the bag or '
                        '--extrinsics, of its body (default: the only one called ground truth; '
                        'odometry only if named)')
    parser.add_argument('--rectified', action='store_true',
                        help='the images are rectified already: P of camera_info holds for them, '
                        'not K and D')
    parser.add_argument('--max-frames', type=int, default=0, help='images of each bag (0: all)')
    parser.add_argument('--threshold', type=float, default=1.0,
                        help='inlier threshold of relative poses, px (default: 1)')
    parser.add_argument('--live', action='store_true',
                        help='run the tracker node over ROS 2 at the rate of the bag; for md2net, '
                        'md2net-light and .safetensors paths, also with @fp32 and the like')
    parser.add_argument('--part', nargs=2, type=float, default=(0.0, 1.0), metavar=('FROM', 'TO'),
                        help='part of each bag in order of time, e.g. 0.5 1 for the second half')
    parser.add_argument('--seeds', type=int, default=1, metavar='N',
                        help='run the visual odometry with N seeds and show the spread '
                        '(default: 1)')
    parser.add_argument('--max-tracks', type=int, default=0, metavar='N',
                        help='the visual odometry reads what a VINS estimator gets from the node: '
                        'at most N tracks of each image (default: 0, the tracks of all keypoints)')
    parser.add_argument('--no-odometry', action='store_true', help='no visual odometry')
    add_output_arguments(parser, 'bags')


def run(args: argparse.Namespace) -> int:
    """Replay bags, show the tables and write the files that were asked for."""
    if args.max_frames < 0:
        raise DataError(f'--max-frames: expected 0 or more, got {args.max_frames}')
    if not 0.0 <= args.part[0] < args.part[1] <= 1.0:
        raise DataError(f'--part: expected 0 <= FROM < TO <= 1, got {args.part}')
    if args.seeds < 1:
        raise DataError(f'--seeds: expected at least 1, got {args.seeds}')
    if args.max_tracks < 0:
        raise DataError(f'--max-tracks: expected 0 or more, got {args.max_tracks}')
    if args.max_tracks and args.no_odometry:
        raise DataError('--max-tracks: is for the odometry; leave out --no-odometry')
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
        0 if args.no_odometry else args.seeds,
        start=args.part[0],
        end=args.part[1],
        rectified=args.rectified,
        camera_info_topic=args.camera_info_topic,
        max_tracks=args.max_tracks,
    )
    if args.live:
        baselines = [spec.name for spec in specs if spec.network is None]
        if baselines:
            raise DataError(f"--live: the tracker node runs MD-Net's weights, not {baselines[0]}")
        if settings.max_frames or (settings.start, settings.end) != (0.0, 1.0):
            raise DataError('--live: plays whole bags; leave out --max-frames and --part')
        if importlib.util.find_spec('rclpy') is None:
            raise MissingDependencyError('rclpy', 'ros', 'replay --live')
    result = evaluate(
        args.bag, specs, settings, args.ground_truth, args.extrinsics, args.shard,
        partial(_run_live, device=args.device) if args.live else None,
    )
    extractors = [spec.source.spec for spec in specs if spec.source is not None]
    show_and_write(args, REPORT_FORMAT, result, own_provenance(args, extractors))
    return 0


def _run_live(
    sequence: BagSequence,
    spec: FrontendSpec,
    settings: ReplaySettings,
    omitted: list[str],
    device: str,
) -> BagResult:
    """Measure the tracker node in a process of its own, fed over DDS at the rate of the bag."""
    from mdnet_ros.nodes.harness.live import run_live
    from mdnet_ros.tracker.settings import TrackerSettings

    network = spec.network
    if network is None:
        raise DataError(f"--live: the tracker node runs MD-Net's weights, not {spec.name}")
    tracker = TrackerSettings(
        weights=network.network, device=device, precision=network.precision,
        runtime=network.runtime, max_keypoints=settings.max_keypoints,
        rectified=settings.rectified,
        refinement=spec.refinement,
    )
    meter = BagMeter(sequence, settings)
    with TemporaryDirectory(prefix='mdnet-live-') as folder, BagReader(sequence.path) as bag:
        tracks = Path(folder) / 'tracks'
        live = run_live(
            bag, sequence.topic, sequence.info_topic, tracker, BagWriter(tracks),
            Path(folder) / 'tracker.log', progress=True,
        )
        if not live.answered:
            raise DataError(f'{sequence.name}: no answer to any of {live.published} images')
        size = (sequence.camera.width, sequence.camera.height) if sequence.camera else (0, 0)
        with BagReader(tracks) as recorded:
            for frame in read_tracks(recorded, size):
                meter.add(frame)
    for cause, count in live.counters.dropped.items():
        if count:
            omitted.append(f'{sequence.name}: {spec.name}: {count} images dropped: {cause}')
    latencies = [round(float(value), 3) for value in live.latencies_ms]
    return meter.result(latencies, live.published - live.answered)

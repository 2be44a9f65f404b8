"""``mdnet track``: track every frame of a bag in order, without ROS."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from mdnet_ros.bags.calibration import read_calibration
from mdnet_ros.bags.messages import BagTopics
from mdnet_ros.bags.reader import BagReader, ImageFrame
from mdnet_ros.bags.writer import STORAGES, BagWriter
from mdnet_ros.cli.tracking import (
    TRACKER_OUTPUTS,
    add_image_topic_arguments,
    add_tracker_arguments,
    changed_from_default,
    finish,
    output_folder,
    tracker_settings,
)
from mdnet_ros.errors import ImageError
from mdnet_ros.evaluation.replay.ground_truth import read_extrinsics
from mdnet_ros.evaluation.tracks.run import Latency, RunReport
from mdnet_ros.evaluation.tracks.statistics import SequenceStatistics
from mdnet_ros.evaluation.tracks.truth import camera_poses, truth_of_bag
from mdnet_ros.features.types import TrackedFrame
from mdnet_ros.tracker.configuration import load_configuration
from mdnet_ros.tracker.engine import Engine
from mdnet_ros.tracker.offline import track_bag
from mdnet_ros.tracker.pictures import RunPictures

#: Rate of the video where the bag has a single frame, frames per second.
_DEFAULT_RATE = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        '--bag', required=True, help='rosbag2 folder, .mcap or .db3 file, or ROS 1 .bag'
    )
    add_image_topic_arguments(parser)
    parser.add_argument(
        '--pose-topic', metavar='T',
        help='true poses of the camera or, with static transforms in the bag or --extrinsics, of '
        'its body; default: the only ones called ground truth; odometry only if named',
    )
    parser.add_argument(
        '--extrinsics', metavar='YAML', type=Path,
        help="camera-to-body extrinsics if the bag's poses are the body's: EuRoC's sensor.yaml "
        "(T_BS) or Kalibr's camchain",
    )
    parser.add_argument(
        '--out', required=True, metavar='DIR',
        help='folder for the bag of outputs (tracks), summary.json, contact_sheet.png and '
        'tracks.mp4',
    )
    parser.add_argument('--json', metavar='FILE', help='write the summary to this file, too')
    parser.add_argument('--storage', choices=STORAGES, default='sqlite3',
                        help='storage format of the bag')
    parser.add_argument(
        '--no-pictures', action='store_true', help='no contact sheet and no video'
    )
    add_tracker_arguments(parser, weights='md2net')


def run(args: argparse.Namespace) -> int:
    """Track the bag, report, and return the exit code."""
    settings = tracker_settings(args)
    with BagReader(args.bag) as bag:
        image_topic = bag.image_topic(args.image_topic)
        info_topic = bag.camera_info_topic(image_topic, args.camera_info_topic)
        calibration = read_calibration(bag, image_topic, info_topic, settings.rectified)
        camera = calibration.camera
        to_body = read_extrinsics(args.extrinsics, image_topic) if args.extrinsics else None
        truth = camera_poses(bag, image_topic, args.pose_topic, to_body)
        statistics = SequenceStatistics(truth_of_bag(bag, image_topic, camera, truth.poses))
        engine = Engine(load_configuration(settings))
        engine.cameras[0].model = camera
        engine.cameras[0].unusable = calibration.problem
        folder = output_folder(args.out)
        count = bag.counts[image_topic]
        stamps: list[int] = []
        with (
            BagWriter(
                folder / 'tracks', args.storage, overwrite=True, outputs=TRACKER_OUTPUTS
            ) as writer,
            RunPictures(folder, count, _rate(bag, image_topic)) as pictures,
        ):

            def on_frame(image: ImageFrame, frame: TrackedFrame) -> None:
                statistics.add(frame)
                stamps.append(frame.stamp_ns)
                if not args.no_pictures:
                    pictures.add(_picture(image), frame)

            offline = track_bag(
                bag, image_topic, engine, BagTopics(writer), on_frame, progress=True
            )
    problems = [*truth.notes]
    if offline.problem:
        problems.append(
            f'{sum(offline.drops.values())} of {offline.frames_in} images cannot be used, the '
            f'first: {offline.problem}'
        )
    if offline.uncalibrated:
        problems.append(
            f'/tracks was asked for and is not written for {offline.uncalibrated} of '
            f'{offline.frames_processed} images: {offline.calibration_error}'
        )
    elif calibration.problem and info_topic is not None:
        problems.append(f'calibration not used: {calibration.problem}')
    problems.append(calibration.note)
    if offline.without_ray:
        problems.append(
            f'{offline.without_ray} observations left out of /tracks: their pixels have no ray '
            'in the calibration'
        )
    if camera is not None and truth.poses is not None:
        problems.append(truth.poses.overlap_problem(stamps))
    elif truth.poses is not None and info_topic is None:
        problems.append('no camera_info: no precision against the true poses')
    problems += pictures.problems
    for problem in filter(None, problems):
        print(f'mdnet track: {problem}', file=sys.stderr)
    extractor = engine.configuration.extractor
    report = RunReport(
        frames_in=offline.frames_in,
        frames_processed=offline.frames_processed,
        drops=offline.drops,
        fps=offline.frames_processed / float(offline.seconds.sum()),
        latency=Latency.of(offline.seconds * 1e3),
        latency_of='image message read → outputs written',
        summary=statistics.summary(),
        about={
            'bag': str(args.bag),
            'image_topic': image_topic,
            'camera_info_topic': info_topic,
            'weights_sha256': extractor.info.sha256,
            'device': str(extractor.device),
            'settings': changed_from_default(settings),
        },
    )
    finish(report, f'mdnet track: {Path(args.bag).name}, {extractor.name}', folder, args.json)
    return 0


def _picture(image: ImageFrame) -> np.ndarray:
    """The image in colours, or gray if its colours cannot be decoded."""
    try:
        return image.bgr
    except ImageError:
        return image.image


def _rate(bag: BagReader, topic: str) -> float:
    """Return the rate of a topic in the recording, frames per second."""
    count, duration = bag.counts[topic], bag.duration_s
    return (count - 1) / duration if count > 1 and duration > 0 else _DEFAULT_RATE

"""``mdnet track``: the tracker over a bag, without ROS, every frame in order."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from mdnet_ros.bags.messages import BagTopics
from mdnet_ros.bags.reader import BagReader, ImageFrame
from mdnet_ros.bags.writer import STORAGES, BagWriter
from mdnet_ros.cli.tracking import (
    add_tracker_arguments,
    changed_from_default,
    output_folder,
    tracker_settings,
)
from mdnet_ros.errors import ImageError
from mdnet_ros.evaluation.tracks.run import Latency, RunReport
from mdnet_ros.evaluation.tracks.statistics import SequenceStatistics
from mdnet_ros.evaluation.tracks.truth import truth_of_bag
from mdnet_ros.features.types import TrackedFrame
from mdnet_ros.files import write_json
from mdnet_ros.tracker.configuration import load_configuration
from mdnet_ros.tracker.engine import Engine
from mdnet_ros.tracker.offline import track_bag
from mdnet_ros.tracker.pictures import RunPictures

#: Frames a second of the video where the bag has a single frame.
_DEFAULT_RATE = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        '--bag', required=True, help='rosbag2 folder, .mcap or .db3 file, or ROS 1 .bag'
    )
    parser.add_argument('--image-topic', metavar='T', help='default: the only one there is')
    parser.add_argument(
        '--camera-info-topic', metavar='T', help='default: the one beside the image topic'
    )
    parser.add_argument(
        '--pose-topic', metavar='T', help='true poses of the camera; default: the only ones'
    )
    parser.add_argument(
        '--out', required=True, metavar='DIR',
        help='for the bag of outputs (tracks), summary.json, contact_sheet.png and tracks.mp4',
    )
    parser.add_argument('--json', metavar='FILE', help='the summary, also to this file')
    parser.add_argument('--storage', choices=STORAGES, default='sqlite3', help='of the bag')
    parser.add_argument(
        '--no-pictures', action='store_true', help='no contact sheet and no video'
    )
    add_tracker_arguments(parser, weights='md2net')


def run(args: argparse.Namespace) -> int:
    """Track the bag; returns the exit code."""
    settings = tracker_settings(args)
    with BagReader(args.bag) as bag:
        image_topic = bag.image_topic(args.image_topic)
        info_topic = bag.camera_info_topic(image_topic, args.camera_info_topic)
        camera = bag.camera(info_topic, settings.rectified)
        statistics = SequenceStatistics(truth_of_bag(bag, image_topic, camera, args.pose_topic))
        engine = Engine(load_configuration(settings))
        engine.cameras[0].model = camera
        folder = output_folder(args.out)
        count = bag.counts[image_topic]
        with (
            BagWriter(folder / 'tracks', args.storage, overwrite=True) as writer,
            RunPictures(folder, count, _rate(bag, image_topic)) as pictures,
        ):

            def on_frame(image: ImageFrame, frame: TrackedFrame) -> None:
                statistics.add(frame)
                if not args.no_pictures:
                    pictures.add(_picture(image), frame)

            offline = track_bag(
                bag, image_topic, engine, BagTopics(writer), on_frame, progress=True
            )
    if offline.problem:
        print(
            f'mdnet track: {sum(offline.drops.values())} of {offline.frames_in} images cannot be '
            f'used, the first: {offline.problem}',
            file=sys.stderr,
        )
    for problem in pictures.problems:
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
    report.table(f'mdnet track: {Path(args.bag).name}, {extractor.name}').print()
    document = report.to_json()
    write_json(folder / 'summary.json', document)
    if args.json:
        write_json(Path(args.json), document)
    print(f'outputs: {folder}')
    return 0


def _picture(image: ImageFrame) -> np.ndarray:
    """The image in colours, or gray if its colours cannot be decoded."""
    try:
        return image.bgr
    except ImageError:
        return image.image


def _rate(bag: BagReader, topic: str) -> float:
    """Frames a second of a topic in the recording; no more than about right."""
    count, duration = bag.counts[topic], bag.duration_s
    return (count - 1) / duration if count > 1 and duration > 0 else _DEFAULT_RATE

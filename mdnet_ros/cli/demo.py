"""``mdnet demo``: fly through a synthetic scene and track it live, over real ROS 2 topics."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mdnet_ros.bags.calibration import read_calibration
from mdnet_ros.bags.reader import BagReader
from mdnet_ros.bags.writer import STORAGES, BagWriter
from mdnet_ros.cli.tracking import (
    TRACKER_OUTPUTS,
    add_tracker_arguments,
    changed_from_default,
    finish,
    output_folder,
    tracker_settings,
)
from mdnet_ros.demo.recording import CAMERA_INFO_TOPIC, IMAGE_TOPIC, write_scene
from mdnet_ros.demo.scene import Scene, SceneSettings
from mdnet_ros.errors import DataError, MissingDependencyError
from mdnet_ros.evaluation.tracks.run import Latency, RunReport
from mdnet_ros.evaluation.tracks.statistics import SequenceStatistics, SequenceSummary
from mdnet_ros.evaluation.tracks.truth import camera_poses, truth_of_bag
from mdnet_ros.features.weights import resolve_weights
from mdnet_ros.progress import Progress
from mdnet_ros.tracker.pictures import RunPictures
from mdnet_ros.tracker.recording import read_tracks

if TYPE_CHECKING:
    from mdnet_ros.nodes.harness.live import LiveRun

#: Reason given for images that were published but never reached the tracker.
LOST = 'lost in transport'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    scene = SceneSettings()
    parser.add_argument(
        '--out', default='mdnet_demo', metavar='DIR',
        help='folder for the bags (scene, tracks), summary.json, contact_sheet.png and tracks.mp4 '
        '[mdnet_demo]',
    )
    parser.add_argument('--json', metavar='FILE', help='write the summary to this file, too')
    parser.add_argument(
        '--record-only', type=Path, metavar='BAG',
        help='only write the scene (images, camera_info, true poses) to this new bag, then end',
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        '--duration', type=float, default=scene.duration_s, metavar='S',
        help=f'length of the flight, seconds [{scene.duration_s:g}]',
    )
    length.add_argument('--frames', type=int, metavar='N', help='length of the flight, frames')
    parser.add_argument(
        '--size', default=f'{scene.width}x{scene.height}', metavar='WxH',
        help=f'size of the images, pixels [{scene.width}x{scene.height}]',
    )
    parser.add_argument(
        '--fps', type=float, default=scene.rate_hz, metavar='HZ',
        help=f'frames a second [{scene.rate_hz:g}]',
    )
    parser.add_argument(
        '--speed', type=float, default=scene.speed, metavar='FACTOR',
        help='speed of the flight [1: 0.9 m/s along the course]',
    )
    parser.add_argument(
        '--exposure', type=float, default=scene.exposure_s, metavar='S',
        help=f'how long the shutter is open (motion blur), seconds [{scene.exposure_s:g}]',
    )
    parser.add_argument(
        '--steady-light', action='store_true', help='the brightness of the images does not change'
    )
    parser.add_argument('--seed', type=int, default=scene.seed, help='seed of the scene')
    parser.add_argument(
        '--storage', choices=STORAGES, default='sqlite3', help='storage format of the bags'
    )
    parser.add_argument(
        '--lockstep', action='store_true',
        help='send an image when the last one was answered, instead of by the clock',
    )
    add_tracker_arguments(parser, weights='md2net-light')


def run(args: argparse.Namespace) -> int:
    """Render, play, track, record and report; returns the exit code.

    Raises:
        DataError: if an argument is out of its range or a file cannot be written.
        MissingDependencyError: if scikit-image or rclpy is not installed.
    """
    if args.record_only is not None:
        write_scene(
            Scene(_scene_settings(args)), args.record_only, args.storage, depth=False,
            overwrite=False, progress=True,
        )
        print(f'bag: {args.record_only}')
        return 0
    settings = tracker_settings(args)
    resolve_weights(settings.weights)  # so that an error comes before the rendering
    if importlib.util.find_spec('rclpy') is None:
        raise MissingDependencyError('rclpy', 'ros', 'the live demo')
    scene = Scene(_scene_settings(args))
    folder = output_folder(args.out)
    write_scene(scene, folder / 'scene', args.storage, progress=True)
    from mdnet_ros.nodes.harness.live import run_live  # rclpy takes the process over from here

    with BagReader(folder / 'scene') as bag, TemporaryDirectory() as logs:
        recording = BagWriter(
            folder / 'tracks', args.storage, overwrite=True, outputs=TRACKER_OUTPUTS
        )
        live = run_live(
            bag, IMAGE_TOPIC, CAMERA_INFO_TOPIC, settings, recording,
            Path(logs) / 'tracker.log', lockstep=args.lockstep, progress=True,
        )
        if live.answered == 0 or live.foreign:
            raise DataError(
                f'the tracker answered {live.answered} of {live.published} images with their own '
                f'stamp and sent {live.foreign} answers with another'
            )
        summary = _measure_and_draw(bag, folder, scene.settings.rate_hz)
    report = _report(live, summary, {'settings': changed_from_default(settings)})
    finish(report, f'mdnet demo: {Path(settings.weights).stem}, live over ROS 2', folder, args.json)
    return 0


def _scene_settings(args: argparse.Namespace) -> SceneSettings:
    width, _, height = args.size.partition('x')
    if not (width.isdecimal() and height.isdecimal()):
        raise DataError(f"--size '{args.size}': expected WIDTHxHEIGHT, such as 640x480")
    if args.frames is not None and args.frames < 1:
        raise DataError(f'--frames: expected at least 1, got {args.frames}')
    duration = args.duration
    if args.frames is not None and args.fps > 0:
        duration = args.frames / args.fps
    return SceneSettings(
        duration_s=duration, rate_hz=args.fps, width=int(width), height=int(height),
        seed=args.seed, exposure_s=args.exposure, speed=args.speed,
        steady_light=args.steady_light,
    )


def _measure_and_draw(bag: BagReader, folder: Path, rate_hz: float) -> SequenceSummary:
    """Measure what was recorded against the truth in the scene's bag, and draw it."""
    camera = read_calibration(bag, IMAGE_TOPIC, CAMERA_INFO_TOPIC).camera
    truth = camera_poses(bag, IMAGE_TOPIC).poses
    statistics = SequenceStatistics(truth_of_bag(bag, IMAGE_TOPIC, camera, truth))
    images = bag.images(IMAGE_TOPIC)
    with BagReader(folder / 'tracks') as tracks:
        count = tracks.counts['/correspondences']
        size = (camera.width, camera.height) if camera is not None else (0, 0)
        with RunPictures(folder, count, rate_hz) as pictures:
            for frame in Progress(read_tracks(tracks, size), 'reporting', count, unit='frame'):
                statistics.add(frame)
                # Both bags are in the order of the stamps.
                image = next(i for i in images if i.stamp_ns == frame.stamp_ns)
                pictures.add(image.image, frame)
    for problem in pictures.problems:
        print(f'mdnet demo: {problem}', file=sys.stderr)
    return statistics.summary()


def _report(live: LiveRun, summary: SequenceSummary, about: dict[str, object]) -> RunReport:
    counters = live.counters
    drops = dict(counters.dropped)
    lost = live.published - counters.received
    if lost:
        drops[LOST] = lost
    return RunReport(
        frames_in=live.published,
        frames_processed=counters.processed,
        drops=drops,
        fps=live.answered / live.seconds if live.seconds > 0 else 0.0,
        latency=Latency.of(live.latencies_ms),
        latency_of='image published → correspondences received',
        step_ms=counters.step_ms,
        summary=summary,
        about={
            **about,
            'frames_received': counters.received,
            'frames_answered': live.answered,
            'frames_uncounted': counters.uncounted,
            'answers_with_a_foreign_stamp': live.foreign,
        },
    )

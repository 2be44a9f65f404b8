"""``mdnet convert``: write a bag of tracks as a COLMAP database or as hloc's h5 files."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from mdnet_ros.cli.recording import add_recording_arguments, open_recording
from mdnet_ros.integrations.colmap import ColmapDatabase, camera_for_colmap
from mdnet_ros.integrations.conversion import TargetFormat, convert
from mdnet_ros.integrations.hloc import HlocFiles

_FORMATS: dict[str, TargetFormat] = {'colmap': ColmapDatabase, 'hloc': HlocFiles}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_recording_arguments(parser)
    parser.add_argument(
        '--to', required=True, choices=_FORMATS,
        help='colmap: database.db; hloc: features.h5 and matches.h5',
    )
    parser.add_argument('--out', required=True, metavar='DIR', help='a new folder')
    parser.add_argument(
        '--window', type=int, default=20, metavar='N',
        help='match images that are at most so many apart [20]',
    )
    parser.add_argument(
        '--every', type=int, default=1, metavar='N', help='take each N-th frame only [1]'
    )


def run(args: argparse.Namespace) -> int:
    """Convert the recording and return the exit code."""
    out = Path(args.out).expanduser()
    with open_recording(args) as recording:
        problem = ''
        if args.to == 'colmap':
            camera, problem = camera_for_colmap(recording.camera, recording.image_size)
            problem = problem or recording.calibration_problem
            recording = replace(recording, camera=camera)
        width, height = recording.image_size
        done = convert(recording, out, _FORMATS[args.to], args.window, args.every, progress=True)
    print(
        f'{done.images} images, {done.keypoints} keypoints; {done.pairs} pairs with '
        f'{done.matches} matches, {done.inliers} of them verified\n'
        f'outputs: {out}'
    )
    for line in (
        f'{problem}: the focal length is a guess' if problem else '',
        recording.calibration_note,
        f'{done.other_size} images of another size than {width}x{height} are left out'
        if done.other_size else '',
        f'{done.broken} images cannot be decoded and are left out' if done.broken else '',
        f'{done.images - done.pictures - done.broken} images without pixels: name the bag that '
        'has them by --images' if done.pictures + done.broken < done.images else '',
        f'{done.repeated} frames with the stamp of an earlier one are left out'
        if done.repeated else '',
    ):
        if line:
            print(f'mdnet convert: {line}', file=sys.stderr)
    return 0

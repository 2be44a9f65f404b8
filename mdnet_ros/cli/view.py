"""``mdnet view``: show a bag of tracks as one HTML page that plays its frames."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mdnet_ros.cli.recording import add_recording_arguments, open_recording
from mdnet_ros.tracker.drawing import COLOUR_BY
from mdnet_ros.viewer.page import PageSettings, write_page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_recording_arguments(parser)
    default = PageSettings()
    parser.add_argument('--out', required=True, metavar='FILE', help='file of the page, FILE.html')
    parser.add_argument(
        '--max-frames', type=int, default=default.max_frames, metavar='N',
        help=f'show at most so many frames as pictures, spread evenly [{default.max_frames}]',
    )
    parser.add_argument(
        '--every', type=int, default=default.every, metavar='N',
        help=f'show each N-th frame only [{default.every}]',
    )
    parser.add_argument(
        '--width', type=int, default=default.width, metavar='PX',
        help=f'shrink wider pictures to it [{default.width}]',
    )
    parser.add_argument(
        '--quality', type=int, default=default.quality, metavar='Q',
        help=f'quality of the JPEGs, 1 to 100 [{default.quality}]',
    )
    parser.add_argument(
        '--trail', type=int, default=default.trail, metavar='N',
        help=f'how many frames the trails reach back [{default.trail}]',
    )
    parser.add_argument(
        '--colour-by', choices=COLOUR_BY, default=default.colour_by,
        help=f'what the colour of a track shows [{default.colour_by}]',
    )


def run(args: argparse.Namespace) -> int:
    """Write the page and return the exit code."""
    settings = PageSettings(
        args.max_frames, args.every, args.width, args.quality, args.trail, args.colour_by
    )
    out = Path(args.out).expanduser()
    with open_recording(args) as recording:
        content = write_page(recording, out, settings, progress=True)
    print(
        f'{content.frames} frames, {content.pictures} of them as pictures\n'
        f'page: {out} ({out.stat().st_size / 1e6:.1f} MB)'
    )
    if content.without_image:
        print(
            f'mdnet view: {content.without_image} pictures without an image: name the bag that '
            'has them by --images',
            file=sys.stderr,
        )
    return 0

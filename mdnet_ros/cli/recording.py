"""What ``mdnet convert`` and ``mdnet view`` share: the options that name a tracked recording."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mdnet_ros.bags.reader import BagReader
from mdnet_ros.tracker.recording import Recording, find_recording


def add_recording_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        '--bag', required=True,
        help="bag with the tracker's keypoints and correspondences, from mdnet track or recorded",
    )
    parser.add_argument(
        '--images', metavar='BAG', help='bag with the images and camera_info; default: the same'
    )
    parser.add_argument('--image-topic', metavar='T', help='default: the only one there is')
    parser.add_argument(
        '--camera-info-topic', metavar='T', help='default: the one beside the image topic'
    )
    parser.add_argument(
        '--namespace', metavar='NS', help='of the keypoints; default: the only one there is'
    )
    parser.add_argument(
        '--rectified', action='store_true',
        help='the images are rectified already: P of camera_info holds for them, not K and D',
    )


@contextmanager
def open_recording(args: argparse.Namespace) -> Iterator[Recording]:
    """The recording that the options name.

    Raises:
        DataError: if it is not there or not complete.
    """
    with ExitStack() as stack:
        tracks = stack.enter_context(BagReader(args.bag))
        source = stack.enter_context(BagReader(args.images)) if args.images else None
        yield find_recording(
            tracks, source, args.image_topic, args.camera_info_topic, args.namespace,
            args.rectified,
        )

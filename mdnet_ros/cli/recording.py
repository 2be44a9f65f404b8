"""Options of ``mdnet convert`` and ``mdnet view`` that name a tracked recording."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mdnet_ros.bags.reader import BagReader
from mdnet_ros.cli.tracking import add_image_topic_arguments
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
    add_image_topic_arguments(parser)
    parser.add_argument(
        '--namespace', metavar='NS',
        help='namespace of the keypoints; default: the only one there is',
    )
    parser.add_argument(
        '--rectified', action='store_true',
        help='the images are rectified already: P of camera_info holds for them, not K and D',
    )


@contextmanager
def open_recording(args: argparse.Namespace) -> Iterator[Recording]:
    """Open the recording that the options name.

    Raises:
        DataError: it is missing or not complete.
    """
    with ExitStack() as stack:
        tracks = stack.enter_context(BagReader(args.bag))
        source = stack.enter_context(BagReader(args.images)) if args.images else None
        yield find_recording(
            tracks, source, args.image_topic, args.camera_info_topic, args.namespace,
            args.rectified,
        )

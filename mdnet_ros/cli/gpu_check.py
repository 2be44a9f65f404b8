"""``mdnet gpu-check``."""

from __future__ import annotations

import argparse
from pathlib import Path

from mdnet_ros.cli.benchmark import parse_numbers, parse_sizes
from mdnet_ros.data.image_files import IMAGE_SUFFIXES, read_image
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.benchmark.device_check import DeviceCheck
from mdnet_ros.evaluation.benchmark.report import benchmark_sections, device_check_sections
from mdnet_ros.evaluation.reports.tables import print_sections, text_of
from mdnet_ros.files import write_text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('--out', type=Path, required=True, help='folder for the results')
    parser.add_argument('--device', default='cuda', help='cuda, or cpu for a dry run')
    parser.add_argument(
        '--images', type=Path, metavar='FOLDER',
        help='real images of one size to compare on; default: synthetic ones',
    )
    parser.add_argument(
        '--sizes', type=parse_sizes, default='640x480,1280x720', metavar='WxH,…', help='timed, px'
    )
    parser.add_argument(
        '--keypoints', type=parse_numbers, default='512,2048,8192', metavar='N,…',
        help='budgets that are timed',
    )
    parser.add_argument('--repetitions', type=int, default=50, metavar='N',
                        help='repetitions of each timing')


def run(args: argparse.Namespace) -> int:
    """Check, time and write; 1 if a check failed."""
    images = None
    if args.images is not None:
        files = sorted(args.images.iterdir()) if args.images.is_dir() else []
        images = [
            read_image(path) for path in files if path.suffix.lower() in IMAGE_SUFFIXES
        ]
        if len({image.shape for image in images}) != 1:
            raise DataError(f"images '{args.images}': expected a folder with images of one size")
    result = DeviceCheck(
        args.device, args.out, images, args.sizes, args.keypoints, args.repetitions
    ).run()
    sections = [
        f'{result.device}, torch {result.torch}',
        *device_check_sections(result.checks, result.steps),
        *benchmark_sections(result.benchmark),
    ]
    write_text(args.out / 'report.txt', text_of(sections))
    print_sections(sections)
    return 0 if result.passed else 1

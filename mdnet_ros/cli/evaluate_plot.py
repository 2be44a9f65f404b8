"""``mdnet evaluate plot``: accuracy over extraction time, from JSON files written before."""

from __future__ import annotations

import argparse
from pathlib import Path

from mdnet_ros.cli.export import parse_size
from mdnet_ros.evaluation.homography.accuracy_time import (
    GROUPS,
    THRESHOLD,
    draw_points,
    read_points,
)
from mdnet_ros.evaluation.reports.tables import Column, Table, print_sections


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('--speed', type=Path, nargs='+', required=True, metavar='JSON',
                        help='files of mdnet benchmark --json, of one machine')
    parser.add_argument('--accuracy', type=Path, required=True, metavar='JSON',
                        help='file of mdnet evaluate homography --json, or of a merge')
    parser.add_argument('--size', type=parse_size, default=(640, 480), metavar='WxH',
                        help='size of the timed images, px (default: 640x480)')
    parser.add_argument('--keypoints', type=int, default=2048, metavar='N',
                        help='keypoints per image (default: 2048)')
    parser.add_argument('--out', type=Path, required=True, help='PNG file')


def run(args: argparse.Namespace) -> int:
    """Read, show the metrics as a table, and draw."""
    found = read_points(args.speed, args.accuracy, args.size, args.keypoints)
    columns = (
        Column('extractor'),
        Column('extraction [ms]', 1, 'min'),
        *(Column(f'MMA@{THRESHOLD} {group}', 3, 'max') for group in GROUPS),
    )
    rows = sorted(
        (point.name, point.milliseconds, *(point.mma[group] for group in GROUPS))
        for point in found.points
    )
    left_out = [f'left out (no time or no accuracy): {name}' for name in found.left_out]
    print_sections([Table(columns, tuple(rows), found.machine), *left_out])
    draw_points(found, args.out)
    return 0

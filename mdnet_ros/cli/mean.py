"""``mdnet mean``: the mean of several weights files."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('weights', nargs='+', metavar='WEIGHTS',
                        help='names or files of one network, the latest last')
    parser.add_argument('--out', type=Path, required=True, help='weights file to write')


def run(args: argparse.Namespace) -> int:
    """Write the file and say its digest."""
    from mdnet_ros.features.weights import load_weights
    from mdnet_ros.training.mean_weights import write_mean

    write_mean(args.weights, args.out)
    print(f'{args.out}: SHA-256 {load_weights(args.out)[1].sha256}')
    return 0

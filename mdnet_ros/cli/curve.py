"""``mdnet curve``: plot the accuracy of training runs over the images seen."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('runs', nargs='+', type=Path, metavar='RUN',
                        help='folder of mdnet train, or a file of --json: curves written before')
    parser.add_argument('--out', type=Path, required=True, help='PNG file')
    parser.add_argument('--json', type=Path, help='write the values to this file')


def run(args: argparse.Namespace) -> int:
    """Draw the curves and show the last validation of each run."""
    from mdnet_ros.evaluation.reports.tables import Column, Table
    from mdnet_ros.files import write_json
    from mdnet_ros.training.curve import draw_curves, read_curves

    curves = [curve for path in args.runs for curve in read_curves(path)]
    draw_curves(curves, args.out)
    if args.json is not None:
        write_json(args.json, {'curves': [curve.to_json() for curve in curves]})
    columns = [Column('run'), Column('pairs seen')]
    columns += [Column(name, 3) for name in curves[0].metrics]
    rows = (
        (curve.name, f'{curve.pairs[-1]:,}', *(values[-1] for values in curve.metrics.values()))
        for curve in curves
    )
    Table(tuple(columns), tuple(rows), 'Last validation on held-back photographs').print()
    return 0

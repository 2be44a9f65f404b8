"""``mdnet curve``: accuracy over images seen, of one or several training runs."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('runs', nargs='+', type=Path, metavar='RUN',
                        help='folder of mdnet train, or a file of --json: curves written before')
    parser.add_argument('--out', type=Path, required=True, help='PNG file')
    parser.add_argument('--json', type=Path, help='the numbers')


def run(args: argparse.Namespace) -> int:
    """Draw, and print the last validation of each run."""
    from rich.console import Console
    from rich.table import Table

    from mdnet_ros.files import write_json
    from mdnet_ros.training.curve import draw_curves, read_curves

    curves = [curve for path in args.runs for curve in read_curves(path)]
    draw_curves(curves, args.out)
    if args.json is not None:
        write_json(args.json, {'curves': [curve.to_json() for curve in curves]})
    table = Table(title='Last validation on held-back photographs')
    for name in ('run', 'pairs seen', *curves[0].figures):
        table.add_column(name, justify='left' if name == 'run' else 'right')
    for curve in curves:
        last = (f'{values[-1]:.3f}' for values in curve.figures.values())
        table.add_row(curve.name, f'{curve.pairs[-1]:,}', *last)
    Console().print(table)
    return 0

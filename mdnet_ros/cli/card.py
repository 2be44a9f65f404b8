"""``mdnet card``: write the model card of a weights file."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('weights', help='a name that ships or a .safetensors file')
    parser.add_argument('--out', type=Path, help='Markdown file; default: print')
    parser.add_argument(
        '--attribution', type=Path, nargs='+', default=[], metavar='CSV',
        help="tables with the training images' source and licence",
    )
    parser.add_argument(
        '--evaluation', nargs=2, action='append', default=[], metavar=('JSON', 'COMMAND'),
        help='result of mdnet evaluate homography, and the command that made it',
    )
    parser.add_argument('--notes', type=Path, help='Markdown file with what else to know')


def run(args: argparse.Namespace) -> int:
    """Write or print the card."""
    from mdnet_ros.errors import DataError
    from mdnet_ros.features.weights import load_weights
    from mdnet_ros.files import write_text
    from mdnet_ros.training.model_card import render_card

    network, info = load_weights(args.weights)
    notes = ''
    if args.notes is not None:
        try:
            notes = args.notes.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"notes '{args.notes}': not a readable text file: {error}") from None
    evaluations = [(_evaluation_table(Path(path)), command) for path, command in args.evaluation]
    card = render_card(network, info, args.attribution, evaluations, notes)
    if args.out is None:
        print(card)
    else:
        write_text(args.out, card)
    return 0


def _evaluation_table(path: Path) -> str:
    """Render the accuracy of a homography evaluation as Markdown.

    Raises:
        DataError: the file is not the JSON of ``mdnet evaluate homography``.
    """
    from mdnet_ros.cli.evaluate_common import read_document
    from mdnet_ros.errors import DataError
    from mdnet_ros.evaluation.homography.report import REPORT_FORMAT, accuracy_table

    document = read_document(path)
    if document['protocol'] != REPORT_FORMAT.name:
        raise DataError(f"results '{path}': expected the JSON of mdnet evaluate homography")
    return accuracy_table(REPORT_FORMAT.from_json(document, f"results '{path}'")).to_markdown()

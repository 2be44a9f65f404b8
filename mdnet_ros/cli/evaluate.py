"""``mdnet evaluate``: measure extractors with the field's protocols.

Each protocol, and the command that joins results, is a module of this package with
``add_arguments(parser)`` and ``run(args) -> int``; it is imported only when it is asked for.
"""

from __future__ import annotations

import argparse
import importlib

#: Protocol -> one-line help. The modules are ``cli.evaluate_`` and the name, and
#: ``evaluation.`` and the name, with '-' as '_'.
PROTOCOLS = {
    'homography': 'HPatches layout: matching accuracy and score, repeatability, homographies',
    'image-matching': 'Image Matching Benchmark layout: stereo and multiview pose',
    'replay': 'bags with ground truth: tracks, latency, visual odometry',
}
#: The protocols, a measurement that needs no data set, and what can be done with results.
_COMMANDS = {
    **PROTOCOLS,
    'pairs': 'pairs rendered from photographs: scale, tilt, rotation and light apart',
    'merge': 'join the JSON files of shards into one',
    'plot': 'draw accuracy over extraction time, from JSON files written before',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the protocol's name; its own arguments are parsed by its module."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = 'protocols:\n' + '\n'.join(
        f'  {name:<16}{text}' for name, text in _COMMANDS.items()
    )
    parser.add_argument('protocol', choices=_COMMANDS, metavar='PROTOCOL')
    parser.add_argument(
        'arguments', nargs=argparse.REMAINDER, metavar='…', help='see PROTOCOL --help'
    )


def run(args: argparse.Namespace) -> int:
    """Parse the protocol's arguments and run it."""
    module = importlib.import_module(f'mdnet_ros.cli.evaluate_{args.protocol.replace("-", "_")}')
    parser = argparse.ArgumentParser(
        prog=f'mdnet evaluate {args.protocol}', description=_COMMANDS[args.protocol]
    )
    module.add_arguments(parser)
    parsed = parser.parse_args(args.arguments)
    parsed.words = ['evaluate', args.protocol, *args.arguments]  # for the provenance
    return int(module.run(parsed))

"""The ``mdnet`` command.

Each subcommand is a module of this package with ``add_arguments(parser)`` and
``run(args) -> int``; it is imported only when it is asked for, so that ``mdnet --help`` is quick
and a missing optional library affects only the command that needs it.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from mdnet_ros.allocator import tune_allocator
from mdnet_ros.errors import MDNetError

#: Subcommand -> one-line help. The module has the same name, with '-' as '_'.
COMMANDS = {
    'demo': 'fly a camera through a synthetic scene and track it live over ROS 2',
    'track': 'track the camera of a bag, without ROS, as fast as it goes',
    'train': 'train or retrain the network on folders, tar packs or bags',
    'mean': 'write the mean of several weights files of one network',
    'curve': 'draw the accuracy of training runs over the images seen',
    'evaluate': 'measure extractors on homographies, image matching or replayed bags',
    'benchmark': 'time extraction, matching and tracking, with baselines in the same run',
    'gpu-check': 'check that a GPU gives what a CPU gives, time it and profile it, in minutes',
    'soak': 'play a bag round and round into the live tracker and judge that it stays as it was',
    'export': 'write a network with its detection as an ONNX or TorchScript file',
    'view': 'show a bag of tracks as one HTML page',
    'convert': 'write a bag of tracks as a COLMAP database or as h5 files of hloc',
    'card': 'write the model card of a weights file',
}


def build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Build the parser, with the arguments of the subcommand that ``argv`` names."""
    parser = argparse.ArgumentParser(prog='mdnet', description=__doc__.splitlines()[0])
    subparsers = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name, help_text in COMMANDS.items():
        sub = subparsers.add_parser(name, help=help_text, description=help_text)
        if argv and argv[0] == name:
            module = importlib.import_module(f'mdnet_ros.cli.{name.replace("-", "_")}')
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code; 2 means that the user's input was wrong."""
    if argv is None:  # the process is the command itself, not a caller's
        argv = sys.argv[1:]
        tune_allocator()
    argv = list(argv)
    try:
        args = build_parser(argv).parse_args(argv)
        return int(args.run(args))
    except MDNetError as error:
        print(f'mdnet: error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('mdnet: interrupted', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())

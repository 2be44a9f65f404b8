"""``mdnet train``: train or retrain the network."""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path
from typing import Any

from mdnet_ros.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        '--images', nargs='+', required=True, metavar='PATH',
        help='folders, tar packs or bags to learn from',
    )
    parser.add_argument('--out', required=True, type=Path, help='folder of the run')
    parser.add_argument('--config', type=Path, help='YAML file; see config/training.yaml')
    parser.add_argument('--network', help='md2net or md2net-light (default: the config file\'s)')
    parser.add_argument('--minutes', type=float, help='time budget; the schedule is fitted into it')
    parser.add_argument(
        '--steps', type=int, help='length of the schedule; with --resume: its new length'
    )
    parser.add_argument(
        '--from-weights', metavar='WEIGHTS', help='start from these: a name that ships or a file'
    )
    parser.add_argument('--resume', action='store_true', help='go on from the checkpoint in --out')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument('--threads', type=int, default=0, help='CPU threads; 0: all')
    parser.add_argument('--image-topic', help='topic to train on, of a bag with several')
    parser.add_argument(
        '--part', nargs=2, type=float, default=(0.0, 1.0), metavar=('FROM', 'TO'),
        help='part of each bag in order of time, e.g. 0 0.5 for the first half',
    )
    parser.add_argument(
        '--set', action='append', default=[], metavar='KEY=VALUE', dest='settings',
        help='override a setting, e.g. --set losses.intersection=0 --set batch=8',
    )


def run(args: argparse.Namespace) -> int:
    """Train, write the run to ``--out`` and show a table."""
    if not 0.0 <= args.part[0] < args.part[1] <= 1.0:
        raise DataError(f'part: expected 0 <= FROM < TO <= 1, got {args.part}')
    if args.minutes is not None and not 0 < args.minutes < math.inf:
        raise DataError(f'minutes: expected more than 0, got {args.minutes}')
    import torch
    import torch.distributed as dist

    from mdnet_ros.features.extractor import choose_device
    from mdnet_ros.training.config import load_config
    from mdnet_ros.training.images import load_pools
    from mdnet_ros.training.loop import Trainer

    config_file = args.config
    if config_file is None and args.resume and (args.out / 'config.yaml').is_file():
        config_file = args.out / 'config.yaml'
    config = load_config(config_file, _overrides(args))
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        device = choose_device(args.device)
    except ValueError as error:
        raise DataError(str(error)) from None
    together = int(os.environ.get('WORLD_SIZE', '1')) > 1
    if together:
        if device.type == 'cuda':
            device = torch.device('cuda', int(os.environ.get('LOCAL_RANK', '0')))
            torch.cuda.set_device(device)
        dist.init_process_group('nccl' if device.type == 'cuda' else 'gloo')
    try:
        pools = load_pools(
            args.images, config.held_back, args.image_topic, tuple(args.part)
        )
        provenance: dict[str, Any] = {
            'images': [Path(p).name for p in args.images],
            'part': list(args.part),
            'photographs': len(pools.training),
            'held_back': pools.held_back,
        }
        trainer = Trainer(
            config, pools.training, pools.validation, args.out, device, args.minutes,
            args.from_weights, args.resume, args.steps, provenance,
        )
        summary = trainer.run()
    finally:
        if together:
            dist.destroy_process_group()
    if trainer.rank == 0:
        _print(summary, args.out)
    return 0


def _overrides(args: argparse.Namespace) -> dict[str, Any]:
    from mdnet_ros.data.plain import parse_yaml

    values: dict[str, Any] = {}
    for setting in args.settings:
        key, separator, value = setting.partition('=')
        if not separator:
            raise DataError(f"set '{setting}': expected KEY=VALUE")
        values[key] = parse_yaml(value, f"set '{setting}'")
    if args.network:
        values['network'] = args.network
    if args.steps is not None:
        values['steps'] = args.steps
    return values


def _print(summary: Any, out: Path) -> None:
    from mdnet_ros.evaluation.reports.tables import Column, Table

    names = ('steps', 'pairs', 'seconds', 'images_per_second', 'waiting_share', 'device')
    rows = [(name, str(getattr(summary, name))) for name in names]
    rows += [(f'best: {name}', f'{value:.3f}') for name, value in summary.best.items()]
    rows += [('WARNING', complaint) for complaint in summary.complaints]
    Table((Column('metric'), Column('value')), tuple(rows), f'Training: {out}').print()

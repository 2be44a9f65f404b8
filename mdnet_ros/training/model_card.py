"""The model card of a weights file: its training, its sources and its measured accuracy."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mdnet_ros.errors import DataError
from mdnet_ros.features.network import MDNet, count_flops, count_parameters
from mdnet_ros.features.weights import WeightsInfo
from mdnet_ros.training.curve import pairs_before

_SIZE = (640, 480)


def read_attribution(path: Path) -> list[dict[str, str]]:
    """Read a CSV table with at least the columns ``source`` and ``licence``.

    Raises:
        DataError: unreadable, or a column is missing.
    """
    try:
        with path.open(newline='', encoding='utf-8') as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"attribution '{path}': not a readable CSV file: {error}") from None
    if not rows or not {'source', 'licence'} <= rows[0].keys():
        raise DataError(f"attribution '{path}': expected the columns source and licence")
    return rows


def packs_of(training: dict[str, Any]) -> set[str]:
    """Names of the image sources of a run and of all that it started from.

    Args:
        training: as a weights file holds it.
    """
    parents = [training.get('from_weights_training') or {}]
    parents += [other['training'] for other in training.get('mean_with', [])]
    return set(training.get('images', [])).union(*(packs_of(p) for p in parents if p))


def _trained_on(rows: list[dict[str, str]], training: dict[str, Any]) -> list[dict[str, str]]:
    """The rows of packs that were trained on; all where the table or the weights name none."""
    packs = packs_of(training)
    return [row for row in rows if not packs or row.get('pack', '') in ('', *packs)]


def _count_table(title: str, values: list[str]) -> list[str]:
    lines = [f'| {title} | photographs |', '|---|---|']
    lines += [f'| {name} | {count} |' for name, count in Counter(values).most_common()]
    return [*lines, '']


def render_card(
    network: MDNet,
    info: WeightsInfo,
    attributions: Sequence[Path],
    evaluations: list[tuple[str, str]],
    notes: str,
) -> str:
    """Render the card as Markdown.

    Args:
        network: network with the weights.
        info: metadata of the weights file.
        attributions: tables of the training photographs' sources and licences. Where a table has
            a column ``pack``, only the packs count that these weights, or those that they started
            from, were trained on.
        evaluations: tables of results in Markdown, each with the command that made it.
        notes: further text for users, Markdown; empty: none.
    """
    training: dict[str, Any] = info.training
    config = info.config
    lines = [
        f'# {info.path.stem}',
        '',
        'Weights of MD-Net (keypoint detectors and descriptor) for mdnet_ros.',
        '',
        '| | |', '|---|---|',
        f'| file | `{info.path.name}`, SHA-256 `{info.sha256}` |',
        f'| network | {config.num_sets} keypoint sets, {config.dim}-d descriptors, '
        f'channels {list(config.channels)}, saliency head of {config.saliency}, '
        f'residual blocks at strides 8, 16 and on their sum {list(config.blocks)} |',
        f'| parameters | {count_parameters(network):,} |',
        f'| cost at {_SIZE[0]}x{_SIZE[1]} | {count_flops(network, *_SIZE) / 1e9:.2f} GFLOP '
        '(a multiply-add counts as two) |',
        '| licence of the weights | Apache-2.0 |',
    ]
    for title, key in (
        ('trained on', 'images'), ('photographs trained on', 'photographs'),
        ('photographs held back', 'held_back'), ('steps', 'steps'),
        ('pairs of views seen', 'pairs'), ('seconds', 'seconds'), ('device', 'device'),
        ('seed', 'seed'), ('started from the weights of SHA-256', 'from_weights_sha256'),
    ):
        if key in training:
            value = training[key]
            text = ', '.join(f'`{v}`' for v in value) if isinstance(value, list) else str(value)
            lines.append(f'| {title} | {text} |')
    if others := training.get('mean_with'):
        text = ', '.join(str(other['sha256']) for other in others)
        lines.append(f'| mean of what the above says and of the weights of SHA-256 | {text} |')
    if before := pairs_before(training):
        lines.append(f'| pairs seen by what it started from | {before} |')
    lines += ['']
    if notes:
        lines += [notes.strip(), '']
    rows = [row for path in attributions for row in _trained_on(read_attribution(path), training)]
    if rows:
        lines += ['## Training photographs', '']
        lines += _count_table('licence', [row['licence'].strip('"') for row in rows])
        lines += _count_table('source', [row['source'].split('@')[0] for row in rows])
    if 'validation' in training:
        lines += [
            '## Validation on held-back photographs', '',
            'Printed by `mdnet train` at the step these weights were taken.', '',
            '| metric | value |', '|---|---|',
            *(f'| {name} | {value:.3f} |' for name, value in training['validation'].items()), '',
        ]
    for table, command in evaluations:
        lines += ['## Evaluation', '', f'`{command}`', '', table, '']
    lines += ['## Settings of the training', '', '```json',
              json.dumps(training.get('config', {}), indent=1), '```', '']
    return '\n'.join(lines)

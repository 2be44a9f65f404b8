"""Accuracy over images seen: the validations of one or several runs in one picture."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdnet_ros.errors import DataError, MissingDependencyError, WeightsError
from mdnet_ros.features.weights import load_weights
from mdnet_ros.files import write_bytes

#: What is drawn, and how it is called.
_METRICS = {
    'mma_1px': 'MMA at 1 px', 'mma_3px': 'MMA at 3 px', 'ms_3px': 'MS at 3 px',
    'repeatability_1px': 'repeatability at 1 px',
}


@dataclass(frozen=True)
class Curve:
    """The validations of a run in their order.

    Attributes:
        name: name of the run's folder.
        pairs: number of view pairs seen up to each, those of the weights it started from included.
        metrics: name -> value at each.
    """

    name: str
    pairs: tuple[int, ...]
    metrics: dict[str, tuple[float, ...]]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {'run': self.name, 'pairs': list(self.pairs),
                **{name: list(values) for name, values in self.metrics.items()}}

    @staticmethod
    def from_json(values: dict[str, Any]) -> Curve:
        """Rebuild from :meth:`to_json`; KeyError, TypeError or ValueError if it is not that."""
        pairs = tuple(int(n) for n in values['pairs'])
        metrics = {name: tuple(float(v) for v in values[name]) for name in _METRICS}
        if any(len(column) != len(pairs) for column in metrics.values()):
            raise ValueError('columns of different length')
        return Curve(str(values['run']), pairs, metrics)


def pairs_before(training: dict[str, Any]) -> int:
    """Pairs seen by what a run started from, and by what that started from.

    Args:
        training: as a weights file holds it.
    """
    parent = training.get('from_weights_training') or {}
    return int(parent.get('pairs', 0)) + pairs_before(parent) if parent else 0


def read_curves(path: Path) -> list[Curve]:
    """Read a run's log, or curves written before: the logs of old runs need not be kept.

    Args:
        path: folder that ``mdnet train`` filled, or a file of ``mdnet curve --json``.

    Raises:
        DataError: neither is there, or the run has not been validated yet.
        MissingDependencyError: TensorBoard is not installed.
    """
    if path.suffix != '.json':
        return [_read_log(path)]
    try:
        return [Curve.from_json(curve) for curve in json.loads(path.read_text())['curves']]
    except (
        OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError
    ) as error:
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())
        raise DataError(f"curves '{path}': not a file of mdnet curve --json: {reason}") from None


def _read_log(run: Path) -> Curve:
    """The validations of a run; raises as :func:`read_curves`."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        raise MissingDependencyError('tensorboard', 'train', 'mdnet curve') from None
    try:
        training = load_weights(run / 'last.safetensors')[1].training
    except WeightsError as error:
        raise DataError(f"run '{run}': expected a folder of mdnet train: {error}") from None
    log = EventAccumulator(str(run / 'tensorboard'), size_guidance={'scalars': 0})
    log.Reload()
    tags = {name: f'validation/{name}' for name in _METRICS}
    if not set(tags.values()) <= set(log.Tags()['scalars']):
        raise DataError(f"run '{run}': not validated yet")
    events = {name: log.Scalars(tag) for name, tag in tags.items()}
    each = training['pairs'] // max(1, training['steps'])
    before = pairs_before(training)
    return Curve(
        run.name,
        tuple(before + each * event.step for event in events['mma_1px']),
        {name: tuple(event.value for event in values) for name, values in events.items()},
    )


def draw_curves(curves: list[Curve], out: Path) -> None:
    """One panel for each metric, one line for each run.

    Args:
        curves: to draw.
        out: PNG file to (re)place.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError('matplotlib', 'train', 'mdnet curve') from None
    figure = Figure(figsize=(10.0, 6.0), layout='constrained')
    panels = figure.subplots(2, 2, sharex=True)
    for panel, (name, title) in zip(panels.flat, _METRICS.items(), strict=True):
        for curve in curves:
            thousands = [pairs / 1000 for pairs in curve.pairs]
            panel.plot(thousands, curve.metrics[name], marker='o', markersize=3, label=curve.name)
        panel.set_title(title)
        panel.grid(alpha=0.3)
    for panel in panels[1]:
        panel.set_xlabel('pairs of views seen, thousands')
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc='outside lower center', ncols=3)
    picture = io.BytesIO()
    figure.savefig(picture, format='png', dpi=90)
    write_bytes(out, picture.getvalue())

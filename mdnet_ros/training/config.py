"""The training's one configuration file, as a tree of frozen dataclasses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mdnet_ros.data.plain import from_plain, parse_yaml, to_plain
from mdnet_ros.errors import DataError
from mdnet_ros.features.network import CONFIGS, MDNetConfig
from mdnet_ros.training.objective import LossWeights
from mdnet_ros.training.photometric import PhotometricRanges
from mdnet_ros.training.warps import WarpRanges


@dataclass(frozen=True)
class Curriculum:
    """Settings that change while a run trains; times are shares of the whole schedule.

    Attributes:
        initial_difficulty: share of the ranges of warps and light at the start, in [0, 1].
        full_difficulty_at: when the whole ranges are reached.
        initial_temperature: temperature of the triplet's soft maximum over negatives at the start:
            high, so that all negatives count about alike.
        final_temperature: temperature at the end: low, so that the hardest counts most.
        final_temperature_at: when the final temperature is reached.
        reliability_at: when the reliability term has its full weight.
    """

    initial_difficulty: float = 0.3
    full_difficulty_at: float = 0.35
    initial_temperature: float = 0.3
    final_temperature: float = 0.03
    final_temperature_at: float = 0.2
    reliability_at: float = 0.15

    def difficulty(self, progress: float) -> float:
        """Share of the ranges of warps and light at a progress in [0, 1]."""
        ramp = min(1.0, progress / self.full_difficulty_at) if self.full_difficulty_at else 1.0
        return self.initial_difficulty + (1.0 - self.initial_difficulty) * ramp

    def temperature(self, progress: float) -> float:
        """Temperature of the triplet's negatives: falls by a constant factor per step."""
        at = self.final_temperature_at
        ramp = min(1.0, progress / at) if at else 1.0
        return self.initial_temperature ** (1.0 - ramp) * self.final_temperature**ramp

    def reliability(self, progress: float) -> float:
        """Share of the reliability term's weight at a progress in [0, 1]."""
        return min(1.0, progress / self.reliability_at) if self.reliability_at else 1.0


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides a training run besides the images.

    Attributes:
        network: a shipped size (``md2net``, ``md2net-light``).
        num_sets: K instead of the network's own; 0 keeps it.
        batch: pairs per step and process.
        side: width and height of a view, pixels; a multiple of 16.
        steps: length of the schedule; replaced by what fits when a time budget is given.
        learning_rate: peak of AdamW's rate.
        warm_up: steps until the peak.
        final_rate: share of the peak left at the end of the cosine.
        weight_decay: AdamW's weight decay.
        clip: largest norm of the gradient.
        averaging: decay per step of the weight average that is exported.
        held_back: share of the images kept for validation, never trained on.
        precision: ``bf16``, ``fp32``, or ``auto``: bf16 where the device computes in it.
        seed: decides everything random.
        checkpoint_every: steps between checkpoints.
        validate_every: steps between validations.
        validation_pairs: how many pairs a validation measures.
    """

    network: str = 'md2net'
    num_sets: int = 0
    batch: int = 16
    side: int = 192
    steps: int = 20000
    learning_rate: float = 2e-3
    warm_up: int = 100
    final_rate: float = 0.01
    weight_decay: float = 1e-4
    clip: float = 5.0
    averaging: float = 0.998
    held_back: float = 0.03
    precision: str = 'auto'
    seed: int = 0
    checkpoint_every: int = 200
    validate_every: int = 1000
    validation_pairs: int = 48
    curriculum: Curriculum = field(default_factory=Curriculum)
    losses: LossWeights = field(default_factory=LossWeights)
    warps: WarpRanges = field(default_factory=WarpRanges)
    light: PhotometricRanges = field(default_factory=PhotometricRanges)

    def __post_init__(self) -> None:
        for name, value in _numbers(to_plain(self)):
            if not math.isfinite(value):
                raise DataError(f'{name}: expected a finite number, got {value}')
        for name in ('learning_rate', 'weight_decay', 'clip'):
            if getattr(self, name) < 0:
                raise DataError(f'{name}: expected 0 or more, got {getattr(self, name)}')
        if self.network not in CONFIGS:
            raise DataError(f"network '{self.network}': expected one of {sorted(CONFIGS)}")
        if self.side < 64 or self.side % 16:
            raise DataError(f'side: expected a multiple of 16 from 64 up, got {self.side}')
        if self.precision not in ('auto', 'bf16', 'fp32'):
            raise DataError(f"precision '{self.precision}': expected auto, bf16 or fp32")
        for name in ('batch', 'steps', 'warm_up', 'checkpoint_every', 'validate_every',
                     'validation_pairs'):
            if getattr(self, name) < 1:
                raise DataError(f'{name}: expected at least 1, got {getattr(self, name)}')
        for name in ('held_back', 'averaging', 'final_rate'):
            if not 0 <= getattr(self, name) < 1:
                raise DataError(f'{name}: expected 0 up to below 1, got {getattr(self, name)}')
        if self.warps.minimum_scale <= 0:
            raise DataError(
                f'warps.minimum_scale: expected over 0, got {self.warps.minimum_scale}'
            )
        for name in ('scale', 'tilt'):
            if getattr(self.warps, name) < 1:
                raise DataError(
                    f'warps.{name}: expected 1 or more, got {getattr(self.warps, name)}'
                )
        if not 0 <= self.num_sets <= 8:
            raise DataError(f'num_sets: expected 0 to 8, got {self.num_sets}')

    def network_config(self) -> MDNetConfig:
        """Shape of the network to train."""
        config = CONFIGS[self.network]
        return dataclasses.replace(config, num_sets=self.num_sets) if self.num_sets else config

    def to_dict(self) -> dict[str, Any]:
        """Return the plain values that the file would hold."""
        plain: dict[str, Any] = to_plain(self)
        return plain


def _numbers(plain: Any, name: str = '') -> Iterator[tuple[str, float]]:
    """Yield every number of a table of settings with its dotted name."""
    if isinstance(plain, dict):
        for key, value in plain.items():
            yield from _numbers(value, f'{name}.{key}'.lstrip('.'))
    elif isinstance(plain, list):
        for value in plain:
            yield from _numbers(value, name)
    elif isinstance(plain, int | float):
        yield name, plain


def config_from_dict(values: dict[str, Any]) -> TrainingConfig:
    """Build the configuration from plain values; keys left out keep their default.

    Raises:
        DataError: an unknown key, or a value of the wrong type.
    """
    config: TrainingConfig = from_plain(TrainingConfig, values, 'training configuration')
    return config


def load_config(path: str | Path | None, overrides: dict[str, Any]) -> TrainingConfig:
    """Read a YAML file and let some values replace its own.

    Args:
        path: path of the file; None for the defaults.
        overrides: top-level values, and ``'losses.peaky'``-like dotted ones.

    Raises:
        DataError: unreadable, not YAML, unknown keys or wrong types.
    """
    values: Any = {}
    if path is not None:
        try:
            text = Path(path).read_text(encoding='utf-8')
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"config '{path}': cannot be read: {error}") from None
        values = parse_yaml(text, f"config '{path}'") or {}
    if not isinstance(values, dict):
        raise DataError(f"config '{path}': expected a table of settings")
    for key, value in overrides.items():
        table = values
        *parents, last = key.split('.')
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise DataError(f"config: '{key}': '{parent}' is not a table of settings")
        table[last] = value
    return config_from_dict(values)

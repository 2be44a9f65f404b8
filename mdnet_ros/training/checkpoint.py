"""Checkpoints: all that a run needs to go on where it stopped."""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from mdnet_ros.errors import WeightsError
from mdnet_ros.files import write_bytes


@dataclass
class Checkpoint:
    """State of a run after ``step`` steps.

    Random numbers need no state here: each step seeds its own from the run's seed and the step.

    Attributes:
        config: as plain values.
        shape: the network's configuration as plain values; empty in files written before it was
            stored.
        network: state dict of the trained network.
        average: state dict of the weight average.
        optimiser: state dict.
        step: steps done.
        steps: length of the schedule.
        seconds: time trained so far.
        waited: of these, seconds spent waiting for data.
        best: validation score of the best weights so far.
        origin: what the run started from, as weights files say it; empty for random weights.
    """

    config: dict[str, Any]
    shape: dict[str, Any]
    network: dict[str, Any]
    average: dict[str, Any]
    optimiser: dict[str, Any]
    step: int
    steps: int
    seconds: float
    waited: float
    best: float
    origin: dict[str, Any]


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write; the name appears (or is replaced) only once the file is complete and on disk.

    Raises:
        DataError: it cannot be written.
    """
    content = io.BytesIO()
    torch.save(vars(checkpoint), content)
    write_bytes(path, content.getvalue())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read without running any code from the file.

    Raises:
        WeightsError: missing, corrupt, or not a checkpoint.
    """
    try:
        values = torch.load(path, map_location='cpu', weights_only=True)
        # Files of version 0.1.0 hold the average as PyTorch's AveragedModel has it.
        values['average'] = {
            name.removeprefix('module.'): value
            for name, value in values['average'].items() if name != 'n_averaged'
        }
        values.setdefault('shape', {})
        return Checkpoint(**{f.name: values[f.name] for f in fields(Checkpoint)})
    except Exception as error:  # torch.load raises many kinds for a damaged file
        reason = ' '.join(str(error).split())[:160]
        raise WeightsError(f"checkpoint '{path}': cannot be loaded: {reason}") from None



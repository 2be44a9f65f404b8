"""The summary of a run, printed and written when it ends."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class RunSummary:
    """The length, speed and results of a run.

    Attributes:
        steps: number of steps done.
        pairs: number of pairs of views seen.
        seconds: time trained.
        pairs_per_second, images_per_second: throughput.
        waiting_share: share of the time that was spent waiting for data.
        parameters: number of trained numbers of the network.
        device: name of the device.
        processes: number of processes that trained together.
        best: validation metrics of the best weights.
        last: validation metrics of the last weights.
        complaints: signs of trouble at the last validation, in words.
        finished: whether the schedule was completed.
    """

    steps: int
    pairs: int
    seconds: float
    pairs_per_second: float
    images_per_second: float
    waiting_share: float
    parameters: int
    device: str
    processes: int
    best: dict[str, float]
    last: dict[str, float]
    complaints: list[str]
    finished: bool


def describe_device(device: torch.device) -> str:
    """Name a device in words, for records."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'CPU, {torch.get_num_threads()} threads of {os.cpu_count()}'

"""What is told of a run when it ends."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class RunSummary:
    """What a run did.

    Attributes:
        steps: done, of the whole schedule. pairs: of images seen. seconds: trained.
        pairs_per_second, images_per_second: throughput; waiting_share: of that time spent waiting
            for data.
        best: figures of the best weights. last: of the last. complaints: signs of trouble.
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
    """The device in words, for records."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    return f'CPU, {torch.get_num_threads()} threads of {os.cpu_count()}'

"""Times of repeated work, and the rates that a machine reaches at its best."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

_WARM_UP = 3


@dataclass(frozen=True)
class Timing:
    """Median and 99th percentile of repeated runs, milliseconds."""

    median_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Rates:
    """What the machine does at its best, at one precision.

    Attributes:
        flops: floating-point operations a second, in a large matrix product.
        bandwidth: bytes a second read and written, in a large copy.
    """

    flops: float
    bandwidth: float

    def floor_ms(self, operations: float, moved: float) -> float:
        """The least time for some operations and some bytes, milliseconds."""
        return 1e3 * max(operations / self.flops, moved / self.bandwidth)


def measure(work: Callable[[], object], device: torch.device, repetitions: int) -> Timing:
    """Time some work as :func:`sample` does."""
    times = sample(work, device, repetitions)
    return Timing(float(np.median(times)), float(np.percentile(times, 99)))


def sample(work: Callable[[], object], device: torch.device, repetitions: int) -> list[float]:
    """Milliseconds of each run of some work, after a warm-up; by device events on CUDA."""
    for _ in range(_WARM_UP):
        work()
    times = []
    for _ in range(repetitions):
        if device.type == 'cuda':
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize(device)
            start.record()  # type: ignore[no-untyped-call]
            work()
            end.record()  # type: ignore[no-untyped-call]
            torch.cuda.synchronize(device)
            times.append(float(start.elapsed_time(end)))
        else:
            begin = time.perf_counter()
            work()
            times.append(1e3 * (time.perf_counter() - begin))
    return times


def measure_rates(device: torch.device, dtype: torch.dtype, repetitions: int, side: int) -> Rates:
    """The best rates of a product of two square matrices and of a large copy.

    Args:
        device: where.
        dtype: of the matrices.
        repetitions: of each.
        side: of the matrices; large ones come closer to the machine's best.
    """
    a = torch.rand(side, side, device=device).to(dtype)
    out = torch.empty_like(a)
    product = min(sample(lambda: torch.mm(a, a, out=out), device, repetitions))
    large = torch.zeros(16 * side * side, dtype=torch.uint8, device=device)
    target = torch.empty_like(large)
    copy = min(sample(lambda: target.copy_(large), device, repetitions))
    return Rates(
        2.0 * side**3 / (1e-3 * product),
        2.0 * large.numel() / (1e-3 * copy),
    )

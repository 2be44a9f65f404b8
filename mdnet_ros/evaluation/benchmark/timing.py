"""Times and memory of repeated work, and the best rates of a machine."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mdnet_ros.features.backends.frame_step import capture_graph

_WARM_UP = 3


@dataclass(frozen=True)
class Timing:
    """Median and 99th percentile of repeated runs, milliseconds."""

    median_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Rates:
    """Best rates of a machine at one precision.

    Attributes:
        flops: floating-point operations per second of a large matrix product.
        bandwidth: bytes per second read and written by a large copy.
    """

    flops: float
    bandwidth: float

    def lower_bound_ms(self, operations: float, moved: float) -> float:
        """Lower bound of the time for some operations and moved bytes, milliseconds."""
        return 1e3 * max(operations / self.flops, moved / self.bandwidth)


def measure(work: Callable[[], object], device: torch.device, repetitions: int) -> Timing:
    """Time one piece of work, see :func:`sample`."""
    return measure_in_turn([work], device, repetitions)[0]


def measure_in_turn(
    works: Sequence[Callable[[], object]], device: torch.device, repetitions: int
) -> list[Timing]:
    """Time several pieces of work in turn, so that what slows the machine slows them all."""
    return [
        Timing(float(np.median(each)), float(np.percentile(each, 99)))
        for each in _in_turn(works, device, repetitions).T
    ]


def sample(work: Callable[[], object], device: torch.device, repetitions: int) -> list[float]:
    """Return the milliseconds of each run of some work, after a warm-up; by events on CUDA."""
    return _in_turn([work], device, repetitions)[:, 0].tolist()


def as_graph(work: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """Return work whose kernels are started as one CUDA graph; elsewhere the work itself."""
    if device.type != 'cuda':
        return work
    graph, kept = capture_graph(work, device)

    def replay() -> object:
        graph.replay()
        return kept  # or its memory would be free for others

    return replay


def _in_turn(
    works: Sequence[Callable[[], object]], device: torch.device, repetitions: int
) -> np.ndarray:
    """Return (repetitions, works) milliseconds, after a warm-up of each."""
    for work in works:
        for _ in range(_WARM_UP):
            work()
    return np.array([[_once(work, device) for work in works] for _ in range(repetitions)])


def _once(work: Callable[[], object], device: torch.device) -> float:
    """Return the milliseconds of one run."""
    if device.type == 'cuda':
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()  # type: ignore[no-untyped-call]
        work()
        end.record()  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(device)
        return float(start.elapsed_time(end))
    begin = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - begin)


def measure_rates(device: torch.device, dtype: torch.dtype, repetitions: int, side: int) -> Rates:
    """Measure the best rates of a product of two square matrices and of a large copy.

    Args:
        device: device to measure.
        dtype: type of the matrices.
        repetitions: number of runs of each.
        side: side of the matrices; large ones come closer to the machine's best.
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


def peak_megabytes(work: Callable[[], object], device: torch.device) -> float | None:
    """Measure the peak memory of some work beyond what was in use before, MiB.

    On CUDA the allocations count, on the CPU the process's resident pages. The work runs twice,
    since the first run loads libraries.

    Returns:
        MiB; None on a CPU without Linux's record of the peak.
    """
    work()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    status = Path('/proc/self/status')
    try:
        ctypes.CDLL(None).malloc_trim(0)  # or malloc reuses pages it kept, which are not counted
        Path('/proc/self/clear_refs').write_text('5')  # reset the peak
    except (OSError, AttributeError, TypeError):
        return None
    before = _kilobytes(status, 'VmRSS')
    work()
    return (_kilobytes(status, 'VmHWM') - before) / 2**10


def _kilobytes(status: Path, key: str) -> int:
    """Read a line of a process's status."""
    line = next(line for line in status.read_text().splitlines() if line.startswith(key + ':'))
    return int(line.split()[1])

"""Batches of view pairs, made ahead of the step that needs them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import replace

import torch

from mdnet_ros.training.config import TrainingConfig
from mdnet_ros.training.images import ImagePool
from mdnet_ros.training.photometric import change_light
from mdnet_ros.training.views import ViewPair, make_pairs


def step_generator(
    seed: int, step: int, rank: int, stream: int, device: torch.device | None = None
) -> torch.Generator:
    """The random numbers of one step: the same whether or not the run was interrupted before.

    Args:
        seed: seed of the run.
        step: number of the step.
        rank: rank of this process.
        stream: what the numbers are for; different streams are independent.
        device: where the numbers are drawn; None means the CPU.
    """
    mixed = ((seed * 1_000_003 + step) * 1_009 + rank) * 11 + stream
    return torch.Generator(device or 'cpu').manual_seed(mixed % (2**63 - 1))


def make_batch(
    pool: ImagePool, config: TrainingConfig, step: int, steps: int, rank: int = 0
) -> ViewPair:
    """Make the pairs of one step, on the pool's device."""
    device = pool.pixels.device
    generator = step_generator(config.seed, step, rank, 0, device)
    difficulty = config.curriculum.difficulty(step / steps)
    index = torch.randint(0, len(pool), (config.batch,), generator=generator, device=device)
    pair = make_pairs(pool, index, config.side, config.warps, difficulty, generator)
    return replace(pair, images=change_light(pair.images, config.light, difficulty, generator))


class Prefetcher:
    """Makes batches in a thread, a few ahead; the step only takes them.

    Args:
        pool: photographs to draw from.
        config: configuration of the run.
        first: step of the first batch.
        steps: length of the schedule.
        rank: rank of this process among those that train together.
        ahead: how many batches may wait.
    """

    def __init__(
        self,
        pool: ImagePool,
        config: TrainingConfig,
        first: int,
        steps: int,
        rank: int = 0,
        ahead: int = 2,
    ) -> None:
        self._queue: queue.Queue[ViewPair | BaseException] = queue.Queue(ahead)
        self._stop = threading.Event()
        self._arguments = (pool, config, first, steps, rank)
        self._thread = threading.Thread(target=self._work, daemon=True, name='prefetch')
        self._thread.start()

    def _work(self) -> None:
        pool, config, first, steps, rank = self._arguments
        item: ViewPair | BaseException
        for step in range(first, steps):
            try:
                item = make_batch(pool, config, step, steps, rank)
            except BaseException as error:  # handed to the training thread, which raises it
                item = error
            while not self._stop.is_set():
                try:
                    self._queue.put(item, timeout=0.2)
                    break
                except queue.Full:
                    continue
            if self._stop.is_set() or isinstance(item, BaseException):
                return

    def __iter__(self) -> Iterator[ViewPair]:
        return self

    def __next__(self) -> ViewPair:
        item = self._queue.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._thread.join(timeout=10.0)

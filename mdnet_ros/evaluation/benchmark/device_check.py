"""Checks and timings of a GPU in one run: do graphs give what kernels give, and how fast is it.

Everything is written into one folder, so that a few minutes on a borrowed card are enough. The
same code runs on a CPU, without graphs, to see that it works before a card is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mdnet_ros.errors import MDNetError
from mdnet_ros.evaluation.benchmark.protocol import (
    Benchmark,
    BenchmarkResult,
    BenchmarkSettings,
    make_frames,
)
from mdnet_ros.evaluation.benchmark.timing import Timing, as_graph, measure
from mdnet_ros.features.backends.frame_step import FrameSteps
from mdnet_ros.features.backends.pytorch import WeightsBackend
from mdnet_ros.features.extractor import MDNetExtractor
from mdnet_ros.features.matching import match_mutual_nearest
from mdnet_ros.files import write_json, write_text
from mdnet_ros.progress import Progress

NETWORKS = ('md2net', 'md2net-light')
#: Largest share of keypoints without a partner within a tenth of a pixel, by precision. Kernels
#: started one by one and a graph may choose other algorithms, which round differently.
TOLERANCES = {'fp32': 0.01, 'fp16': 0.03, 'bf16': 0.1}
_NEAR = 0.1
_BATCHES = (1, 32)
_DRY_BATCHES = (1, 2)
_PROFILED = 20
_ROWS = 40


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: name of the check.
        passed: whether it holds.
        detail: the values behind it.
    """

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class StepTiming:
    """Times of one network at one size and batch.

    Attributes:
        network: name of the weights.
        size: (width, height), pixels.
        batch: images of a pass.
        precision: precision of the network.
        bare: the network alone, as one graph on CUDA.
        whole: uint8 images on the host in, features on the host out, matched to the images before.
        ratio: the whole's median over the bare network's.
        images_per_second: that the median allows.
    """

    network: str
    size: tuple[int, int]
    batch: int
    precision: str
    bare: Timing
    whole: Timing
    ratio: float
    images_per_second: float


@dataclass(frozen=True)
class DeviceCheckResult:
    """Everything that was found about a device.

    Attributes:
        device: name of the device.
        torch: version of PyTorch.
        checks: what was checked.
        steps: times of the bare network and of the whole pass.
        benchmark: the benchmark's result.
    """

    device: str
    torch: str
    checks: tuple[Check, ...]
    steps: tuple[StepTiming, ...]
    benchmark: BenchmarkResult

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in self.checks)


def share_apart(a: np.ndarray, b: np.ndarray) -> float:
    """Return the share of (N, 2) points of ``a`` that have none of ``b`` within a tenth px."""
    if not len(a) or not len(b):
        return float(len(a) != len(b))
    nearest = np.array([np.abs(b - point).max(1).min() for point in a])
    return float((nearest > _NEAR).mean())


class DeviceCheck:
    """Checks and times a device.

    Args:
        device: ``cuda``, or ``cpu`` for a dry run.
        out: folder for the results, made if need be.
        images: (H, W) uint8 gray images, real ones if at hand; None: synthetic ones.
        sizes: (width, height) of the images that are timed.
        keypoints: budgets that are timed.
        repetitions: repetitions of each timing.
    """

    def __init__(
        self,
        device: str,
        out: Path,
        images: Sequence[np.ndarray] | None = None,
        sizes: tuple[tuple[int, int], ...] = ((640, 480), (1280, 720)),
        keypoints: tuple[int, ...] = (512, 2048, 8192),
        repetitions: int = 50,
    ) -> None:
        self._device, self._out = device, out
        self._images = list(images) if images else make_frames(*sizes[0])[:3]
        self._sizes, self._keypoints, self._repetitions = sizes, keypoints, repetitions
        self._torch_device = torch.device(device)

    def run(self) -> DeviceCheckResult:
        """Do everything.

        Files appear one by one, so that what is done is kept if the time runs out.
        """
        self._out.mkdir(parents=True, exist_ok=True)
        cuda = self._torch_device.type == 'cuda'
        batches = _BATCHES if cuda else _DRY_BATCHES
        jobs = [
            (network, size, batch)
            for network in NETWORKS for size in self._sizes
            for batch in (batches if size == self._sizes[0] else batches[:1])
        ]  # fmt: skip
        precisions = [(network, p) for network in NETWORKS for p in self._precisions()]
        total = len(precisions) + len(jobs) + len(NETWORKS) + cuda
        with Progress(total=total, desc='gpu-check', unit='measurement') as bar:
            checks: list[Check] = []
            for network, precision in precisions:
                checks.append(self._agrees(network, precision))
                bar.update()
            if cuda:
                checks.append(self._waits_once())
                bar.update()
            self._write('checks.json', {
                'device': self._device_name(), 'torch': torch.__version__,
                'checks': [asdict(check) for check in checks],
            })
            steps: list[StepTiming] = []
            for job in jobs:
                steps.append(self._times(*job))
                self._write('steps.json', {'steps': [asdict(step) for step in steps]})
                bar.update()
            for network in NETWORKS:
                write_text(self._out / f'profile-{network}.txt', self._profile(network))
                bar.update()
        benchmark = Benchmark(BenchmarkSettings(
            NETWORKS, self._sizes, self._keypoints, (2048, 8192) if cuda else (512,),
            (1, 2, 4, 8), self._device, self._repetitions,
        ), 2048 if cuda else 256).run()
        self._write('benchmark.json', benchmark.to_json())
        return DeviceCheckResult(
            self._device_name(), torch.__version__, tuple(checks), tuple(steps), benchmark
        )

    def _precisions(self) -> tuple[str, ...]:
        return ('fp32', 'fp16', 'bf16') if self._torch_device.type == 'cuda' else ('fp32',)

    def _extractor(self, network: str, precision: str = 'auto', budget: int = 2048) -> _Extractor:
        extract = _Extractor(network, self._device, budget, precision=precision)
        if self._torch_device.type != 'cuda':
            extract.use_steps()
        return extract

    def _agrees(self, network: str, precision: str) -> Check:
        """Compare the graph's features and matches with those of single kernels."""
        extract = self._extractor(network, precision)
        graph = [extract(image) for image in self._images]
        extract.use_kernels()
        single = [extract(image) for image in self._images]
        apart = max(
            share_apart(a.keypoints, b.keypoints) for a, b in zip(graph, single, strict=True)
        )
        matched = [len(match_mutual_nearest(b, a)) for a, b in zip(graph, graph[1:], strict=False)]
        expected = [
            len(match_mutual_nearest(b, a)) for a, b in zip(single, single[1:], strict=False)
        ]
        off = max(
            (abs(m - n) / max(1, n) for m, n in zip(matched, expected, strict=True)), default=0.0
        )
        passed = max(apart, off) <= TOLERANCES[precision]
        detail = f'{apart:.4f} of the keypoints apart, matches {matched} and {expected}'
        return Check(f'{network} {precision}: graph against single kernels', passed, detail)

    def _waits_once(self) -> Check:
        """Count how often the host waits for the device in a frame."""
        extract = self._extractor('md2net-light')
        image = self._images[0]
        extract(image)
        waits: list[int] = []
        original = torch.cuda.Stream.synchronize

        def counted(self: torch.cuda.Stream) -> None:
            torch.cuda.set_sync_debug_mode('default')
            original(self)
            waits.append(1)
            torch.cuda.set_sync_debug_mode('error')

        torch.cuda.Stream.synchronize = counted  # type: ignore[method-assign]
        torch.cuda.set_sync_debug_mode('error')
        try:
            extract(image)
            detail = f'{len(waits)} wait'
        except RuntimeError as error:
            waits, detail = [], ' '.join(str(error).split())[:200]
        finally:
            torch.cuda.set_sync_debug_mode('default')
            torch.cuda.Stream.synchronize = original  # type: ignore[method-assign]
        return Check('the host waits once a frame', len(waits) == 1, detail)

    def _times(self, network: str, size: tuple[int, int], batch: int) -> StepTiming:
        extract = self._extractor(network)
        frames = make_frames(*size)
        images = [frames[i % len(frames)] for i in range(batch)]
        repetitions = self._repetitions if batch == 1 else max(5, self._repetitions // 5)
        if self._torch_device.type != 'cuda':
            repetitions = min(repetitions, 2)
        bare = measure(extract.bare_network(images), self._torch_device, repetitions)
        whole = measure(lambda: extract.extract_batch(images), self._torch_device, repetitions)
        return StepTiming(
            network, size, batch, extract.precision, bare, whole,
            whole.median_ms / bare.median_ms, 1e3 * batch / whole.median_ms,
        )

    def _profile(self, network: str) -> str:
        """Return the time of each kernel over some frames, as a table."""
        from torch.profiler import ProfilerActivity, profile

        extract = self._extractor(network)
        image = make_frames(*self._sizes[0])[0]
        extract(image)
        cuda = self._torch_device.type == 'cuda'
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        frames = _PROFILED if cuda else 2
        with profile(activities=activities) as found:
            for _ in range(frames):
                extract(image)
        order = 'self_cuda_time_total' if cuda else 'self_cpu_time_total'
        table = found.key_averages().table(sort_by=order, row_limit=_ROWS)
        return f'{network}, {frames} frames, {self._device_name()}\n{table}\n'

    def _device_name(self) -> str:
        if self._torch_device.type == 'cuda':
            return torch.cuda.get_device_name(self._torch_device)
        return 'cpu (dry run)'

    def _write(self, name: str, document: dict[str, Any]) -> None:
        write_json(self._out / name, document)


class _Extractor(MDNetExtractor):
    """MD-Net whose pass of fixed shapes can be put in and taken out."""

    @property
    def _weights_backend(self) -> WeightsBackend:
        if not isinstance(self.backend, WeightsBackend):
            raise MDNetError(f"'{self.name}': expected a weights file")
        return self.backend

    def use_steps(self) -> None:
        """Use the pass of fixed shapes without a graph, as a CPU can."""
        self._weights_backend.steps = FrameSteps(
            self._weights_backend.network, self.device, capture=False
        )

    def use_kernels(self) -> None:
        """Start the kernels one by one."""
        self._weights_backend.steps = None

    def bare_network(self, images: Sequence[np.ndarray]) -> Callable[[], object]:
        """Return work that runs the network alone on images that are on the device."""
        batch = torch.from_numpy(np.stack(images))[:, None].to(self.device)
        return as_graph(partial(self._weights_backend.run_network, batch), self.device)

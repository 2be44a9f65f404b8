"""Times of extraction, matching and the whole tracker step, and their lower bounds."""

from __future__ import annotations

import platform
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from mdnet_ros.baselines.registry import FLOW_SUFFIX, ExtractorSpec, split_refinement
from mdnet_ros.data.plain import to_plain
from mdnet_ros.errors import MDNetError
from mdnet_ros.evaluation.benchmark.timing import (
    Rates,
    Timing,
    as_graph,
    measure,
    measure_in_turn,
    measure_rates,
    peak_megabytes,
)
from mdnet_ros.evaluation.klt import KltTracker
from mdnet_ros.features.backends.base import PRECISIONS
from mdnet_ros.features.backends.pytorch import WeightsBackend
from mdnet_ros.features.extractor import Extractor, MDNetExtractor, choose_device
from mdnet_ros.features.matching import has_fast_integers, mutual_nearest
from mdnet_ros.features.network import SIZE_MULTIPLE, MDNet, count_flops, count_parameters
from mdnet_ros.features.tracking import FrameTracker
from mdnet_ros.progress import Progress

#: Number of frames, and how far the picture moves from one to the next, pixels.
_FRAMES, _SHIFT = 6, 3
#: Descriptor length of the matching benchmark: that of md2net.
_DIM = 128


@dataclass(frozen=True)
class BenchmarkSettings:
    """Settings of the benchmark.

    Attributes:
        extractors: names or paths of extractors, and ``klt``; ratios refer to the first.
        sizes: (width, height) of the images, pixels.
        keypoints: budgets of the extraction.
        matching: numbers of descriptors in each of the two images.
        sets: numbers of keypoint sets to match within.
        device: ``auto``, ``cpu`` or ``cuda``.
        repetitions: number of runs of each measurement, after a warm-up.
        weights_dir: folder with weights of baselines.
    """

    extractors: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    keypoints: tuple[int, ...]
    matching: tuple[int, ...]
    sets: tuple[int, ...]
    device: str = 'auto'
    repetitions: int = 50
    weights_dir: Path | None = None


@dataclass(frozen=True)
class ExtractorRow:
    """Times of one extractor at one image size and keypoint budget.

    Attributes:
        name: name of the extractor.
        size: (width, height) of the image, pixels.
        keypoints: keypoint budget.
        found: number of keypoints found in the last frame.
        precision: precision of the network; empty for baselines.
        network: time of the network alone, on CUDA as one graph; None for baselines and exported
            files.
        extraction: time from an image to its features; None for KLT, which has no features.
        step: time of extraction, matching and tracking.
        fps: frames per second that the step allows.
        floor_ms: lower bound of the network's time; None for baselines.
        floor_ratio: median of the extraction / lower bound.
        network_ratio: median of the step / median of the network.
        step_ratio: median of the step / median of the first extractor's step.
        memory_mb: peak memory so far, MiB: allocations on CUDA, else the process.
    """

    name: str
    size: tuple[int, int]
    keypoints: int
    found: int
    precision: str
    network: Timing | None
    extraction: Timing | None
    step: Timing
    fps: float
    floor_ms: float | None
    floor_ratio: float | None
    network_ratio: float | None
    step_ratio: float
    memory_mb: float


@dataclass(frozen=True)
class MatchingRow:
    """Time of matching random unit descriptors that are spread evenly over the sets.

    Attributes:
        keypoints: number of keypoints in each of the two images.
        sets: number of sets within which matches are sought.
        products: precision of the descriptors' products: ``fp32``, or ``int8`` as in the tracker.
        timing: time of the matching.
        floor_ms: lower bound of the time in float32.
        floor_ratio: median / lower bound.
        one_set_ratio: median / median with one set; None where one set was not measured.
        memory_mb: peak memory beside the descriptors, MiB; None where not known.
    """

    keypoints: int
    sets: int
    products: str
    timing: Timing
    floor_ms: float
    floor_ratio: float
    one_set_ratio: float | None
    memory_mb: float | None


@dataclass(frozen=True)
class BenchmarkResult:
    """Result of the benchmark.

    Attributes:
        settings: settings of the benchmark.
        device: name of the device.
        threads: number of CPU threads.
        extractors: one row for each extractor, size and budget.
        matching: one row for each number of keypoints and of sets.
        unavailable: why an extractor was left out, by name.
    """

    settings: BenchmarkSettings
    device: str
    threads: int
    extractors: tuple[ExtractorRow, ...]
    matching: tuple[MatchingRow, ...]
    unavailable: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON document."""
        return {'benchmark': 'speed', **to_plain(self)}


def make_frames(width: int, height: int) -> list[np.ndarray]:
    """Make (H, W) uint8 frames of a picture that moves left and has structure at all scales."""
    random = np.random.default_rng(0)
    wide = width + _FRAMES * _SHIFT
    picture = np.zeros((height, wide), np.float32)
    for scale in (1, 2, 4, 8, 16, 32):
        noise = random.normal(size=(-(-height // scale), -(-wide // scale))).astype(np.float32)
        picture += scale**0.5 * cv2.resize(noise, (wide, height))
    gray = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)  # type: ignore[call-overload]
    return [
        np.ascontiguousarray(gray[:, i * _SHIFT : i * _SHIFT + width]) for i in range(_FRAMES)
    ]


def network_cost(network: MDNet, width: int, height: int, bytes_each: int) -> tuple[int, int]:
    """Return operations and least bytes moved for an image: weights, input and output once each."""
    width += -width % SIZE_MULTIPLE
    height += -height % SIZE_MULTIPLE
    config = network.config
    numbers = count_parameters(network) + width * height * (1 + config.num_sets + config.dim / 16)
    return count_flops(network, width, height), int(numbers * bytes_each)


class _Cycle:
    """Endless cycle of frames with stamps."""

    def __init__(self, frames: Sequence[np.ndarray]) -> None:
        self._frames, self._count = frames, 0

    def next(self) -> tuple[np.ndarray, int]:
        self._count += 1
        return self._frames[self._count % len(self._frames)], self._count


class Benchmark:
    """Runs the measurements one after the other.

    Args:
        settings: settings of the benchmark.
        matrix_side: side of the matrices that the machine's rates are measured with.
    """

    def __init__(self, settings: BenchmarkSettings, matrix_side: int = 2048) -> None:
        self.settings = settings
        self.device = choose_device(settings.device)
        self._side = matrix_side
        self._rates: dict[torch.dtype, Rates] = {}

    def run(self) -> BenchmarkResult:
        """Run all measurements; extractors that cannot run are named in the result."""
        settings = self.settings
        jobs = [
            (name, size, budget)
            for size in settings.sizes for budget in settings.keypoints
            for name in settings.extractors
        ]  # fmt: skip
        rows: list[ExtractorRow] = []
        matching: list[MatchingRow] = []
        unavailable: dict[str, str] = {}
        comparisons = [
            (count, sets, exact)
            for count in settings.matching for exact in self._products() for sets in settings.sets
        ]  # fmt: skip
        total = len(jobs) + len(comparisons)
        with Progress(total=total, desc='benchmark', unit='measurement', disable=None) as bar:
            for name, size, budget in jobs:
                try:
                    rows.append(self._extractor(name, size, budget, rows))
                except MDNetError as error:
                    unavailable[name] = str(error)
                bar.update()
            for comparison in comparisons:
                matching.append(self._matching(*comparison, matching))
                bar.update()
        return BenchmarkResult(
            settings, self._device_name(), torch.get_num_threads(), tuple(rows), tuple(matching),
            unavailable,
        )

    def rates(self, precision: str) -> Rates:
        """Return the machine's best rates at a precision, which are measured once."""
        dtype = PRECISIONS[precision]
        if dtype not in self._rates:
            self._rates[dtype] = measure_rates(
                self.device, dtype, self.settings.repetitions, self._side
            )
        return self._rates[dtype]

    def _extractor(
        self, name: str, size: tuple[int, int], budget: int, before: list[ExtractorRow]
    ) -> ExtractorRow:
        if self.device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats(self.device)
        pictures, repetitions = make_frames(*size), self.settings.repetitions
        frames, others = _Cycle(pictures), _Cycle(pictures)
        extraction = bound = network = None
        precision = ''
        if name == KltTracker.name:
            klt = KltTracker(budget)
            step = measure(lambda: klt.update(*frames.next()), self.device, repetitions)
            found = len(klt.update(*frames.next()).features)
        else:
            baseline, refinement = split_refinement(name)
            spec = ExtractorSpec(baseline, budget, self.settings.device, self.settings.weights_dir)
            extract = spec.create()
            name = spec.name + (FLOW_SUFFIX if refinement == 'flow' else '')
            tracker = FrameTracker(exact=spec.exact, refinement=refinement)
            works: list[Callable[[], object]] = [
                lambda: extract(others.next()[0]),
                lambda: _step(extract, tracker, frames),
            ]
            if isinstance(extract, MDNetExtractor) and isinstance(extract.backend, WeightsBackend):
                image = torch.from_numpy(pictures[0])[None, None].to(self.device)
                works.append(as_graph(partial(extract.backend.run_network, image), self.device))
            extraction, step, *rest = measure_in_turn(works, self.device, repetitions)
            network = rest[0] if rest else None
            found = len(extract(pictures[0]))
            if isinstance(extract, MDNetExtractor):
                precision = extract.precision
                cost = network_cost(
                    MDNet(extract.info.config), *size, PRECISIONS[precision].itemsize
                )
                bound = self.rates(precision).lower_bound_ms(*cost)
        first = next((r for r in before if (r.size, r.keypoints) == (size, budget)), None)
        return ExtractorRow(
            name, size, budget, found, precision, network, extraction, step,
            1e3 / step.median_ms, bound,
            extraction.median_ms / bound if extraction and bound else None,
            step.median_ms / network.median_ms if network else None,
            step.median_ms / (first.step if first else step).median_ms,
            self._memory_mb(),
        )

    def _products(self) -> tuple[bool, ...]:
        """Return whether to measure exact products, and those of the tracker where they differ."""
        return (True, False) if has_fast_integers(self.device) else (True,)

    def _matching(
        self, count: int, sets: int, exact: bool, before: list[MatchingRow]
    ) -> MatchingRow:
        each = max(1, count // sets)
        generator = torch.Generator().manual_seed(0)
        a, b = (
            torch.nn.functional.normalize(
                torch.randn(sets, each, _DIM, generator=generator), dim=-1
            ).to(self.device)
            for _ in range(2)
        )
        valid = torch.ones(sets, each, dtype=torch.bool, device=self.device)
        match = partial(mutual_nearest, a, valid, b, valid, exact)
        memory = peak_megabytes(match, self.device)
        timing = measure(match, self.device, self.settings.repetitions)
        # In float32; the table of similarities is written once and read once.
        bound = self.rates('fp32').lower_bound_ms(2.0 * sets * each**2 * _DIM, 8.0 * sets * each**2)
        products = 'fp32' if exact else 'int8'
        one = next(
            (r for r in before if (r.keypoints, r.sets, r.products) == (count, 1, products)), None
        )
        ratio = 1.0 if sets == 1 else timing.median_ms / one.timing.median_ms if one else None
        return MatchingRow(
            count, sets, products, timing, bound, timing.median_ms / bound, ratio, memory
        )

    def _memory_mb(self) -> float:
        if self.device.type == 'cuda':
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    def _device_name(self) -> str:
        if self.device.type == 'cuda':
            return torch.cuda.get_device_name(self.device)
        return f'cpu, {platform.machine()}'


def _step(extract: Extractor, tracker: FrameTracker, frames: _Cycle) -> None:
    image, stamp_ns = frames.next()
    tracker.update(extract(image), stamp_ns, image)

"""What a replay runs frame by frame: an extractor with the tracker of the robot, or KLT."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from mdnet_ros.baselines.registry import ExtractorSpec, parse_extractors
from mdnet_ros.evaluation.extraction import FeatureSource, LoadedImage, image_key
from mdnet_ros.evaluation.klt import KltTracker
from mdnet_ros.features.backends import NETWORK_SUFFIXES
from mdnet_ros.features.tracking import FrameTracker
from mdnet_ros.features.types import TrackedFrame
from mdnet_ros.features.weights import CONFIGS

#: Name of the optical-flow peer among the extractors.
KLT = KltTracker.name


@dataclass(frozen=True)
class TimedFrame:
    """A tracked frame and what it cost, milliseconds."""

    frame: TrackedFrame
    milliseconds: float


class Frontend(Protocol):
    """Turns images into tracked frames."""

    def track(self, image: np.ndarray, stamp_ns: int) -> TimedFrame:
        """Take the next image, (H, W) uint8 gray.

        Raises:
            ImageError: it cannot be used.
        """
        ...


class ExtractorFrontend:
    """An extractor and the :class:`FrameTracker` that runs on the robot.

    Features come from the cache where they are there; the time counted is then that of the
    extraction that filled it.

    Args:
        source: of features.
        max_gap: through how many frames a track may be missing.
        max_error: of the verification, pixels.
    """

    def __init__(self, source: FeatureSource, max_gap: int = 2, max_error: float = 2.0) -> None:
        self._source = source
        self._tracker = FrameTracker(max_gap=max_gap, max_error=max_error)

    def track(self, image: np.ndarray, stamp_ns: int) -> TimedFrame:
        """As :meth:`Frontend.track`."""
        loaded = LoadedImage(Path(f'{stamp_ns}'), image, np.eye(3), image_key(image))
        extraction = self._source.features(loaded)
        start = time.perf_counter()
        frame = self._tracker.update(extraction.features, stamp_ns)
        return TimedFrame(frame, extraction.milliseconds + 1e3 * (time.perf_counter() - start))


class KltFrontend:
    """Optical flow.

    Args:
        max_keypoints: the most tracks at a time.
        max_error: of the verification, pixels.
    """

    def __init__(self, max_keypoints: int, max_error: float = 2.0) -> None:
        self._tracker = KltTracker(max_keypoints, max_error=max_error)

    def track(self, image: np.ndarray, stamp_ns: int) -> TimedFrame:
        """As :meth:`Frontend.track`."""
        start = time.perf_counter()
        frame = self._tracker.update(image, stamp_ns)
        return TimedFrame(frame, 1e3 * (time.perf_counter() - start))


@dataclass(frozen=True)
class FrontendSpec:
    """A front end that can be made afresh for every bag.

    Attributes:
        name: what reports call it.
        licence: of its code and weights.
        max_keypoints: of one image.
        source: of features; None: KLT.
        weights: of MD-Net, as the tracker node takes them; None for peers.
    """

    name: str
    licence: str
    max_keypoints: int
    source: FeatureSource | None
    weights: str | None = None

    def create(self) -> Frontend:
        """A front end that has seen nothing yet."""
        if self.source is None:
            return KltFrontend(self.max_keypoints)
        return ExtractorFrontend(self.source)


def frontend_specs(
    text: str, max_keypoints: int, device: str, weights_dir: Path | None, cache: Path | None
) -> list[FrontendSpec]:
    """Front ends of a comma-separated list of extractors and ``klt``.

    Raises:
        DataError: a name is unknown, missing, or two would be reported under one name.
        WeightsError: weights are missing.
        MissingDependencyError: a library is not installed.
    """
    names = [part.strip() for part in text.split(',') if part.strip()]
    peers = [name for name in names if name != KLT]
    specs: dict[str, ExtractorSpec] = {}
    if peers or not names:
        parsed = parse_extractors(','.join(peers), max_keypoints, device, weights_dir)
        specs = dict(zip(peers, parsed, strict=True))
    found = []
    for name in dict.fromkeys(names):
        if name == KLT:
            found.append(FrontendSpec(KLT, 'Apache-2.0 (OpenCV)', max_keypoints, None))
            continue
        spec = specs[name]
        ours = spec.text in CONFIGS or spec.text.endswith(NETWORK_SUFFIXES)
        source = FeatureSource(spec, cache)
        weights = spec.text if ours else None
        found.append(FrontendSpec(spec.name, spec.licence, max_keypoints, source, weights))
    return found

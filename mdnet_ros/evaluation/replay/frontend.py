"""Front ends of a replay: an extractor with the tracker of the robot, or optical flow (KLT)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from mdnet_ros.baselines.registry import (
    FLOW_SUFFIX,
    ExtractorSpec,
    parse_extractors,
    split_refinement,
)
from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.extraction import FeatureSource, LoadedImage, image_key
from mdnet_ros.evaluation.klt import KltTracker
from mdnet_ros.features.refinement import Refinement
from mdnet_ros.features.tracking import FrameTracker
from mdnet_ros.features.types import TrackedFrame

#: Optical-flow baselines among the extractors, by name: how far following back may miss, pixels.
KLT = {KltTracker.name: 0.5, f'{KltTracker.name}-forward': np.inf}


@dataclass(frozen=True)
class TimedFrame:
    """A tracked frame and the time it took, milliseconds."""

    frame: TrackedFrame
    milliseconds: float


class Frontend(Protocol):
    """Turns images into tracked frames."""

    def track(self, image: np.ndarray, stamp_ns: int) -> TimedFrame:
        """Track the next image, (H, W) uint8 gray.

        Raises:
            ImageError: if the image cannot be used.
        """
        ...


class ExtractorFrontend:
    """An extractor and the :class:`FrameTracker` that runs on the robot.

    Where features come from the cache, the time is that of the extraction that filled it.

    Args:
        source: extracts the features, or reads them from the cache.
        max_gap: through how many frames a track may be missing.
        max_error: distance to the geometric model up to which a match is an inlier, pixels.
        exact: compare descriptors in float32, as the node does with ``precision:=fp32``.
        refinement: refinement of the tracks, ``none`` or ``flow``.
    """

    def __init__(
        self,
        source: FeatureSource,
        max_gap: int = 2,
        max_error: float = 2.0,
        exact: bool = False,
        refinement: Refinement = 'none',
    ) -> None:
        self._source = source
        self._tracker = FrameTracker(
            max_gap=max_gap, max_error=max_error, exact=exact, refinement=refinement
        )

    @property
    def exact(self) -> bool:
        """Whether descriptors are compared in float32."""
        return self._tracker.settings.exact

    def track(self, image: np.ndarray, stamp_ns: int) -> TimedFrame:
        """Track the next image, see :meth:`Frontend.track`."""
        loaded = LoadedImage(Path(f'{stamp_ns}'), image, np.eye(3), image_key(image))
        extraction = self._source.features(loaded)
        start = time.perf_counter()
        frame = self._tracker.update(extraction.features, stamp_ns, image)
        return TimedFrame(frame, extraction.milliseconds + 1e3 * (time.perf_counter() - start))


class KltFrontend:
    """Optical flow (KLT).

    Args:
        max_keypoints: the most tracks at a time.
        max_backward_error: how far following a track back may miss, pixels; infinite: no check.
        max_error: distance to the geometric model up to which a match is an inlier, pixels.
    """

    def __init__(
        self, max_keypoints: int, max_backward_error: float = 0.5, max_error: float = 2.0
    ) -> None:
        self._tracker = KltTracker(
            max_keypoints, max_backward_error=max_backward_error, max_error=max_error
        )

    def track(self, image: np.ndarray, stamp_ns: int) -> TimedFrame:
        """Track the next image, see :meth:`Frontend.track`."""
        start = time.perf_counter()
        frame = self._tracker.update(image, stamp_ns)
        return TimedFrame(frame, 1e3 * (time.perf_counter() - start))


@dataclass(frozen=True)
class FrontendSpec:
    """A front end of which a new one can be made for every bag.

    Attributes:
        name: its name in reports.
        licence: licence of its code and weights.
        max_keypoints: the most keypoints of one image.
        source: extracts the features; None: KLT.
        refinement: refinement of the tracks, ``none`` or ``flow``.
    """

    name: str
    licence: str
    max_keypoints: int
    source: FeatureSource | None
    refinement: Refinement = 'none'

    @property
    def network(self) -> ExtractorSpec | None:
        """The network that the tracker node can run; None for baselines."""
        if self.source is None or not self.source.spec.is_ours:
            return None
        return self.source.spec

    def create(self) -> Frontend:
        """Make a front end that has not tracked any image yet."""
        if self.source is None:
            return KltFrontend(self.max_keypoints, KLT[self.name])
        return ExtractorFrontend(
            self.source, exact=self.source.spec.exact, refinement=self.refinement
        )


def frontend_specs(
    text: str, max_keypoints: int, device: str, weights_dir: Path | None, cache: Path | None
) -> list[FrontendSpec]:
    """Parse a comma-separated list of extractors, ``klt`` and ``klt-forward``.

    An extractor's name with ``+flow`` after it has its tracks refined by optical flow.

    Raises:
        DataError: if a name is unknown, missing, or two would be reported under one name, or
            ``max_keypoints`` is below 1.
        WeightsError: if weights are missing.
        MissingDependencyError: if a library is not installed.
    """
    if max_keypoints < 1:  # the extractors say so, too, but not KLT
        raise DataError(f'max keypoints: expected at least 1, got {max_keypoints}')
    names = [part.strip() for part in text.split(',') if part.strip()]
    extractors = [split_refinement(name)[0] for name in names if name not in KLT]
    baselines = list(dict.fromkeys(extractors))
    specs: dict[str, ExtractorSpec] = {}
    if baselines or not names:
        parsed = parse_extractors(','.join(baselines), max_keypoints, device, weights_dir)
        specs = dict(zip(baselines, parsed, strict=True))
    found = []
    for name in dict.fromkeys(names):
        if name in KLT:
            found.append(FrontendSpec(name, 'Apache-2.0 (OpenCV)', max_keypoints, None))
            continue
        baseline, refinement = split_refinement(name)
        spec = specs[baseline]
        suffix = FLOW_SUFFIX if refinement == 'flow' else ''
        found.append(FrontendSpec(
            spec.name + suffix, spec.licence, max_keypoints, FeatureSource(spec, cache), refinement
        ))
    return found

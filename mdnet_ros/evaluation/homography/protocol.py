"""The homography benchmark: extract, match, measure, sequence by sequence."""

from __future__ import annotations

from collections.abc import Sequence as List
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mdnet_ros.baselines.registry import ExtractorSpec
from mdnet_ros.errors import DataError, ImageError
from mdnet_ros.evaluation.extraction import Extraction, FeatureSource, LoadedImage, load_image
from mdnet_ros.evaluation.homography.data import Sequence, list_sequences, load_sequence
from mdnet_ros.evaluation.homography.metrics import PairResult, Summary, evaluate_pair, summarise
from mdnet_ros.features.matching import match_mutual_nearest


@dataclass(frozen=True)
class HomographySettings:
    """What decides the figures, besides extractors and images.

    Attributes:
        max_keypoints: the most keypoints of one image.
        max_side: images are shrunk to this longer side, pixels; 0: native size.
        all_sequences: all that are there, not only those of the 108-sequence protocol.
        across_sets: match keypoints of all sets with each other.
        exact: compare descriptors in float32, as for
            :func:`~mdnet_ros.features.matching.mutual_nearest`.
    """

    max_keypoints: int = 2048
    max_side: int = 0
    all_sequences: bool = False
    across_sets: bool = False
    exact: bool = True


@dataclass(frozen=True)
class SequenceResult:
    """One extractor on one sequence.

    Attributes:
        name: of the sequence.
        group: ``viewpoint`` or ``illumination``.
        pairs: image 1 against 2, 3, …
        keypoints: of each image.
        milliseconds: of extracting each image, when it was.
    """

    name: str
    group: str
    pairs: tuple[PairResult, ...]
    keypoints: tuple[int, ...]
    milliseconds: tuple[float, ...]


@dataclass(frozen=True)
class GroupResult:
    """Averages over several sequences.

    Attributes:
        metrics: over all their pairs.
        keypoints: mean of an image.
        milliseconds: mean time to extract an image.
    """

    metrics: Summary
    keypoints: float
    milliseconds: float


@dataclass(frozen=True)
class ExtractorResult:
    """One extractor on a data set.

    Attributes:
        name: of the extractor.
        licence: of its code and weights.
        sequences: by falling into the data set's order.
    """

    name: str
    licence: str
    sequences: tuple[SequenceResult, ...]

    def group(self, name: str = 'overall') -> GroupResult:
        """Averages over ``viewpoint``, ``illumination`` or ``overall``."""
        return average([s for s in self.sequences if name in ('overall', s.group)])


@dataclass(frozen=True)
class LeftOut:
    """A sequence that could not be measured.

    Attributes:
        sequence: its name.
        extractor: for which it could not; None: for none at all.
        reason: one line.
    """

    sequence: str
    extractor: str | None
    reason: str


@dataclass(frozen=True)
class HomographyResult:
    """A whole evaluation."""

    settings: HomographySettings
    extractors: tuple[ExtractorResult, ...]
    left_out: tuple[LeftOut, ...]


def average(sequences: List[SequenceResult]) -> GroupResult:
    """Average sequences: pairs have the same weight, and so have images."""
    keypoints = [count for s in sequences for count in s.keypoints]
    milliseconds = [time for s in sequences for time in s.milliseconds]
    return GroupResult(
        summarise([pair for s in sequences for pair in s.pairs]),
        float(np.mean(keypoints)) if keypoints else 0.0,
        float(np.mean(milliseconds)) if milliseconds else 0.0,
    )


def measure_sequence(
    sequence: Sequence,
    images: List[LoadedImage],
    extractions: List[Extraction],
    settings: HomographySettings,
) -> SequenceResult:
    """Match image 1 with each other one and compare with the homographies.

    Args:
        sequence: whose homographies are meant for the files' own pixels.
        images: all of the sequence, shrunk or not.
        extractions: of ``images``.
        settings: of the protocol.
    """
    pairs = []
    first = extractions[0].features
    for k, homography in enumerate(sequence.homographies, start=1):
        other = extractions[k].features
        scaled = images[k].to_pixels @ homography @ np.linalg.inv(images[0].to_pixels)
        matches = match_mutual_nearest(
            first, other, across_sets=settings.across_sets, exact=settings.exact
        )
        pairs.append(evaluate_pair(first, other, matches, scaled / scaled[2, 2]))
    return SequenceResult(
        sequence.name,
        sequence.group,
        tuple(pairs),
        tuple(len(e.features) for e in extractions),
        tuple(e.milliseconds for e in extractions),
    )


def evaluate(
    root: Path,
    specs: List[ExtractorSpec],
    settings: HomographySettings,
    cache: Path | None = None,
    shard: tuple[int, int] = (1, 1),
) -> HomographyResult:
    """Measure extractors on a data set in the HPatches layout.

    Sequences that are broken are left out and named; what extractors gave is cached, so an
    interrupted evaluation continues when it is started again.

    Args:
        root: of the data set.
        specs: the extractors.
        settings: of the protocol.
        cache: folder for features; None: no cache.
        shard: (i, n): only every n-th sequence, from the i-th on; i from 1 to n.

    Raises:
        DataError: no sequence could be measured.
        WeightsError: weights are missing.
        MissingDependencyError: an extractor's library is not installed.
    """
    folders = list_sequences(root, settings.all_sequences)[shard[0] - 1 :: shard[1]]
    sources = [FeatureSource(spec, cache) for spec in specs]
    measured: dict[str, list[SequenceResult]] = {spec.name: [] for spec in specs}
    left_out = []
    progress = tqdm(folders, unit='sequence')
    for folder in progress:
        progress.set_postfix_str(folder.name)
        try:
            sequence = load_sequence(folder)
            images = [load_image(path, settings.max_side) for path in sequence.images]
        except DataError as error:
            left_out.append(LeftOut(folder.name, None, str(error)))
            continue
        for source in sources:
            progress.set_postfix_str(f'{folder.name} {source.spec.name}')
            try:
                result = measure_sequence(
                    sequence, images, source.features_of(images), settings
                )
            except (DataError, ImageError) as error:
                left_out.append(LeftOut(folder.name, source.spec.name, str(error)))
            else:
                measured[source.spec.name].append(result)
    if folders and not any(measured.values()):
        reasons = '; '.join(entry.reason for entry in left_out[:3])
        raise DataError(f"data set '{root}': no sequence could be measured: {reasons}")
    return HomographyResult(
        settings,
        tuple(ExtractorResult(s.name, s.licence, tuple(measured[s.name])) for s in specs),
        tuple(left_out),
    )

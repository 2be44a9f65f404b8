"""The homography benchmark, run sequence by sequence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mdnet_ros.baselines.registry import ExtractorSpec
from mdnet_ros.errors import DataError, ImageError
from mdnet_ros.evaluation.extraction import Extraction, FeatureSource, LoadedImage, load_image
from mdnet_ros.evaluation.homography.data import ImageSequence, list_sequences, load_sequence
from mdnet_ros.evaluation.homography.metrics import evaluate_pair
from mdnet_ros.evaluation.homography.results import (
    HomographyResult,
    HomographySettings,
    SequenceResult,
)
from mdnet_ros.evaluation.reports.results import EvaluationResult, ExtractorResult
from mdnet_ros.features.matching import match_mutual_nearest
from mdnet_ros.progress import Progress


def measure_sequence(
    sequence: ImageSequence,
    images: Sequence[LoadedImage],
    extractions: Sequence[Extraction],
    settings: HomographySettings,
) -> SequenceResult:
    """Match image 1 with each other image and compare with the true homographies.

    Args:
        sequence: sequence whose homographies hold for pixels of the image files.
        images: all images of the sequence, shrunk or not.
        extractions: features of ``images``, in the same order.
        settings: settings of the protocol.
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
    specs: Sequence[ExtractorSpec],
    settings: HomographySettings,
    cache: Path | None = None,
    shard: tuple[int, int] = (1, 1),
) -> HomographyResult:
    """Measure extractors on a data set in the HPatches layout.

    Broken sequences are left out and named. Features are cached, so an interrupted evaluation
    continues when it is started again.

    Args:
        root: folder of the data set.
        specs: extractors to measure.
        settings: settings of the protocol.
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
    omitted: list[str] = []
    progress = Progress(folders, unit='sequence')
    for folder in progress:
        progress.set_postfix_str(folder.name)
        try:
            sequence = load_sequence(folder)
            images = [load_image(path, settings.max_side) for path in sequence.images]
        except (DataError, ImageError) as error:
            omitted.append(f'{folder.name}: {error}')
            continue
        for source in sources:
            progress.set_postfix_str(f'{folder.name} {source.spec.name}')
            try:
                result = measure_sequence(
                    sequence, images, source.features_of(images), settings
                )
            except (DataError, ImageError) as error:
                omitted.append(f'{folder.name} for {source.spec.name}: {error}')
            else:
                measured[source.spec.name].append(result)
    if folders and not any(measured.values()):
        reasons = '; '.join(omitted[:3])
        raise DataError(f"data set '{root}': no sequence could be measured: {reasons}")
    return EvaluationResult(
        settings,
        tuple(ExtractorResult(s.name, s.licence, tuple(measured[s.name])) for s in specs),
        tuple(omitted),
    )

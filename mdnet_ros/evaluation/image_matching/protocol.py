"""The Image Matching Benchmark (Jin et al., IJCV 2021), run scene by scene."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from mdnet_ros.baselines.registry import ExtractorSpec
from mdnet_ros.errors import DataError, ImageError
from mdnet_ros.evaluation.extraction import FeatureSource, LoadedImage, load_image
from mdnet_ros.evaluation.image_matching.data import find_scenes, load_scene, read_depth
from mdnet_ros.evaluation.image_matching.pairs import ViewFeatures, match_with_ratio, measure_pair
from mdnet_ros.evaluation.image_matching.results import (
    ImageMatchingResult,
    ImageMatchingSettings,
    MatchedExtractor,
    MatchingChoice,
    SceneResult,
)
from mdnet_ros.evaluation.image_matching.scene import Scene, SceneSettings, without_views
from mdnet_ros.evaluation.image_matching.subsets import measure_subset
from mdnet_ros.evaluation.pose import mean_average_accuracy
from mdnet_ros.evaluation.reports.results import EvaluationResult
from mdnet_ros.progress import Progress

#: Inlier thresholds tried on a validation scene, pixels.
THRESHOLDS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
#: Ratio tests tried on a validation scene where the ratio is to be chosen; 1: none.
RATIOS = (0.8, 0.85, 0.9, 0.95, 1.0)


def evaluate(
    root: Path,
    specs: Sequence[ExtractorSpec],
    settings: ImageMatchingSettings,
    cache: Path | None = None,
    shard: tuple[int, int] = (1, 1),
) -> ImageMatchingResult:
    """Measure extractors on scenes in the layout of the Image Matching Benchmark.

    Broken scenes and images are left out and named. Features are cached, so an interrupted
    evaluation continues when it is started again.

    Args:
        root: folder of the data set, or of a single scene.
        specs: extractors to measure.
        settings: settings of the protocol.
        cache: folder for features; None: no cache.
        shard: (i, n): only every n-th scene, from the i-th on; i from 1 to n.

    Raises:
        DataError: no scene could be measured, or the validation scene is not there.
        WeightsError: weights are missing.
        MissingDependencyError: a library is not installed.
    """
    folders = find_scenes(root)
    omitted: list[str] = []
    sources = [FeatureSource(spec, cache) for spec in specs]
    choices = [MatchingChoice(settings.threshold, settings.ratio or 1.0) for _ in specs]
    if settings.validation_scene is not None:
        names = [folder.name for folder in folders]
        if settings.validation_scene not in names:
            raise DataError(
                f"validation scene '{settings.validation_scene}': expected one of "
                f'{", ".join(names)}'
            )
        folder = folders.pop(names.index(settings.validation_scene))
        scene, images = _load(folder, settings.scene, omitted)
        progress = Progress(sources, unit='extractor', desc=f'choosing on {scene.name}')
        choices = [_choose(scene, images, source, settings) for source in progress]
    elif settings.ratio is None:
        raise DataError('ratio: choosing it needs a validation scene')
    if not folders:
        raise DataError(f'{root}: expected a scene besides the validation scene')
    measured: dict[str, list[SceneResult]] = {spec.name: [] for spec in specs}
    progress = Progress(folders[shard[0] - 1 :: shard[1]], unit='scene')
    for folder in progress:
        progress.set_postfix_str(folder.name)
        try:
            scene, images = _load(folder, settings.scene, omitted)
        except DataError as error:
            omitted.append(str(error))
            continue
        for source, choice in zip(sources, choices, strict=True):
            progress.set_postfix_str(f'{folder.name} {source.spec.name}')
            try:
                result = _measure_scene(scene, images, source, choice, settings, omitted)
            except (DataError, ImageError) as error:
                omitted.append(f'{folder.name}: {source.spec.name}: {error}')
            else:
                measured[source.spec.name].append(result)
    if not any(measured.values()) and len(progress):
        raise DataError(f'{root}: no scene could be measured: {"; ".join(omitted[:3])}')
    return EvaluationResult(
        settings,
        tuple(
            MatchedExtractor(spec.name, spec.licence, tuple(measured[spec.name]), choice)
            for spec, choice in zip(specs, choices, strict=True)
        ),
        tuple(dict.fromkeys(omitted)),
    )


def _load(
    folder: Path, settings: SceneSettings, omitted: list[str]
) -> tuple[Scene, dict[str, LoadedImage]]:
    """Read a scene and its images; images that cannot be read are left out and named."""
    scene = load_scene(folder, settings)
    images, broken = {}, []
    for view in scene.views.values():
        try:
            images[view.name] = load_image(view.image_path)
        except ImageError as error:
            broken.append(view.name)
            omitted.append(f'{scene.name}: {error}')
    omitted.extend(scene.omitted)
    return without_views(scene, broken), images


def _extract(
    scene: Scene,
    images: dict[str, LoadedImage],
    source: FeatureSource,
    omitted: list[str],
) -> dict[str, tuple[ViewFeatures, float]]:
    """Return features and depth of every image of a scene by name, and extraction times in ms."""
    names = list(scene.views)
    extractions = source.features_of([images[name] for name in names])
    found = {}
    for name, extraction in zip(names, extractions, strict=True):
        view, depth = scene.views[name], None
        if view.depth_path is not None:
            try:
                depth = read_depth(view.depth_path)
            except DataError as error:
                omitted.append(str(error))
        found[name] = ViewFeatures(view, extraction.features, depth), extraction.milliseconds
    return found


def _choose(
    scene: Scene,
    images: dict[str, LoadedImage],
    source: FeatureSource,
    settings: ImageMatchingSettings,
) -> MatchingChoice:
    """Choose the inlier threshold, and the ratio where asked, with the best mAA(10°) on a scene.

    Between equals, the smaller mean error (cut at 10 degrees) decides.
    """
    extractions = source.features_of([images[name] for name in scene.views])
    views = {
        name: ViewFeatures(view, extraction.features)
        for (name, view), extraction in zip(scene.views.items(), extractions, strict=True)
    }
    ratios = RATIOS if settings.ratio is None else (settings.ratio,)
    best: tuple[float, float] | None = None
    choice = MatchingChoice(settings.threshold, ratios[-1], scene.name, 0.0)
    for ratio in ratios:
        matches = [match_with_ratio(views[a].features, views[b].features, ratio)
                   for a, b in scene.pairs]
        for threshold in THRESHOLDS:
            errors = np.array(
                [
                    measure_pair(views[a], views[b], rows, threshold, settings.seeds()).errors
                    for (a, b), rows in zip(scene.pairs, matches, strict=True)
                ]
            )
            accuracy = float(np.mean([mean_average_accuracy(of_seed) for of_seed in errors.T]))
            score = (accuracy, -float(np.mean(np.minimum(errors, 10.0))))
            if best is None or score > best:
                best = score
                choice = MatchingChoice(threshold, ratio, scene.name, accuracy)
    return choice


def _measure_scene(
    scene: Scene,
    images: dict[str, LoadedImage],
    source: FeatureSource,
    choice: MatchingChoice,
    settings: ImageMatchingSettings,
    omitted: list[str],
) -> SceneResult:
    """Measure one extractor on the pairs and subsets of a scene."""
    seed = settings.scene.seed
    extracted = _extract(scene, images, source, omitted)
    views = {name: view for name, (view, _) in extracted.items()}
    matched: dict[tuple[str, str], np.ndarray] = {}

    def matches(a: str, b: str) -> np.ndarray:
        if (a, b) not in matched:
            matched[a, b] = match_with_ratio(views[a].features, views[b].features, choice.ratio)
        return matched[a, b]

    pairs = [
        measure_pair(views[a], views[b], matches(a, b), choice.threshold, settings.seeds())
        for a, b in scene.pairs
    ]
    subsets = []
    for names in scene.subsets if settings.multiview else ():
        rows = {(a, b): matches(a, b) for a, b in combinations(names, 2)}
        subsets.append(measure_subset(names, views, rows, settings.known_intrinsics, seed))
    return SceneResult(
        name=scene.name,
        pair_source=scene.pair_source,
        keypoints=float(np.mean([len(view.features) for view in views.values()])),
        milliseconds=float(np.mean([milliseconds for _, milliseconds in extracted.values()])),
        pairs=tuple(pairs),
        subsets=tuple(subsets),
    )

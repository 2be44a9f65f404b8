"""What image matching shows: tables in the terminal, one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mdnet_ros.baselines.registry import ExtractorSpec
from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.geometry import epipolar_distance
from mdnet_ros.errors import MDNetError
from mdnet_ros.evaluation.extraction import FeatureSource, load_image
from mdnet_ros.evaluation.image_matching.averages import (
    DEGREES,
    MultiviewSummary,
    StereoSummary,
    multiview_of,
    overall_multiview,
    overall_stereo,
    stereo_of,
)
from mdnet_ros.evaluation.image_matching.data import find_scenes, load_scene
from mdnet_ros.evaluation.image_matching.pairs import match_with_ratio, relative_pose
from mdnet_ros.evaluation.image_matching.published import PUBLISHED_IMB
from mdnet_ros.evaluation.image_matching.results import ImageMatchingResult
from mdnet_ros.evaluation.reports.page import Column, HtmlPage, Part, Table
from mdnet_ros.evaluation.reports.plots import PALETTE, bar_figure, draw_matches, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Pixels from the true epipolar line within which a match is drawn as right.
_RIGHT = 3
#: Pairs shown as pictures, of each extractor.
_WORST = 3
_DEFINITIONS = (
    'NF: keypoints of an image. NI: inliers of the robust pose. Rep and MS: repeatability and '
    'share of the inliers that are right, at 3 px, by depth maps (– where there are none). '
    'mAA(10°): mean over 1…10° of the share of pairs whose rotation and translation direction '
    '(its sign ignored) are both that good. NM: matches of a pair verified by COLMAP. NL: '
    'triangulated points. TL: images a point is seen in. ATE: root mean square error of the '
    "camera centres after Sim(3) alignment, in the scene's units. Pairs without a pose and images "
    'without a place count as wrong. Scenes have the same weight.'
)
_COLUMNS = (
    Column('NF', 0),
    Column('NI', 1, 'max'),
    Column('Rep@3', 3, 'max'),
    Column('MS@3', 3, 'max'),
    Column('mAA stereo', 3, 'max'),
    Column('NM', 1, 'max'),
    Column('NL', 1, 'max'),
    Column('TL', 2, 'max'),
    Column('ATE', 3, 'min'),
    Column('mAA multi', 3, 'max'),
)


def _cells(stereo: StereoSummary, multiview: MultiviewSummary | None) -> tuple[object, ...]:
    m = multiview
    return (
        stereo.features,
        stereo.inliers,
        stereo.repeatability,
        stereo.matching_score,
        stereo.mean_accuracy,
        *((m.matches, m.landmarks, m.track_length, m.ate, m.mean_accuracy) if m else [None] * 5),
    )


def overall_table(result: ImageMatchingResult, published: bool = False) -> Table:
    """One row per extractor, the mean of the scenes.

    Args:
        result: of the evaluation.
        published: append the published rows, marked as such.
    """
    measured = [e for e in result.extractors if e.scenes]
    rows: list[tuple[object, ...]] = [
        (
            extractor.name,
            *_cells(overall_stereo(extractor), overall_multiview(extractor)),
            extractor.choice.threshold,
            extractor.choice.ratio,
        )
        for extractor in measured
    ]
    for row in PUBLISHED_IMB if published else ():
        stereo = (row.features, row.inliers, row.repeatability, row.matching_score)
        multiview = (row.matches, row.landmarks, row.track_length, row.ate)
        rows.append(
            (
                f'{row.name} ({row.dataset}, published)',
                *stereo, row.stereo_accuracy, *multiview, row.multiview_accuracy, None, None,
            )
        )
    columns = (Column('extractor'), *_COLUMNS, Column('threshold [px]'), Column('ratio'))
    scenes = {scene.name for extractor in measured for scene in extractor.scenes}
    return Table(
        columns, tuple(rows), f'overall, {len(scenes)} scenes',
        frozenset(range(len(measured), len(rows))),
    )


def scene_table(result: ImageMatchingResult, name: str) -> Table:
    """One row per extractor on one scene."""
    rows, caption = [], name
    for extractor in result.extractors:
        for scene in extractor.scenes:
            if scene.name == name:
                rows.append((extractor.name, *_cells(stereo_of(scene), multiview_of(scene))))
                sizes = sorted({bag.size for bag in scene.bags})
                caption = (
                    f'{name}: {len(scene.pairs)} pairs by {scene.pair_source}, {len(scene.bags)} '
                    f'subsets' + (f' of {", ".join(map(str, sizes))} images' if sizes else '')
                )
    return Table((Column('extractor'), *_COLUMNS), tuple(rows), caption)


def scene_names(result: ImageMatchingResult) -> list[str]:
    """Of all scenes that were measured, sorted."""
    return sorted({scene.name for e in result.extractors for scene in e.scenes})


def protocol_lines(result: ImageMatchingResult) -> list[str]:
    """How poses were estimated and filtered, and what was left out, one line each."""
    lines = [f'poses by {result.solver}; mutual nearest neighbours inside each keypoint set']
    for extractor in result.extractors:
        choice = extractor.choice
        ratio = f'ratio {choice.ratio:g}' if choice.ratio < 1 else 'no ratio test'
        how = 'fixed'
        if choice.chosen_on is not None:
            how = f'chosen on {choice.chosen_on} (mAA {choice.validation_accuracy:.3f} there)'
        lines.append(f'{extractor.name}: inliers within {choice.threshold:g} px, {ratio}; {how}')
    return lines + [f'left out: {line}' for line in result.omitted]


def result_parts(result: ImageMatchingResult, published: bool = False) -> list[Part]:
    """What the terminal shows."""
    return [
        *(scene_table(result, name) for name in scene_names(result)),
        overall_table(result, published),
        *protocol_lines(result),
    ]


def _curves(result: ImageMatchingResult) -> Figure:
    """Share of good pairs over the error, stereo."""
    figure = new_figure(7.5, 3.8)
    axis = figure.subplots()
    for i, extractor in enumerate(result.extractors):
        if extractor.scenes:
            accuracy = overall_stereo(extractor).accuracy
            axis.plot(DEGREES, accuracy, label=extractor.name, color=PALETTE[i % len(PALETTE)])
    axis.set(xlabel='pose error [°]', ylabel='share of pairs', xlim=(1, 10), ylim=(0, 1.02))
    axis.grid(alpha=0.3)
    figure.legend(loc='outside right upper', frameon=False)
    return figure


def _bars(result: ImageMatchingResult) -> Figure:
    """Stereo and multiview mAA of the extractors beside each other."""
    measured = [e for e in result.extractors if e.scenes]
    multiview = [overall_multiview(e) for e in measured]
    return bar_figure(
        [extractor.name for extractor in measured],
        {
            'stereo mAA(10°)': [overall_stereo(e).mean_accuracy for e in measured],
            'multiview mAA(10°)': [m.mean_accuracy if m else 0.0 for m in multiview],
        },
    )


def _add_pictures(
    page: HtmlPage, result: ImageMatchingResult, source: FeatureSource, root: Path
) -> None:
    """The pairs with the largest errors, each scene's worst first."""
    extractor = next(e for e in result.extractors if e.name == source.spec.name)
    worst = [(scene, max(scene.pairs, key=lambda pair: pair.error)) for scene in extractor.scenes]
    worst.sort(key=lambda entry: -entry[1].error)
    folders = {folder.name: folder for folder in find_scenes(root)}
    for scene, pair in worst[:_WORST]:
        try:
            views = load_scene(folders[scene.name], result.settings.scene).views
            a, b = (views[name] for name in pair.names)
            images = [load_image(view.image_path) for view in (a, b)]
            features = [extraction.features for extraction in source.features_of(images)]
        except (MDNetError, KeyError) as error:  # changed since it was measured
            page.note(str(error))
            continue
        rows = match_with_ratio(features[0], features[1], extractor.choice.ratio)
        points_a, points_b = (f.keypoints[rows[:, i]] for i, f in enumerate(features))
        motion = relative_pose(a, b)
        cameras = [CameraModel(*f.image_size, v.intrinsics, np.zeros(0))
                   for f, v in zip(features, (a, b), strict=True)]
        # The second camera's pixels as the first would see them: one camera for both images.
        seen = cameras[1].normalise(points_b) * a.intrinsics[[0, 1], [0, 1]] + a.intrinsics[:2, 2]
        right = epipolar_distance(
            cameras[0], motion.rotation, motion.translation, points_a, seen
        ) <= _RIGHT
        page.picture(
            draw_matches(images[0].pixels, images[1].pixels, points_a, points_b, right),
            f'{extractor.name}: {scene.name} {pair.names[0]}–{pair.names[1]}: pose error '
            f'{pair.error:.1f}°, {pair.inliers} inliers; {int(right.sum())} of {len(right)} '
            f'matches within {_RIGHT} px of the true epipolar line (green)',
        )


def write_page(
    path: Path,
    result: ImageMatchingResult,
    root: Path | None = None,
    specs: Sequence[ExtractorSpec] = (),
    cache: Path | None = None,
    published: bool = False,
) -> None:
    """Write the report as one HTML page.

    Args:
        path: of the page.
        result: to show.
        root: of the data set, for pictures of the worst pairs; None: no pictures.
        specs: extractors to show pictures of.
        cache: where their features lie.
        published: show published figures beside, marked.

    Raises:
        DataError: the page cannot be written.
        MissingDependencyError: matplotlib is not installed.
    """
    page = HtmlPage(
        'Image matching',
        f'Image Matching Benchmark layout, {len(scene_names(result))} scenes, at most '
        f'{result.settings.max_keypoints} keypoints',
    )
    page.opening(
        (f'left out: {line}' for line in result.omitted),
        _DEFINITIONS,
        'for the test scenes of the benchmark; they cannot be compared with other scenes.'
        if published else '',
    )
    page.heading('Overall')
    page.table(overall_table(result, published))
    for line in protocol_lines(result)[: 1 + len(result.extractors)]:
        page.text(line)
    page.heading('Accuracy over the pose error')
    page.figure(_curves(result), 'Share of stereo pairs below a pose error, mean of the scenes')
    page.heading('Side by side')
    page.figure(_bars(result))
    page.heading('Scenes')
    for name in scene_names(result):
        page.table(scene_table(result, name))
    if root is not None:
        page.heading('Worst pairs')
        for spec in specs:
            _add_pictures(page, result, FeatureSource(spec, cache), root)
    page.licences((e.name, e.licence) for e in result.extractors)
    page.write(path)



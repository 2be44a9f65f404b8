"""Tables and HTML page of image matching."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mdnet_ros.data.camera import CameraModel
from mdnet_ros.data.geometry import epipolar_distance
from mdnet_ros.errors import MDNetError
from mdnet_ros.evaluation.extraction import FeatureSource, MeasuredData, load_image
from mdnet_ros.evaluation.image_matching.averages import (
    DEGREES,
    MultiviewSummary,
    StereoSummary,
    extractor_metrics,
    multiview_of,
    overall_multiview,
    overall_stereo,
    scene_metrics,
    stereo_of,
)
from mdnet_ros.evaluation.image_matching.data import find_scenes, load_scene
from mdnet_ros.evaluation.image_matching.pairs import match_with_ratio, relative_pose
from mdnet_ros.evaluation.image_matching.published import PUBLISHED_IMB
from mdnet_ros.evaluation.image_matching.results import ImageMatchingResult
from mdnet_ros.evaluation.reports.html import HtmlPage
from mdnet_ros.evaluation.reports.plots import PALETTE, bar_figure, draw_matches, new_figure
from mdnet_ros.evaluation.reports.results import ReportFormat
from mdnet_ros.evaluation.reports.tables import Column, Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Pixels from the true epipolar line within which a match is drawn as right.
_CORRECT_PX = 3
#: Pairs shown as pictures, of each extractor.
_WORST = 3
_DEFINITIONS = (
    "Columns with the benchmark's names follow its own code (Jin et al., IJCV 2021). "
    'NF: keypoints of an image. NI: inliers of the robust pose, matches between the same two '
    'positions counted once. Rep and MS: repeatability and '
    'share of the inliers that are right, at 3 px, by depth maps (– where there are none). '
    'mAA(10°): mean over 1…10° of the share of pairs whose rotation and translation direction '
    '(its sign ignored) are both that good, mean over the seeds of the robust pose; spread: '
    'largest minus smallest of the seeds. NM: matches of a pair given to COLMAP; verified: those '
    'that its two-view geometry keeps. NL: triangulated points. TL: images a point is seen in. '
    'Failed subsets are left out of NL, TL and ATE. Pairs and images without a recovered '
    'pose count as wrong. Scenes have the same weight. '
    'Other than in the benchmark: poses come from the essential matrix with known intrinsics '
    '(there: DEGENSAC, fundamental matrix), and ATE is the root mean square error of all camera '
    "centres after one Sim(3) alignment, in the scene's units (there: a robust alignment, cut off)."
)
_COLUMNS = (
    Column('NF', 0),
    Column('NI', 1, 'max'),
    Column('Rep@3', 3, 'max'),
    Column('MS@3', 3, 'max'),
    Column('mAA stereo', 3, 'max'),
    Column('spread', 3, 'min'),
    Column('NM', 1, 'max'),
    Column('verified', 1, 'max'),
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
        stereo.spread,
        *(
            (m.matches, m.verified, m.landmarks, m.track_length, m.ate, m.mean_accuracy)
            if m else [None] * 6
        ),
    )


def overall_table(result: ImageMatchingResult, published: bool = False) -> Table:
    """Averages over the scenes, a row for each extractor.

    Args:
        result: result of the evaluation.
        published: append rows of published results, marked as such.
    """
    measured = [e for e in result.extractors if e.parts]
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
        multiview = (None, row.matches, None, row.landmarks, row.track_length, row.ate)
        rows.append(
            (
                f'{row.name} ({row.dataset}, published)',
                *stereo, row.stereo_accuracy, *multiview, row.multiview_accuracy, None, None,
            )
        )
    columns = (Column('extractor'), *_COLUMNS, Column('threshold [px]'), Column('ratio'))
    return Table(
        columns, tuple(rows), f'overall, {len(result.part_names())} scenes',
        frozenset(range(len(measured), len(rows))),
    )


def scene_table(result: ImageMatchingResult, name: str) -> Table:
    """Averages of one scene, a row for each extractor."""
    rows, caption = [], name
    for extractor, scene in result.of_part(name):
        rows.append((extractor.name, *_cells(stereo_of(scene), multiview_of(scene))))
        sizes = ', '.join(str(n) for n in sorted({subset.size for subset in scene.subsets}))
        caption = (
            f'{name}: {len(scene.pairs)} pairs by {scene.pair_source}, {len(scene.subsets)} '
            'subsets' + (f' of {sizes} images' if sizes else '')
        )
    return Table((Column('extractor'), *_COLUMNS), tuple(rows), caption)


def matching_lines(result: ImageMatchingResult) -> list[str]:
    """Lines that say how poses were estimated and how each extractor's matches were filtered."""
    lines = [
        f'poses by {result.settings.pose_solver}; mutual nearest neighbours inside each '
        'keypoint set'
    ]
    for extractor in result.extractors:
        choice = extractor.choice
        ratio = f'ratio {choice.ratio:g}' if choice.ratio < 1 else 'no ratio test'
        how = 'fixed'
        if choice.chosen_on is not None:
            how = f'chosen on {choice.chosen_on} (mAA {choice.validation_accuracy:.3f} there)'
        lines.append(f'{extractor.name}: inliers within {choice.threshold:g} px, {ratio}; {how}')
    return lines


def sections(result: ImageMatchingResult, published: bool = False) -> list[Section]:
    """Tables and lines of a result, for the terminal and text files."""
    return [
        *(scene_table(result, name) for name in sorted(result.part_names())),
        overall_table(result, published),
        *matching_lines(result),
        *result.omitted_lines(),
    ]


def _curves(result: ImageMatchingResult) -> Figure:
    """Plot the share of stereo pairs below a pose error over that error."""
    figure = new_figure(7.5, 3.8)
    axis = figure.subplots()
    for i, extractor in enumerate(result.extractors):
        if extractor.parts:
            accuracy = overall_stereo(extractor).accuracy
            axis.plot(DEGREES, accuracy, label=extractor.name, color=PALETTE[i % len(PALETTE)])
    axis.set(xlabel='pose error [°]', ylabel='share of pairs', xlim=(1, 10), ylim=(0, 1.02))
    axis.grid(alpha=0.3)
    figure.legend(loc='outside right upper', frameon=False)
    return figure


def _bars(result: ImageMatchingResult) -> Figure:
    """Plot stereo and multiview mAA of the extractors side by side."""
    measured = [e for e in result.extractors if e.parts]
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
    """Draw the matches of the pair with the largest error of each of the worst scenes."""
    extractor = next(e for e in result.extractors if e.name == source.spec.name)
    worst = [(scene, max(scene.pairs, key=lambda pair: pair.error)) for scene in extractor.parts]
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
        # Map b's points to a's intrinsics: epipolar_distance takes one camera.
        seen = cameras[1].normalise(points_b) * a.intrinsics[[0, 1], [0, 1]] + a.intrinsics[:2, 2]
        right = epipolar_distance(
            cameras[0], motion.rotation, motion.translation, points_a, seen
        ) <= _CORRECT_PX
        page.picture(
            draw_matches(images[0].pixels, images[1].pixels, points_a, points_b, right),
            f'{extractor.name}: {scene.name} {pair.names[0]}–{pair.names[1]}: pose error '
            f'{pair.error:.1f}°, {pair.inliers} inliers; {int(right.sum())} of {len(right)} '
            f'matches within {_CORRECT_PX} px of the true epipolar line (green)',
        )


def build_page(
    result: ImageMatchingResult, published: bool = False, data: MeasuredData | None = None
) -> HtmlPage:
    """Build the HTML report.

    Args:
        result: result to show.
        published: show published results beside, marked as such.
        data: data set and extractors, for pictures of the worst pairs; None: no pictures.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    scenes = sorted(result.part_names())
    page = HtmlPage(
        'Image matching',
        f'Image Matching Benchmark layout, {len(scenes)} scenes, at most '
        f'{result.settings.max_keypoints} keypoints',
    )
    page.opening(
        result.omitted_lines(),
        _DEFINITIONS,
        'for the test scenes of the benchmark; they cannot be compared with other scenes.'
        if published else '',
    )
    page.heading('Overall')
    page.table(overall_table(result, published))
    for line in matching_lines(result):
        page.text(line)
    page.heading('Accuracy over the pose error')
    page.figure(_curves(result), 'Share of stereo pairs below a pose error, mean of the scenes')
    page.heading('Side by side')
    page.figure(_bars(result))
    page.heading('Scenes')
    for name in scenes:
        page.table(scene_table(result, name))
    if data is not None:
        page.heading('Worst pairs')
        for source in data.sources():
            _add_pictures(page, result, source, data.root)
    page.licences((e.name, e.licence) for e in result.extractors)
    return page


REPORT_FORMAT = ReportFormat(
    'image-matching', ImageMatchingResult, extractor_metrics, scene_metrics, sections, build_page,
    PUBLISHED_IMB,
)

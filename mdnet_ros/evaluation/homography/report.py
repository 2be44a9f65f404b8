"""Tables and HTML page of the homography benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mdnet_ros.errors import MDNetError
from mdnet_ros.evaluation.extraction import FeatureSource, MeasuredData, load_image
from mdnet_ros.evaluation.homography.data import GROUPS, load_sequence
from mdnet_ros.evaluation.homography.metrics import HOMOGRAPHY_THRESHOLDS, THRESHOLDS, match_errors
from mdnet_ros.evaluation.homography.published import PUBLISHED
from mdnet_ros.evaluation.homography.results import (
    OVERALL,
    HomographyResult,
    SequenceResult,
    average,
    extractor_metrics,
    group_average,
    sequence_metrics,
)
from mdnet_ros.evaluation.reports.html import HtmlPage
from mdnet_ros.evaluation.reports.plots import PALETTE, bar_figure, draw_matches, new_figure
from mdnet_ros.evaluation.reports.results import ExtractorResult, ReportFormat
from mdnet_ros.evaluation.reports.tables import Column, Section, Table
from mdnet_ros.features.matching import match_mutual_nearest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GROUPS = (*GROUPS.values(), OVERALL)
_SHOWN = (1, 2, 3)
#: Matches within this many pixels are drawn as right, and bars are of this threshold.
_CORRECT_PX = 3
#: Pairs shown as pictures.
_WORST = 4
_DEFINITIONS = (
    'MMA: mean over pairs of correct / proposed matches. MS: correct matches / mean number of '
    'keypoints in the area both images see. Rep: share of the keypoints in that area found again. '
    'AUC: area under the recall curve of the corner error of the homography estimated from the '
    'matches (MAGSAC++). All with mutual nearest neighbours; a failed pair counts as zero.'
)


def group_table(result: HomographyResult, group: str, published: bool = False) -> Table:
    """Averages of a group of sequences, a row for each extractor.

    Args:
        result: result of the evaluation.
        group: ``viewpoint``, ``illumination`` or ``overall``.
        published: append rows of published results, marked as such.
    """
    columns = (
        Column('extractor'),
        *(Column(f'MMA@{t}', 3, 'max') for t in _SHOWN),
        *(Column(f'MS@{t}', 3, 'max') for t in _SHOWN),
        Column(f'Rep@{_CORRECT_PX}', 3, 'max'),
        *(Column(f'AUC@{t}', 3, 'max') for t in HOMOGRAPHY_THRESHOLDS),
        Column('keypoints', 0),
        Column('matches', 0),
        Column('time [ms]', 1),
    )
    rows: list[tuple[object, ...]] = []
    for extractor in result.extractors:
        values = group_average(extractor, group)
        m = values.metrics
        rows.append(
            (
                extractor.name,
                *(m.mma[t] for t in _SHOWN),
                *(m.ms[t] for t in _SHOWN),
                m.repeatability[_CORRECT_PX],
                *(m.homography_auc[t] for t in HOMOGRAPHY_THRESHOLDS),
                values.keypoints,
                m.matches,
                values.milliseconds,
            )
        )
    measured = len(rows)
    for row in PUBLISHED if published else ():
        if group in row.mma:
            ms = row.ms.get(group, (None, None, None))
            rows.append((f'{row.name} (published)', *row.mma[group], *ms, *[None] * 7))
    pairs = max((group_average(e, group).metrics.pairs for e in result.extractors), default=0)
    return Table(
        columns, tuple(rows), f'{group}, {pairs} pairs', frozenset(range(measured, len(rows)))
    )


def sequence_table(result: HomographyResult, metric: str, threshold: int) -> Table:
    """One metric of each sequence, a row for each sequence and a column for each extractor.

    Args:
        result: result of the evaluation.
        metric: ``mma`` or ``ms``.
        threshold: threshold of the metric, pixels.
    """
    names = sorted(result.part_names())
    found = [{s.name: s for s in e.parts} for e in result.extractors]
    rows = []
    for name in names:
        cells: list[float | None] = []
        for by_name in found:
            sequence = by_name.get(name)
            metrics = average([sequence]).metrics if sequence else None
            cells.append(getattr(metrics, metric)[threshold] if metrics else None)
        values = [c for c in cells if c is not None]
        rows.append((name, *cells, max(values) - min(values) if values else None))
    columns = (
        Column('sequence'),
        *(Column(extractor.name, 3) for extractor in result.extractors),
        Column('spread', 3),
    )
    return Table(columns, tuple(rows), f'{metric.upper()}@{threshold} of each sequence')


def accuracy_table(result: HomographyResult) -> Table:
    """MMA, MS and repeatability, a row for each extractor and group of sequences."""
    columns = (
        Column('extractor'), Column('sequences'),
        *(Column(f'{metric}@{t}', 3) for metric in ('MMA', 'MS') for t in _SHOWN),
        Column(f'Rep@{_CORRECT_PX}', 3),
    )  # fmt: skip
    rows = []
    for extractor in result.extractors:
        for group in reversed(_GROUPS):
            m = group_average(extractor, group).metrics
            cells = [values[t] for values in (m.mma, m.ms) for t in _SHOWN]
            rows.append((extractor.name, group, *cells, m.repeatability[_CORRECT_PX]))
    return Table(columns, tuple(rows))


def sections(result: HomographyResult, published: bool = False) -> list[Section]:
    """Tables and lines of a result, for the terminal and text files."""
    return [
        *(group_table(result, group, published) for group in _measured_groups(result)),
        sequence_table(result, 'mma', _CORRECT_PX),
        *result.omitted_lines(),
    ]


def _measured_groups(result: HomographyResult) -> list[str]:
    return [
        group
        for group in _GROUPS
        if any(group_average(e, group).metrics.pairs for e in result.extractors)
    ]


def _curves(result: HomographyResult) -> Figure:
    """Plot MMA over the threshold, a panel for each group."""
    groups = _measured_groups(result)
    figure = new_figure(4.0 * len(groups) + 1.6, 3.6)
    axes = list(np.atleast_1d(figure.subplots(1, len(groups), sharey=True)))
    for axis, group in zip(axes, groups, strict=True):
        for i, extractor in enumerate(result.extractors):
            mma = group_average(extractor, group).metrics.mma
            axis.plot(
                THRESHOLDS, [mma[t] for t in THRESHOLDS], label=extractor.name,
                color=PALETTE[i % len(PALETTE)], linestyle=('-', '--', ':')[i // len(PALETTE) % 3],
            )
        axis.set(title=group, xlabel='threshold [px]', xlim=(1, 10), ylim=(0, 1))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel('MMA')
    figure.legend(*axes[0].get_legend_handles_labels(), loc='outside right upper', frameon=False)
    return figure


def _bars(result: HomographyResult) -> Figure:
    """Plot MMA, MS and repeatability of the extractors side by side."""
    return bar_figure(
        [extractor.name for extractor in result.extractors],
        {
            f'{metric.upper() if len(metric) < 4 else metric}@{_CORRECT_PX}, overall': [
                getattr(group_average(e).metrics, metric)[_CORRECT_PX] for e in result.extractors
            ]
            for metric in ('mma', 'ms', 'repeatability')
        },
    )


@dataclass(frozen=True)
class _WorstPair:
    """A pair to be shown as a picture: image 1 against image ``number``."""

    sequence: str
    number: int
    mma: float


def _worst_pairs(extractor: ExtractorResult[SequenceResult]) -> list[_WorstPair]:
    """Find the pair with the least MMA of each sequence, and of these the worst."""

    def worst(sequence: SequenceResult) -> _WorstPair:
        scores = [pair.mma(_CORRECT_PX) for pair in sequence.pairs]
        index = int(np.argmin(scores))
        return _WorstPair(sequence.name, index + 2, scores[index])

    return sorted(map(worst, extractor.parts), key=lambda pair: pair.mma)[:_WORST]


def _add_pictures(
    page: HtmlPage, result: HomographyResult, source: FeatureSource, root: Path
) -> None:
    extractor = next(e for e in result.extractors if e.name == source.spec.name)
    for pair in _worst_pairs(extractor):
        try:
            sequence = load_sequence(root / pair.sequence)
            images = [
                load_image(sequence.images[i], result.settings.max_side)
                for i in (0, pair.number - 1)
            ]
            a, b = (extraction.features for extraction in source.features_of(images))
        except MDNetError as error:  # changed since it was measured; the results stand
            page.note(str(error))
            continue
        matches = match_mutual_nearest(
            a, b, across_sets=result.settings.across_sets, exact=result.settings.exact
        )
        points_a, points_b = (
            f.keypoints[matches.indices[:, i]] for i, f in enumerate((a, b))
        )
        homography = sequence.homographies[pair.number - 2]
        homography = images[1].to_pixels @ homography @ np.linalg.inv(images[0].to_pixels)
        right = match_errors(points_a, points_b, homography) <= _CORRECT_PX
        picture = draw_matches(images[0].pixels, images[1].pixels, points_a, points_b, right)
        page.picture(
            picture,
            f'{source.spec.name}: {pair.sequence} 1–{pair.number}: '
            f'{int(right.sum())} right (green) of {len(right)} matches at {_CORRECT_PX} px',
        )


def build_page(
    result: HomographyResult, published: bool = False, data: MeasuredData | None = None
) -> HtmlPage:
    """Build the HTML report.

    Args:
        result: result to show.
        published: show published results beside, marked as such.
        data: data set and extractors, for pictures of the worst pairs; None: no pictures.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    settings = result.settings
    size = f'longer side at most {settings.max_side} px' if settings.max_side else 'native size'
    count = len(result.part_names())
    page = HtmlPage(
        'Homography benchmark',
        f'HPatches layout, {count} sequences, at most {settings.max_keypoints} keypoints, {size}'
        + (', matched across keypoint sets' if settings.across_sets else '')
        + ('' if settings.exact else ', descriptors compared in 8 bits where that is faster'),
    )
    page.opening(
        result.omitted_lines(),
        _DEFINITIONS,
        'for the 108 sequences of HPatches. They can be compared with measured ones only where '
        'those are of the same sequences.' if published else '',
    )
    for group in reversed(_measured_groups(result)):
        page.heading(group.capitalize())
        page.table(group_table(result, group, published))
    page.heading('Accuracy over the threshold')
    page.figure(_curves(result), 'Mean matching accuracy over the error a match may have')
    page.heading('Side by side')
    page.figure(_bars(result))
    page.heading('Sequences')
    page.table(sequence_table(result, 'mma', _CORRECT_PX))
    page.table(sequence_table(result, 'ms', _CORRECT_PX))
    if data is not None:
        page.heading('Worst pairs')
        for source in data.sources():
            _add_pictures(page, result, source, data.root)
    page.licences((e.name, e.licence) for e in result.extractors)
    return page


REPORT_FORMAT = ReportFormat(
    'homography', HomographyResult, extractor_metrics, sequence_metrics, sections, build_page,
    PUBLISHED,
)

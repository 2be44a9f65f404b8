"""Tables and HTML page of replayed bags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mdnet_ros.evaluation.replay.results import (
    BagResult,
    ReplayResult,
    bag_metrics,
    latency_percentiles,
    mean_rate,
)
from mdnet_ros.evaluation.reports.html import HtmlPage
from mdnet_ros.evaluation.reports.plots import PALETTE, new_figure
from mdnet_ros.evaluation.reports.results import ReportFormat
from mdnet_ros.evaluation.reports.tables import Column, Section, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DEFINITIONS = (
    'Every image is processed in turn. Time: extraction and tracking of a frame. Drops: frames '
    'that a worker of this speed, which takes the newest, would miss at the bag’s rate. Length: '
    'frames a track is seen in, of tracks seen at least twice. Inliers: share of matches that '
    'agree with a fundamental matrix. Coverage: share of the cells of a 10x8 grid with a track. '
    'Within n px: share of matches, of inliers or of refined inliers that close to the true '
    'epipolar line. '
    'Refined: share of matches that are inliers and whose position optical flow has aligned. '
    'Relative poses: from the tracks two frames share, essential matrix; medians. Odometry: see '
    'docs/evaluation.md; root mean square errors after Sim(3) alignment, from frame to frame for '
    'RPE; means over the seeds, ± half the range.'
)


def track_table(result: ReplayResult, name: str) -> Table:
    """Tracks and times on one bag, a row for each front end."""
    rows: list[tuple[object, ...]] = []
    caption = name
    for frontend_name, bag in _of_bag(result, name):
        latency = latency_percentiles(bag)
        summary = bag.summary
        precision = summary.precision
        within = precision.within if precision else {1: None, 2: None, 3: None}
        inliers_within = precision.inliers_within[1] if precision else None
        refined = precision.refined_within if precision else None
        rows.append(
            (
                frontend_name,
                mean_rate(bag), latency[50], latency[99], bag.dropped,
                summary.keypoints_per_frame, summary.matches_per_frame, summary.inlier_ratio,
                summary.track_length.mean, summary.track_length.median,
                summary.track_length.p90, bag.coverage,
                within[1], within[2], within[3], inliers_within,
                summary.refined_ratio, refined[1] if refined else None,
            )
        )
        caption = f'{name}: {summary.frames} frames at {bag.input_rate:.1f} Hz, tracks'
    columns = [
        Column('extractor'),
        Column('rate [Hz]', 1), Column('p50 [ms]', 1), Column('p99 [ms]', 1), Column('drops'),
        Column('keypoints', 0), Column('matches', 0, 'max'), Column('inliers', 3, 'max'),
        Column('length', 2, 'max'), Column('median', 0), Column('p90', 0),
        Column('coverage', 3, 'max'),
        Column('≤1 px', 3, 'max'), Column('≤2 px', 3, 'max'), Column('≤3 px', 3, 'max'),
        Column('inliers ≤1 px', 3, 'max'), Column('refined', 3), Column('refined ≤1 px', 3),
    ]  # fmt: skip
    if all(row[-2] is None for row in rows):  # no tracks were refined
        columns, rows = columns[:-2], [row[:-2] for row in rows]
    return Table(tuple(columns), tuple(rows), caption)


def pose_table(result: ReplayResult, name: str) -> Table:
    """Relative poses and visual odometry on one bag, a row for each front end."""
    rows = []
    distances: list[int] = []
    for frontend_name, bag in _of_bag(result, name):
        distances = [d.distance for d in bag.distances]
        cells: list[object] = [
            value for d in bag.distances for value in (d.rotation, d.translation, d.accuracy)
        ]
        errors = bag.trajectory_errors()
        cells += [
            _mean([run.located for run in bag.odometry]),
            _mean([run.restarts for run in bag.odometry]),
            _mean([run.ate for run in errors]), _half_range([run.ate for run in errors]),
            _mean([run.rpe_translation for run in errors]),
            _half_range([run.rpe_translation for run in errors]),
            _mean([run.rpe_rotation for run in errors]),
        ]
        rows.append((frontend_name, *cells))
    columns = [Column('extractor')]
    for distance in distances:
        columns += [
            Column(f'R@{distance} [°]', 2, 'min'), Column(f't@{distance} [°]', 1, 'min'),
            Column(f'mAA@{distance}', 3, 'max'),
        ]  # fmt: skip
    columns += [
        Column('located', 2, 'max'), Column('restarts', 1), Column('ATE [m]', 3, 'min'),
        Column('±', 3), Column('RPE [m]', 4, 'min'), Column('±', 4), Column('RPE [°]', 3, 'min'),
    ]  # fmt: skip
    limit = result.settings.max_tracks
    given = f' from at most {limit} tracks of each image' if limit else ''
    caption = f'{name}: relative poses and visual odometry{given}'
    return Table(tuple(columns), tuple(rows), caption)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _half_range(values: Sequence[float]) -> float | None:
    """Half the difference of the largest and the smallest of two or more values."""
    return float(np.ptp(values)) / 2 if len(values) > 1 else None


def _of_bag(result: ReplayResult, name: str) -> list[tuple[str, BagResult]]:
    return [(frontend.name, bag) for frontend, bag in result.of_part(name)]


def sections(result: ReplayResult) -> list[Section]:
    """Tables and lines of a result, for the terminal and text files."""
    names = result.part_names()
    tables = (table(result, name) for name in names for table in (track_table, pose_table))
    return [*tables, *result.omitted_lines()]


def _colours(result: ReplayResult) -> dict[str, str]:
    return {f.name: PALETTE[i % len(PALETTE)] for i, f in enumerate(result.extractors)}


def _trajectory(result: ReplayResult, name: str) -> Figure | None:
    """Plot the paths in the plane in which the true one extends most."""
    found = [
        (frontend, bag.trajectory_errors()[0])  # the first seed
        for frontend, bag in _of_bag(result, name)
        if bag.trajectory_errors()
    ]
    if not found:
        return None
    longest = max((errors.truth for _, errors in found), key=len)
    x, y = sorted(np.argsort(-np.ptp(longest, axis=0), kind='stable')[:2])
    figure = new_figure(7.5, 5.0)
    axis = figure.subplots()
    axis.plot(longest[:, x], longest[:, y], color='0.6', linewidth=4, label='ground truth')
    for frontend, errors in found:
        path = errors.aligned
        axis.plot(
            path[:, x], path[:, y], color=_colours(result)[frontend], linewidth=1.2,
            label=f'{frontend}, ATE {errors.ate:.2f} m',
        )
    axis.set(xlabel=f'{"xyz"[x]} [m]', ylabel=f'{"xyz"[y]} [m]')
    axis.set_aspect('equal', adjustable='datalim')
    axis.grid(alpha=0.3)
    figure.legend(loc='outside right upper', frameon=False)
    return figure


def _relative(result: ReplayResult, name: str) -> Figure | None:
    """Plot the accuracy of relative poses over the frame distance."""
    found = [(frontend, bag) for frontend, bag in _of_bag(result, name) if bag.distances]
    if not found:
        return None
    figure = new_figure(7.5, 3.4)
    axis = figure.subplots()
    for frontend, bag in found:
        axis.plot(
            [d.distance for d in bag.distances],
            [np.nan if d.accuracy is None else d.accuracy for d in bag.distances],
            marker='o', color=_colours(result)[frontend], label=frontend,
        )
    axis.set(xlabel='frames apart', ylabel='mAA(10°)', ylim=(0, 1.02))
    axis.grid(alpha=0.3)
    figure.legend(loc='outside right upper', frameon=False)
    return figure


def _latency(result: ReplayResult, name: str) -> Figure:
    """Plot a histogram of the time of a frame."""
    found = _of_bag(result, name)
    figure = new_figure(7.5, 3.2)
    axis = figure.subplots()
    most = max(float(np.percentile(bag.milliseconds, 99)) for _, bag in found)
    edges = np.linspace(0, max(most, 1.0), 41)
    for frontend, bag in found:
        axis.hist(
            bag.milliseconds, bins=edges.tolist(), histtype='step', linewidth=1.5,
            color=_colours(result)[frontend], label=frontend,
        )
    axis.set(xlabel='time of a frame [ms]', ylabel='frames', xlim=(0, edges[-1]))
    axis.grid(alpha=0.3)
    figure.legend(loc='outside right upper', frameon=False)
    return figure


def build_page(result: ReplayResult) -> HtmlPage:
    """Build the HTML report.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    names = result.part_names()
    page = HtmlPage(
        'Replay', f'{", ".join(names)}; at most {result.settings.max_keypoints} keypoints'
    )
    page.opening(result.omitted_lines(), _DEFINITIONS)
    for name in names:
        page.heading(name)
        page.table(track_table(result, name))
        page.table(pose_table(result, name))
        trajectory, relative = _trajectory(result, name), _relative(result, name)
        if trajectory is not None:
            page.figure(trajectory, 'Visual odometry, aligned with the ground truth')
        if relative is not None:
            page.figure(relative, 'Relative poses over the distance of the frames')
        page.figure(_latency(result, name), 'Extraction and tracking of a frame')
    page.licences((f.name, f.licence) for f in result.extractors)
    return page


REPORT_FORMAT = ReportFormat(
    'replay', ReplayResult, lambda _: {}, bag_metrics,
    # No results are published for bags, and no pictures are drawn.
    sections=lambda result, published: sections(result),
    page=lambda result, published, data: build_page(result),
)

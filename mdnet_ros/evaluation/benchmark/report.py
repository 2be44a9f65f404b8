"""Tables of the benchmark and of the check of a device."""

from __future__ import annotations

from collections.abc import Sequence

from mdnet_ros.evaluation.benchmark.device_check import Check, StepTiming
from mdnet_ros.evaluation.benchmark.protocol import BenchmarkResult, ExtractorRow, MatchingRow
from mdnet_ros.evaluation.reports.tables import Column, Section, Table


def device_check_sections(checks: Sequence[Check], steps: Sequence[StepTiming]) -> list[Section]:
    """Return a line for each check, and the table of the times."""
    lines = [
        f'{"ok  " if check.passed else "FAIL"} {check.name}: {check.detail}' for check in checks
    ]
    columns = (
        Column('network'), Column('size'), Column('batch'), Column('precision'),
        Column('bare ms', 3), Column('p99', 3), Column('whole ms', 3), Column('p99', 3),
        Column('x bare', 2), Column('images/s', 0),
    )  # fmt: skip
    rows = tuple(
        (
            step.network, f'{step.size[0]}x{step.size[1]}', step.batch, step.precision,
            step.bare.median_ms, step.bare.p99_ms, step.whole.median_ms, step.whole.p99_ms,
            step.ratio, step.images_per_second,
        )
        for step in steps
    )  # fmt: skip
    title = 'The bare network, and the whole: images on the host in, features and matches out'
    return [*lines, Table(columns, rows, title)]


def benchmark_sections(result: BenchmarkResult) -> list[Section]:
    """Return the tables of a benchmark, and a line for each extractor that was left out."""
    columns = ('extractor', 'size', 'keypoints', 'found', 'precision')
    extraction = Table(
        (*map(Column, columns), Column('network ms', 2), Column('extract ms', 2),
         Column('p99', 2), Column('bound ms', 3),
         Column('x bound', 1), Column('step ms', 2, best='min'), Column('p99', 2),
         Column('x network', 2),
         Column('frames/s', 1), Column('x first', 2), Column('peak MB', 0)),
        tuple(map(_extractor_cells, result.extractors)),
        f'{result.device}, {result.threads} threads: extraction and the whole tracker step',
    )  # fmt: skip
    matching = Table(
        (Column('keypoints'), Column('sets'), Column('products'), Column('ms', 3), Column('p99', 3),
         Column('bound ms', 3), Column('x bound', 1), Column('x one set', 3),
         Column('MB', 1)),
        tuple(map(_matching_cells, result.matching)),
        'Matching within sets',
    )  # fmt: skip
    omitted = (f'left out: {name}: {why}' for name, why in result.unavailable.items())
    return [extraction, matching, *omitted]


def _extractor_cells(row: ExtractorRow) -> tuple[object, ...]:
    extraction = row.extraction
    return (
        row.name, f'{row.size[0]}x{row.size[1]}', row.keypoints, row.found, row.precision,
        row.network.median_ms if row.network else None,
        extraction.median_ms if extraction else None, extraction.p99_ms if extraction else None,
        row.floor_ms, row.floor_ratio, row.step.median_ms, row.step.p99_ms,
        row.network_ratio, row.fps,
        row.step_ratio, row.memory_mb,
    )  # fmt: skip


def _matching_cells(row: MatchingRow) -> tuple[object, ...]:
    return (
        row.keypoints, row.sets, row.products, row.timing.median_ms, row.timing.p99_ms,
        row.floor_ms, row.floor_ratio, row.one_set_ratio, row.memory_mb,
    )

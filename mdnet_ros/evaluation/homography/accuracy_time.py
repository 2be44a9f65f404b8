"""Accuracy over extraction time: read from two kinds of JSON file, drawn as one picture.

>>> points = read_points([Path('speed.json')], Path('homography.json'), (640, 480), 2048)
>>> draw_points(points, Path('accuracy-time.png'))
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdnet_ros.errors import DataError
from mdnet_ros.evaluation.homography.report import REPORT_FORMAT
from mdnet_ros.evaluation.homography.results import group_average
from mdnet_ros.evaluation.reports.plots import PALETTE, new_figure
from mdnet_ros.features.weights import CONFIGS
from mdnet_ros.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase

#: Groups of sequences, a panel each, and their titles.
GROUPS = {'viewpoint': 'viewpoint', 'illumination': 'light, blur, compression'}
#: Matches within this many pixels are correct.
THRESHOLD = 3
#: Places of a label beside its point, in the order they are tried: offset in points, alignment.
_PLACES = (
    (6, 0, 'left', 'center'), (-6, 0, 'right', 'center'), (0, 6, 'center', 'bottom'),
    (0, -6, 'center', 'top'), (5, 5, 'left', 'bottom'), (5, -5, 'left', 'top'),
    (-5, 5, 'right', 'bottom'), (-5, -5, 'right', 'top'),
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """An extractor in the picture.

    Attributes:
        name: name of the extractor.
        milliseconds: median time to extract features from one image.
        mma: group of sequences -> mean matching accuracy at :data:`THRESHOLD` pixels.
    """

    name: str
    milliseconds: float
    mma: dict[str, float]


@dataclass(frozen=True)
class Points:
    """All extractors of a picture.

    Attributes:
        machine: the device and its threads, in words.
        size: (width, height) of the images whose extraction was timed, pixels.
        keypoints: the most keypoints of one image.
        points: those that have both a time and an accuracy.
        left_out: names that lack one of the two.
    """

    machine: str
    size: tuple[int, int]
    keypoints: int
    points: tuple[Point, ...]
    left_out: tuple[str, ...]


def read_points(
    speed: Sequence[Path], accuracy: Path, size: tuple[int, int], keypoints: int
) -> Points:
    """Join the times of ``mdnet benchmark`` with the accuracy of ``mdnet evaluate homography``.

    Args:
        speed: files of ``mdnet benchmark --json``, of one machine; no extractor in two of them.
        accuracy: file of ``mdnet evaluate homography --json`` or of a merge.
        size: (width, height) of the timed images, pixels.
        keypoints: the most keypoints of one image, in both measurements.

    Raises:
        DataError: a file is of another kind, machines or budgets differ, an extractor was timed
            twice, or nothing is left to draw.
    """
    machine = ''
    times: dict[str, float] = {}
    for path in speed:
        found, rows = _read_times(path, size, keypoints)
        if machine not in ('', found):
            raise DataError(f"times '{path}': from '{found}', expected '{machine}' as before")
        machine = found
        for name in sorted(times.keys() & rows.keys()):
            raise DataError(f"times '{path}': '{name}' was timed in another file, too")
        times |= rows
    document = _read(accuracy, 'protocol', 'homography', 'mdnet evaluate homography')
    result = REPORT_FORMAT.from_json(document, f"accuracy '{accuracy}'")
    budget = result.settings.max_keypoints
    if budget != keypoints:
        raise DataError(f"accuracy '{accuracy}': of {budget} keypoints, expected {keypoints}")
    mma = {
        extractor.name: {g: group_average(extractor, g).metrics.mma[THRESHOLD] for g in GROUPS}
        for extractor in result.extractors
    }
    points = tuple(Point(name, times[name], mma[name]) for name in times if name in mma)
    if not points:
        raise DataError(
            f"accuracy '{accuracy}': none of its extractors was timed at {size[0]}x{size[1]} with "
            f'{keypoints} keypoints; timed were {", ".join(times) or "none"}'
        )
    return Points(machine, size, keypoints, points, tuple(sorted(set(times) ^ set(mma))))


def _read_times(
    path: Path, size: tuple[int, int], keypoints: int
) -> tuple[str, dict[str, float]]:
    """The machine in words, and the median milliseconds of each extractor's extraction.

    Raises:
        DataError: the file is not of ``mdnet benchmark --json``.
    """
    document = _read(path, 'benchmark', 'speed', 'mdnet benchmark')
    try:
        times = {
            str(row['name']): float(row['extraction']['median_ms'])
            for row in document['extractors']
            if (*row['size'], row['keypoints']) == (*size, keypoints) and row['extraction']
        }
        threads = int(document['threads'])
        words = f'{document["device"]}, {threads} thread{"s" if threads > 1 else ""}'
        return words, times
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"times '{path}': not of mdnet benchmark: {error!r}") from None


def _read(path: Path, key: str, value: str, command: str) -> dict[str, Any]:
    """A JSON document whose ``key`` says that ``command`` wrote it.

    Raises:
        DataError: it is something else.
    """
    try:
        document = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"results '{path}': cannot be read: {error}") from None
    if not isinstance(document, dict) or document.get(key) != value:
        raise DataError(f"results '{path}': expected the JSON of {command}")
    return document


def draw_points(points: Points, out: Path) -> None:
    """Draw MMA over milliseconds, a panel for each group; ours are filled.

    Args:
        points: to draw.
        out: PNG file to (re)place.

    Raises:
        DataError: the file cannot be written.
        MissingDependencyError: matplotlib is not installed.
    """
    figure = new_figure(10.0, 4.4)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.ticker import LogLocator, NullFormatter

    panels: list[Axes] = list(figure.subplots(1, len(GROUPS)))
    slowest = max(point.milliseconds for point in points.points)
    fastest = min(point.milliseconds for point in points.points)
    for panel, (group, title) in zip(panels, GROUPS.items(), strict=True):
        panel.set_xscale('log')
        panel.set_xlim(fastest / 1.8, slowest * 2.2)
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.xaxis.set_major_formatter('{x:g}')
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_title(title)
        panel.set_xlabel(
            f'extraction [ms], {points.size[0]}x{points.size[1]}, {points.keypoints} keypoints'
        )
        panel.grid(alpha=0.3, which='both')
        for point in points.points:
            ours = point.name.partition('@')[0] in CONFIGS
            panel.plot(
                point.milliseconds, point.mma[group], 'o', markersize=8 if ours else 6,
                color=PALETTE[1] if ours else PALETTE[0],
                markerfacecolor=PALETTE[1] if ours else 'white',
            )
        panel.margins(y=0.12)
    panels[0].set_ylabel(f'MMA@{THRESHOLD}')
    figure.suptitle(f'Accuracy over time ({points.machine})', fontsize=10)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # places the panels, so that labels know where they are
    renderer = canvas.get_renderer()
    for panel, group in zip(panels, GROUPS, strict=True):
        _label(panel, points.points, group, renderer)
    picture = io.BytesIO()
    figure.savefig(picture, format='png', dpi=90)
    write_bytes(out, picture.getvalue())


def _label(
    panel: Axes, points: Sequence[Point], group: str, renderer: RendererBase
) -> None:
    """Write each point's name beside it, where it covers no other name or point if possible."""
    taken: list[Sequence[float]] = []
    for point in points:
        x, y = panel.transData.transform((point.milliseconds, point.mma[group]))
        taken.append((x - 5, y - 5, x + 5, y + 5))
    for own, point in enumerate(points):
        best = None
        for dx, dy, horizontal, vertical in _PLACES:
            label = panel.annotate(
                point.name, (point.milliseconds, point.mma[group]), (dx, dy),
                textcoords='offset points', ha=horizontal, va=vertical, fontsize=8,
            )  # fmt: skip
            box = label.get_window_extent(renderer).extents
            covered = sum(
                _common_area(box, other) for i, other in enumerate(taken) if i != own
            )
            if best is None or covered < best[0]:
                if best is not None:
                    best[1].remove()
                best = (covered, label, box)
            else:
                label.remove()
        assert best is not None
        taken.append(tuple(best[2]))


def _common_area(a: Sequence[float], b: Sequence[float]) -> float:
    """Area that two boxes (x0, y0, x1, y1) share."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)

"""Building blocks of reports: tables for terminal and HTML, pictures, one self-contained page.

>>> page = HtmlPage('Results', 'What was measured on what')
>>> page.table(Table((Column('name'), Column('error', 2, best='min')), (('a', 1.0), ('b', 2.0))))
>>> page.write(Path('report.html'))
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from mdnet_ros.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1b1f24;background:#fff;max-width:1360px;
margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.7rem;margin-bottom:.2rem}h2{font-size:1.25rem;margin-top:2.2rem;
border-bottom:1px solid #d8dee4;padding-bottom:.2rem}
.sub{color:#57606a;margin-top:0}.note{background:#fff8e1;border-left:4px solid #e69f00;
padding:.5rem .8rem;margin:.6rem 0}
.wide{overflow-x:auto}table{border-collapse:collapse;margin:.8rem 0;font-size:.88rem;
font-variant-numeric:tabular-nums}caption{text-align:left;color:#57606a;padding-bottom:.3rem}
th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid #e6eaee;white-space:nowrap}
th{background:#f6f8fa;border-bottom:2px solid #d0d7de}
th:first-child,td:first-child{text-align:left}
tr.marked td{color:#57606a;font-style:italic;background:#fbfbfc}
td.best{font-weight:700;color:#0b5d3b}
figure{margin:1rem 0}figure img{max-width:100%;height:auto}
figcaption{color:#57606a;font-size:.9rem}
"""


#: Follows the best figure of a column in plain text.
STAR = '*'
#: Characters of a line where the output is a file: wide enough for every table.
_FILE_WIDTH = 1000


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its head.
        digits: decimals of numbers; None: cells are shown as they are.
        best: which extreme is marked as the best (bold, or a star in plain text), if any.
    """

    title: str
    digits: int | None = None
    best: Literal['max', 'min'] | None = None

    def show(self, value: Any) -> str:
        """Format a cell as text; None becomes a dash."""
        if value is None:
            return '–'
        if self.digits is None or isinstance(value, str):
            return str(value)
        return f'{value:.{self.digits}f}'


@dataclass(frozen=True)
class Table:
    """Rows under columns, for the terminal and for HTML.

    Attributes:
        columns: their heads and formats.
        rows: raw values; None where there is none.
        caption: what the table shows.
        marked: rows that were not measured here (published figures): shown apart, never the best.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    caption: str = ''
    marked: frozenset[int] = field(default_factory=frozenset)

    def best_rows(self, column: int) -> set[int]:
        """Return the rows whose shown value is the best of a column; equal ones are all best."""
        best = self.columns[column].best
        values = {
            i: row[column]
            for i, row in enumerate(self.rows)
            if i not in self.marked and isinstance(row[column], int | float)
        }
        if best is None or len(values) < 2:
            return set()
        extreme = max(values.values()) if best == 'max' else min(values.values())
        show = self.columns[column].show
        return {i for i, value in values.items() if show(value) == show(extreme)}

    def print(self, console: Console | None = None) -> None:
        """Print the table to the terminal, or to ``console``."""
        caption = Text(self.caption) if self.caption else None
        rich_table = RichTable(title=caption, title_justify='left', box=box.SIMPLE)
        for i, column in enumerate(self.columns):
            justify: Literal['left', 'right'] = 'right' if i else 'left'
            rich_table.add_column(Text(column.title), justify=justify, no_wrap=True)
        console = console or _console()
        best = [self.best_rows(i) for i in range(len(self.columns))]
        for r, row in enumerate(self.rows):
            cells = []
            for c, (column, value) in enumerate(zip(self.columns, row, strict=True)):
                text = column.show(value)
                if not console.is_terminal and best[c]:
                    # A file has no bold letters.
                    text += STAR if r in best[c] else ' ' * len(STAR)
                cells.append(Text(text, style='bold' if r in best[c] else ''))
            rich_table.add_row(*cells, style='italic dim' if r in self.marked else None)
        console.print(rich_table)

    def to_html(self) -> str:
        """Return the table as HTML."""
        head = ''.join(f'<th>{html.escape(column.title)}</th>' for column in self.columns)
        best = [self.best_rows(i) for i in range(len(self.columns))]
        body = []
        for r, row in enumerate(self.rows):
            cells = ''.join(
                f'<td{" class=best" if r in best[c] else ""}>{html.escape(column.show(value))}</td>'
                for c, (column, value) in enumerate(zip(self.columns, row, strict=True))
            )
            body.append(f'<tr{" class=marked" if r in self.marked else ""}>{cells}</tr>')
        caption = f'<caption>{html.escape(self.caption)}</caption>' if self.caption else ''
        return (
            f'<div class=wide><table>{caption}<thead><tr>{head}</tr></thead>'
            f'<tbody>{"".join(body)}</tbody></table></div>'
        )


#: What results consist of in the terminal: tables and single lines.
Part = Table | str


def print_parts(parts: Sequence[Part], console: Console | None = None) -> None:
    """Print tables and lines to the terminal, or to ``console``."""
    console = console or _console()
    for part in parts:
        if isinstance(part, Table):
            part.print(console)
        else:
            console.print(part, markup=False, highlight=False, soft_wrap=True)
    starred = any(
        part.best_rows(c) for part in parts if isinstance(part, Table)
        for c in range(len(part.columns))
    )
    if starred and not console.is_terminal:
        console.print(f'{STAR} best of its column', markup=False, highlight=False)


def text_of(parts: Sequence[Part]) -> str:
    """Return tables and lines as the text of a file."""
    buffer = io.StringIO()
    print_parts(parts, Console(file=buffer, width=_FILE_WIDTH, color_system=None))
    return ''.join(f'{line.rstrip()}\n' for line in buffer.getvalue().splitlines())


def _console() -> Console:
    """Return the terminal; if the output is a file, lines are long enough for every table."""
    console = Console()
    return console if console.is_terminal else Console(width=_FILE_WIDTH)


class HtmlPage:
    """A page that needs no other file: style and pictures are inside.

    Args:
        title: of the page.
        subtitle: one line below it.
    """

    def __init__(self, title: str, subtitle: str = '') -> None:
        self._title = title
        self._parts = [
            f'<h1>{html.escape(title)}</h1>',
            f'<p class=sub>{html.escape(subtitle)}</p>',
        ]

    def opening(self, left_out: Iterable[str], definitions: str, published: str = '') -> None:
        """What every report begins with.

        Args:
            left_out: what was not measured, a line each.
            definitions: of the figures.
            published: how the published figures are meant that are shown; empty: none are.
        """
        for line in left_out:
            self.note(line)
        self.text(definitions)
        if published:
            self.text(f'Rows in italics are published figures {published}')

    def licences(self, extractors: Iterable[tuple[str, str]]) -> None:
        """What every report ends with: names of extractors and their licences."""
        self.heading('Licences')
        self.table(Table((Column('extractor'), Column('licence')), tuple(extractors)))

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._parts.append(f'<h2>{html.escape(text)}</h2>')

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f'<p>{html.escape(text)}</p>')

    def note(self, text: str) -> None:
        """Add a paragraph that must not be overlooked."""
        self._parts.append(f'<p class=note>{html.escape(text)}</p>')

    def table(self, table: Table) -> None:
        """Add a table."""
        self._parts.append(table.to_html())

    def figure(self, figure: Figure, caption: str = '') -> None:
        """Add a matplotlib figure, as SVG."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format='svg', bbox_inches='tight', metadata={'Date': None})
        self._image('image/svg+xml', buffer.getvalue(), caption)

    def picture(self, image: np.ndarray, caption: str = '', quality: int = 80) -> None:
        """Add a uint8 BGR or gray image, as JPEG."""
        ok, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if not ok:
            raise ValueError(f'image: expected uint8 (H, W) or (H, W, 3), got {image.shape}')
        self._image('image/jpeg', data.tobytes(), caption)

    def _image(self, kind: str, data: bytes, caption: str) -> None:
        source = f'data:{kind};base64,{base64.b64encode(data).decode()}'
        text = html.escape(caption)
        self._parts.append(
            f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'
        )

    def write(self, path: Path) -> None:
        """Write the page; raises DataError if the place cannot be written."""
        title = html.escape(self._title)
        write_text(
            path,
            '<!doctype html><html lang=en><head><meta charset=utf-8>'
            '<meta name=viewport content="width=device-width,initial-scale=1">'
            f'<title>{title}</title><style>{_STYLE}</style></head>'
            f'<body>{"".join(self._parts)}</body></html>\n',
        )

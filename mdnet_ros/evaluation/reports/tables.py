"""Tables for the terminal, text files, Markdown and HTML.

>>> table = Table((Column('name'), Column('error', 2, best='min')), (('a', 1.0), ('b', 2.0)))
>>> print_sections([table, 'left out: c'])
"""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

#: Follows the best value of a column in plain text, which has no bold letters.
STAR = '*'
#: Characters of a line in files: enough for every table.
_FILE_WIDTH = 1000


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: text of its head.
        digits: decimals of numbers; None: cells are shown as they are.
        best: which extreme is marked as the best, bold or with a star in plain text, if any.
    """

    title: str
    digits: int | None = None
    best: Literal['max', 'min'] | None = None

    def show(self, value: Any) -> str:
        """Format a cell; a dash stands for None."""
        if value is None:
            return '–'
        if self.digits is None or isinstance(value, str):
            return str(value)
        return f'{value:.{self.digits}f}'


@dataclass(frozen=True)
class Table:
    """Rows under columns; the first column is aligned left, all others right.

    Attributes:
        columns: titles and formats.
        rows: raw values, one for each column; None where there is none. Text may have several
            lines.
        caption: one line that says what the table shows.
        marked: indices of rows that were not measured here (published results); they are shown in
            italics and never as the best.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    caption: str = ''
    marked: frozenset[int] = field(default_factory=frozenset)

    def best_rows(self, column: int) -> set[int]:
        """Return the rows whose value is shown as the best of a column."""
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

    def _cells(self) -> list[list[tuple[str, bool]]]:
        """Text of every cell, row by row, and whether it is the best of its column."""
        best = [self.best_rows(i) for i in range(len(self.columns))]
        return [
            [
                (column.show(value), r in best[c])
                for c, (column, value) in enumerate(zip(self.columns, row, strict=True))
            ]
            for r, row in enumerate(self.rows)
        ]

    def print(self, console: Console | None = None) -> None:
        """Show the table in the terminal, or wherever ``console`` writes."""
        console = console or _console()
        caption = Text(self.caption) if self.caption else None
        rich_table = RichTable(title=caption, title_justify='left', box=box.SIMPLE)
        for i, column in enumerate(self.columns):
            justify: Literal['left', 'right'] = 'right' if i else 'left'
            rich_table.add_column(Text(column.title), justify=justify, no_wrap=True)
        for r, row in enumerate(self._cells()):
            cells = [Text(text, style='bold' if best else '') for text, best in row]
            for cell, column, (_, best) in zip(cells, self.columns, row, strict=True):
                if column.best and not console.is_terminal:
                    cell.append(STAR if best else ' ')
            rich_table.add_row(*cells, style='italic dim' if r in self.marked else None)
        console.print(rich_table)

    def to_markdown(self) -> str:
        """Return the table in GitHub's Markdown, its caption as a paragraph above it."""
        lines = [_markdown_row(column.title for column in self.columns)]
        lines.append('|' + '|'.join([':---', *['---:'] * (len(self.columns) - 1)]) + '|')
        for r, row in enumerate(self._cells()):
            emphasis = ['**' if best else '*' if r in self.marked else '' for _, best in row]
            texts = zip(row, emphasis, strict=True)
            lines.append(_markdown_row(f'{mark}{text}{mark}' for (text, _), mark in texts))
        caption = [self.caption, ''] if self.caption else []
        return '\n'.join([*caption, *lines])

    def to_html(self) -> str:
        """Return the table as HTML."""
        head = ''.join(f'<th>{_html(column.title)}</th>' for column in self.columns)
        body = []
        for r, row in enumerate(self._cells()):
            cells = ''.join(
                f'<td{" class=best" if best else ""}>{_html(text)}</td>' for text, best in row
            )
            body.append(f'<tr{" class=marked" if r in self.marked else ""}>{cells}</tr>')
        caption = f'<caption>{_html(self.caption)}</caption>' if self.caption else ''
        return (
            f'<div class=wide><table>{caption}<thead><tr>{head}</tr></thead>'
            f'<tbody>{"".join(body)}</tbody></table></div>'
        )


#: What a report consists of outside HTML: tables and single lines of text.
Section = Table | str


def print_sections(sections: Sequence[Section], console: Console | None = None) -> None:
    """Show tables and lines in the terminal, or wherever ``console`` writes."""
    console = console or _console()
    for section in sections:
        if isinstance(section, Table):
            section.print(console)
        else:
            console.print(section, markup=False, highlight=False, soft_wrap=True)
    starred = any(
        section.best_rows(c) for section in sections if isinstance(section, Table)
        for c in range(len(section.columns))
    )
    if starred and not console.is_terminal:
        console.print(f'{STAR} best of its column', markup=False, highlight=False)


def text_of(sections: Sequence[Section]) -> str:
    """Return tables and lines as plain text."""
    buffer = io.StringIO()
    print_sections(sections, Console(file=buffer, width=_FILE_WIDTH, color_system=None))
    return ''.join(f'{line.rstrip()}\n' for line in buffer.getvalue().splitlines())


def markdown_of(sections: Sequence[Section]) -> str:
    """Return tables and lines as Markdown, a paragraph each."""
    return ''.join(
        f'{section.to_markdown() if isinstance(section, Table) else section}\n\n'
        for section in sections
    )


def _markdown_row(cells: Iterable[str]) -> str:
    texts = (cell.replace('|', '\\|').replace('\n', '<br>') for cell in cells)
    return f'| {" | ".join(texts)} |'


def _html(text: str) -> str:
    return html.escape(text).replace('\n', '<br>')


def _console() -> Console:
    """Console of the terminal; wide enough not to cut tables when the output goes to a file."""
    console = Console()
    return console if console.is_terminal else Console(width=_FILE_WIDTH)

"""HTML reports: one page that holds its style, tables and pictures.

>>> page = HtmlPage('Results', 'What was measured on what')
>>> page.table(Table((Column('name'), Column('error', 2, best='min')), (('a', 1.0), ('b', 2.0))))
>>> page.write(Path('report.html'))
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from mdnet_ros.evaluation.reports.tables import Column, Table
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


class HtmlPage:
    """A page that needs no other file: style and pictures are inside.

    Args:
        title: heading of the page.
        subtitle: one line below it.
    """

    def __init__(self, title: str, subtitle: str = '') -> None:
        self._title = title
        self._elements = [
            f'<h1>{html.escape(title)}</h1>',
            f'<p class=sub>{html.escape(subtitle)}</p>',
        ]

    def opening(self, omitted: Iterable[str], definitions: str, published: str = '') -> None:
        """Add what every report begins with.

        Args:
            omitted: a line for each thing that was left out.
            definitions: definitions of the metrics.
            published: how the published results that are shown are to be read; empty: none are.
        """
        for line in omitted:
            self.note(line)
        self.text(definitions)
        if published:
            self.text(f'Rows in italics are published results {published}')

    def licences(self, extractors: Iterable[tuple[str, str]]) -> None:
        """Add what every report ends with: the extractors' names and licences."""
        self.heading('Licences')
        self.table(Table((Column('extractor'), Column('licence')), tuple(extractors)))

    def heading(self, text: str) -> None:
        """Begin a section."""
        self._elements.append(f'<h2>{html.escape(text)}</h2>')

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self._elements.append(f'<p>{html.escape(text)}</p>')

    def note(self, text: str) -> None:
        """Add a paragraph that must not be overlooked."""
        self._elements.append(f'<p class=note>{html.escape(text)}</p>')

    def table(self, table: Table) -> None:
        """Add a table."""
        self._elements.append(table.to_html())

    def figure(self, figure: Figure, caption: str = '') -> None:
        """Add a matplotlib figure, as SVG."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format='svg', bbox_inches='tight', metadata={'Date': None})
        self._image('image/svg+xml', buffer.getvalue(), caption)

    def picture(self, image: np.ndarray, caption: str = '', quality: int = 80) -> None:
        """Add an image as JPEG.

        Args:
            image: (H, W, 3) BGR or (H, W) gray, uint8.
            caption: text below it.
            quality: JPEG quality in [0, 100].
        """
        ok, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if not ok:
            raise ValueError(f'image: expected uint8 (H, W) or (H, W, 3), got {image.shape}')
        self._image('image/jpeg', data.tobytes(), caption)

    def _image(self, kind: str, data: bytes, caption: str) -> None:
        source = f'data:{kind};base64,{base64.b64encode(data).decode()}'
        text = html.escape(caption)
        self._elements.append(
            f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'
        )

    def write(self, path: Path) -> None:
        """Write the page.

        Raises:
            DataError: the file cannot be written.
        """
        title = html.escape(self._title)
        write_text(
            path,
            '<!doctype html><html lang=en><head><meta charset=utf-8>'
            '<meta name=viewport content="width=device-width,initial-scale=1">'
            f'<title>{title}</title><style>{_STYLE}</style></head>'
            f'<body>{"".join(self._elements)}</body></html>\n',
        )

"""Progress of long work: a bar on a terminal, and a line every ten seconds in a log."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

#: Seconds between two lines where there is no terminal.
LINE_PERIOD = 10.0


class Progress(tqdm):
    """tqdm's bar; where its output is no terminal, a line every :data:`LINE_PERIOD` instead.

    A bar in a log file would be one endless line, or thousands of them. Work that is done within
    the period leaves no line there.

    Args:
        arguments: as for ``tqdm.tqdm``.
        options: as for ``tqdm.tqdm``.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        file = options.get('file') or sys.stderr
        self._lines = not (hasattr(file, 'isatty') and file.isatty())
        self._line_at = time.monotonic() + LINE_PERIOD
        self._said = False
        if self._lines:
            options |= {'mininterval': LINE_PERIOD, 'maxinterval': LINE_PERIOD, 'miniters': 1}
            options |= {'dynamic_ncols': False, 'ncols': 100, 'ascii': True}
        super().__init__(*arguments, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Show the state, unless a line was written a short time ago."""
        if not self._lines:
            return bool(super().display(msg, pos))
        if time.monotonic() >= self._line_at:
            self._write_line()
        return False

    def clear(self, nolock: bool = False) -> None:
        """Take the bar off the terminal; in a log there is nothing to take away.

        ``write`` does this before each message. tqdm would move a log's place with ``\\r``.
        """
        if not self._lines:
            super().clear(nolock)

    def close(self) -> None:
        """End the bar; where lines were written, with a last one."""
        if self._lines and not self.disable:
            if self._said:
                self._write_line()
            self.leave = False
        super().close()

    def _write_line(self) -> None:
        self._line_at = time.monotonic() + LINE_PERIOD
        self._said = True
        self.fp.write(f'{self}\n')
        self.fp.flush()

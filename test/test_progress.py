"""Progress on terminals and in log files."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

import mdnet_ros.progress
from mdnet_ros.progress import Progress


class Clock:
    """A clock that a test sets."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(mdnet_ros.progress.time, 'monotonic', lambda: self.now)


def test_a_log_gets_one_line_every_ten_seconds(monkeypatch):
    clock, log = Clock(monkeypatch), io.StringIO()
    for _ in Progress(range(1000), 'tracking', unit='frame', file=log, miniters=1):
        clock.now += 0.1
    lines = log.getvalue().splitlines()
    assert '\r' not in log.getvalue()
    assert 1 <= len(lines) <= 11  # of 100 seconds
    assert all(line.startswith('tracking: ') for line in lines)
    assert '1000/1000' in lines[-1]


def test_short_work_leaves_no_line_in_a_log(monkeypatch):
    clock, log = Clock(monkeypatch), io.StringIO()
    with Progress(total=50, file=log) as bar:
        for _ in range(50):
            bar.set_postfix_str('x')
            bar.update()
            clock.now += 0.1
    assert log.getvalue() == ''


def test_changes_of_the_postfix_do_not_fill_a_log(monkeypatch):
    clock, log = Clock(monkeypatch), io.StringIO()
    with Progress(total=500, file=log) as bar:
        for i in range(500):
            bar.set_postfix_str(f'step {i}')
            bar.update()
            clock.now += 0.1
    lines = log.getvalue().splitlines()
    assert 5 <= len(lines) <= 6
    assert 'step 499' in lines[-1]


def test_messages_between_keep_their_lines(capsys):
    """Standard error, and standard output with it, may go to a file."""
    with Progress(total=2) as bar:
        bar.write('between')
        bar.clear()
    assert capsys.readouterr() == ('between\n', '')


def test_a_terminal_has_a_bar():
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
    code = 'from mdnet_ros.progress import Progress\nfor _ in Progress(range(3), "work"): pass'
    subprocess.run([sys.executable, '-c', code], stderr=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert '\r' in shown
    assert 'work: 100%' in shown


@pytest.mark.parametrize('path', sorted(Path(mdnet_ros.progress.__file__).parent.rglob('*.py')),
                         ids=lambda p: p.stem)
def test_every_bar_of_the_package_is_this_one(path):
    if path.name != 'progress.py':
        assert not re.search(r'^\s*(from|import) tqdm', path.read_text(encoding='utf-8'), re.M)

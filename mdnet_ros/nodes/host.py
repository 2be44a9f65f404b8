"""Memory and open files of a process, and the temperature of the machine."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import torch

#: Folders in which Linux describes processes and temperatures.
_PROCESSES = Path('/proc')
_THERMAL = Path('/sys/class/thermal')


def resident_memory(pid: int | str = 'self') -> int:
    """Return the resident memory of a process in bytes; 0 where the system does not report it.

    Args:
        pid: process id; ``self`` for this process.
    """
    try:
        pages = (_PROCESSES / str(pid) / 'statm').read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf('SC_PAGE_SIZE')


def open_files(pid: int | str = 'self') -> int:
    """Return how many files a process has open; 0 where the system does not report it."""
    try:
        return len(os.listdir(_PROCESSES / str(pid) / 'fd'))
    except OSError:
        return 0


def temperature() -> float | None:
    """Return the temperature of the hottest thermal zone, degrees Celsius; None without one."""
    found = []
    for zone in _THERMAL.glob('thermal_zone*/temp'):
        try:
            found.append(int(zone.read_text()) / 1000.0)
        except (OSError, ValueError):  # the zone is switched off
            continue
    return max(found, default=None)


def host_facts(device: str) -> dict[str, str]:
    """Return memory, open files and temperature as text, for the diagnostics.

    Args:
        device: device of the network; for a GPU its memory and temperature are added.
    """
    facts = {
        'memory (MB)': f'{resident_memory() / 2**20:.0f}',
        'open files': str(open_files()),
    }
    hottest = temperature()
    if hottest is not None:
        facts['temperature (C)'] = f'{hottest:.0f}'
    if device.startswith('cuda'):
        try:
            free, total = torch.cuda.mem_get_info(device)
        except RuntimeError as error:  # a failing GPU must not end the diagnostics
            return facts | {'GPU memory (MB)': str(error).splitlines()[0]}
        held = torch.cuda.memory_reserved(device)
        facts['GPU memory held / free / total (MB)'] = ' / '.join(
            f'{part / 2**20:.0f}' for part in (held, free, total)
        )
        with suppress(ImportError, RuntimeError):  # needs a library of NVIDIA that may be missing
            facts['GPU temperature (C)'] = str(torch.cuda.temperature(device))
    return facts

"""What a process takes of the machine: memory, open files, and how warm the machine is."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import torch

#: Where Linux tells of processes and of temperatures.
_PROCESSES = Path('/proc')
_THERMAL = Path('/sys/class/thermal')


def resident_memory(pid: int | str = 'self') -> int:
    """Bytes of memory that a process holds; 0 where the system does not tell.

    Args:
        pid: of the process; ``self`` for this one.
    """
    try:
        pages = (_PROCESSES / str(pid) / 'statm').read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf('SC_PAGE_SIZE')


def open_files(pid: int | str = 'self') -> int:
    """How many file handles a process has open; 0 where the system does not tell."""
    try:
        return len(os.listdir(_PROCESSES / str(pid) / 'fd'))
    except OSError:
        return 0


def temperature() -> float | None:
    """Of the machine's hottest thermal zone, degrees Celsius; None where there is none."""
    found = []
    for zone in _THERMAL.glob('thermal_zone*/temp'):
        try:
            found.append(int(zone.read_text()) / 1000.0)
        except (OSError, ValueError):  # a zone that is switched off
            continue
    return max(found, default=None)


def host_facts(device: str) -> dict[str, str]:
    """For the diagnostics: memory, open files and temperature as text.

    Args:
        device: where the network runs; of a GPU the memory is told too.
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
        except RuntimeError as error:  # a GPU in trouble must not take the diagnostics along
            return facts | {'GPU memory (MB)': str(error).splitlines()[0]}
        held = torch.cuda.memory_reserved(device)
        facts['GPU memory held / free / total (MB)'] = ' / '.join(
            f'{part / 2**20:.0f}' for part in (held, free, total)
        )
        with suppress(ImportError, RuntimeError):  # torch asks NVIDIA's library, which is extra
            facts['GPU temperature (C)'] = str(torch.cuda.temperature(device))
    return facts

"""Memory that a training on the CPU keeps from step to step."""

from __future__ import annotations

import ctypes
import platform


def tune_allocator() -> None:
    """Keep freed memory in the process (glibc): else page faults take half of the time on a CPU.

    Large tensors are mapped and unmapped at every step by default; this makes malloc serve them
    from the heap and never give the heap back.
    """
    if platform.libc_ver()[0] != 'glibc':
        return
    libc = ctypes.CDLL(None)
    m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)
    libc.mallopt(m_top_pad, 256 * 2**20)

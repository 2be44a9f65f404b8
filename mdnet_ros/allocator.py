"""Memory that a process on the CPU keeps from image to image."""

from __future__ import annotations

import ctypes
import platform

# Of mallopt, in glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def tune_allocator() -> None:
    """Keep freed memory in this process (glibc), for processes that are ours alone.

    By default large tensors are mapped from and given back to the system for every image or
    training step, and each page of them faults anew: a tenth of the time of a network on the CPU,
    half of that of a training step. This makes malloc serve them from the heap, and keep the heap.
    """
    if platform.libc_ver()[0] != 'glibc':
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_MAX, 0)
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(_TOP_PAD, 64 * 2**20)


def return_memory() -> None:
    """Give memory that is free in this process back to the system, once (glibc)."""
    if platform.libc_ver()[0] == 'glibc':
        ctypes.CDLL(None).malloc_trim(0)

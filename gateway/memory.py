"""How this process looks for memory that is free, and gives it back."""

from __future__ import annotations

import ctypes
import gc
import sys

LARGE = 1024 * 1024  # bytes
COLLECT_AFTER = 10_000  # new objects, in place of 700: most of them die young, without the collector
_M_MMAP_THRESHOLD = -3  # mallopt(3), malloc.h of glibc


def give_large_blocks_back() -> None:
    """From now on, memory for more than 1 MiB at a time is mapped, and unmapped when it is freed.

    glibc starts like this, but each such block that is freed has it keep blocks of that size, up to 32 MiB,
    where small ones that are left among them hold them for ever: each message with a large file cost tens of
    megabytes for good, and half as much again at its peak. Does nothing with another C library.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, LARGE)


def spare_the_collector() -> None:
    """What is there after the start stays to the end: looking through it again and again for garbage took an
    eighth of the time while mail was delivered, in pauses of tens of milliseconds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)

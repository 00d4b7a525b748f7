"""Memory that a training frees and asks for again at every step."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # names of glibc's mallopt(3)


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, where its C library is glibc; says whether it is.

    glibc gives freed blocks of megabytes back to the kernel and takes a page fault for every page of the next one:
    activations of the same sizes come and go at every step, and nets of large maps spend a tenth of their time on it.
    For processes that do nothing but train: it is the whole process that keeps its peak of memory.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(MMAP_THRESHOLD, 1 << 30) and mallopt(TRIM_THRESHOLD, (1 << 31) - 1))

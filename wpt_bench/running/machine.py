"""What a process that learns asks of its machine before it begins."""

from __future__ import annotations

import ctypes

import torch

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP_BYTES = 2**31 - 1
_SMALLEST_MAPPING = 2**30
_SMALLEST_MAPPING_OF_OLD = 2**25
"""glibc before 2.35 refuses more."""


def prepare_process(threads: int = 1) -> None:
    """Sets torch's threads, and lets the C library keep freed memory for the next update. Call it once, early.

    One thread is what models want that a CPU can train: they are so small that a second one only gets in the way.
    """
    torch.set_num_threads(threads)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Every update takes and frees the same large arrays, which glibc hands back to the system each time: a tenth of
    an update was the system's clearing of their pages. Other C libraries are left as they are."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)
    if not mallopt(_M_MMAP_THRESHOLD, _SMALLEST_MAPPING):
        mallopt(_M_MMAP_THRESHOLD, _SMALLEST_MAPPING_OF_OLD)

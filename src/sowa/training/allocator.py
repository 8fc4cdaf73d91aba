"""The C library's way with large blocks, for a process that is ours alone."""

import ctypes
import os
import sys

__all__ = ["keep_freed_memory"]

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # of malloc.h
LARGEST = 32 << 20
"""Bytes; glibc takes no higher threshold on 64 bits."""


def keep_freed_memory() -> bool:
    """Have blocks up to 32 MB reused instead of given back to the system; whether it was done.

    A step of training allocates tensors of some 20 MB hundreds of times. By default glibc asks the system for each and
    gives it back, and every page of it is faulted in and cleared anew: a tenth of a step's time
    (docs/performance/training.md). The process keeps what it once needed. Done by the commands, whose process it is,
    never on import; nothing is done where the C library is another one or the user has set it up by the environment.
    """
    set_up = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if sys.platform != "linux" or set_up:
        return False
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018 - another C library has none
        return bool(library.mallopt(MMAP_THRESHOLD, LARGEST) and library.mallopt(TRIM_THRESHOLD, 2**31 - 1))
    except (OSError, AttributeError):
        return False

"""Memory that was freed, back to the system."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

__all__ = ["give_back"]


def give_back() -> None:
    """Give memory that this process has freed back to the system, where the C library can (glibc); else do nothing.

    Each thread has a heap of its own there, and keeps what it frees. A few threads that work on tensors of megabytes in
    turn so take several times the memory that is in use.
    """
    if (trim := _trim()) is not None:
        trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # no glibc
        return None
    return trim

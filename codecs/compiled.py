"""Loops over single symbols, compiled by numba where it is installed, and run by Python where it is not.

Such loops hold integers only, or floats whose order of operations is written out, and none overflows 64 bits: compiled
or not, on any machine and with any number of threads, they give the same result. Without numba they are a hundred times
slower; a file can be read all the same.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["COMPILED", "compiled"]

Function = TypeVar("Function", bound=Callable[..., Any])

_numba: Any
try:
    _numba = importlib.import_module("numba")
except ImportError:
    _numba = None

COMPILED = _numba is not None


def compiled(function: Function) -> Function:
    """The function, compiled at its first call and kept on disk; the global interpreter lock is free meanwhile.

    The function as it is where numba is not installed.
    """
    return function if _numba is None else _numba.njit(cache=True, nogil=True)(function)

"""Integer hashes that fall the same on every machine: no floating point anywhere."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["hashed", "hashed_rows"]

Words: TypeAlias = npt.NDArray[np.uint64]
Ints: TypeAlias = npt.NDArray[np.int64]

# The constants of splitmix64 (Steele, Lea and Flood, 2014); its products wrap modulo 2^64, as numpy's arrays do.
_STEP, _FIRST, _SECOND = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def hashed(state: Words, key: Ints) -> Words:
    """64 bits for each pair of a state and a key, which broadcast; keys may be negative.

    >>> int(hashed(np.zeros(1, np.uint64), np.zeros(1, np.int64))[0]) == 0xE220A8397B1DCDAF  # splitmix64 of seed 0
    True
    """
    x = (state ^ key.view(np.uint64)) + _STEP
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))


def hashed_rows(keys: tuple[int, ...], rows: Ints) -> Words:
    """64 bits for each row of integers (n, m), under the same keys before them: uint64 (n,)."""
    state = np.zeros(1, np.uint64)
    for key in keys:
        state = hashed(state, np.array([key], np.int64))
    for column in rows.T:
        state = hashed(state, np.ascontiguousarray(column))
    return np.broadcast_to(state, (len(rows),))

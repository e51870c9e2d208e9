"""Stratified splits of examples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evocompress.errors import DataError

__all__ = ["hold_out"]

Indices = npt.NDArray[np.int64]


def hold_out(labels: npt.NDArray[np.integer], count: int, rng: np.random.Generator) -> tuple[Indices, Indices]:
    """Split the positions 0..n-1 into (kept, held out), `count` held out, both sorted.

    Stratified: each class gives its share to within one example. Sorting a random order by label and taking every
    n/count-th place does that without a special case for remainders. Raises DataError unless 0 < count < n.

    >>> kept, held = hold_out(np.array([0, 0, 0, 0, 1, 1]), 3, np.random.default_rng(0))
    >>> np.bincount(np.array([0, 0, 0, 0, 1, 1])[held])
    array([2, 1])
    """
    n = len(labels)
    if not 0 < count < n:
        raise DataError(f"cannot hold out {count} of {n} examples: must be from 1 to {n - 1}")
    order = rng.permutation(n)
    order = order[np.argsort(labels[order], kind="stable")]
    places = (np.arange(count) * n + rng.integers(n)) // count
    held = np.zeros(n, dtype=bool)
    held[order[places]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)

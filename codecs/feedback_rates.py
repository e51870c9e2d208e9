"""Rate estimates for second-order quantisation: about how many bits a symbol takes, before any is coded.

A class of the expected magnitude for each place, and under each class the code lengths of the symbols of the search
before: a stand-in for the entropy coders' contexts that does not hang on the order of coding.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evocompress.codecs.codec import Floats
from evocompress.codecs.compiled import compiled
from evocompress.codecs.dependent import Machine
from evocompress.codecs.entropy import Symbols

__all__ = ["MAGNITUDES", "classes_of", "rates_of"]

#: Larger magnitudes cost as much as the largest, and two bits an octave.
MAGNITUDES = 20

_CLASSES = 14
_PRIOR = 40.0
#: Class c begins at an expected magnitude of 2^((c - 8) / 2).
_THRESHOLDS: Floats = 2.0 ** ((np.arange(1, _CLASSES) - 8) / 2)


def classes_of(symbols: Symbols) -> npt.NDArray[np.uint8]:
    """Classes (O, K) of the expected magnitude: column's mean times row's, drawn to the four neighbours'."""
    classes = np.empty(symbols.shape, np.uint8)
    if symbols.size:
        _classify(symbols, _THRESHOLDS, classes)
    return classes


@compiled
def _classify(symbols: Symbols, thresholds: Floats, classes: npt.NDArray[np.uint8]) -> None:
    rows, columns = symbols.shape
    row_sums, column_sums = np.zeros(rows), np.zeros(columns)
    for r in range(rows):
        for c in range(columns):
            magnitude = float(abs(symbols[r, c]))
            row_sums[r] += magnitude
            column_sums[c] += magnitude
    mean = row_sums.sum() / (rows * columns) + 1e-3
    factors = 0.75 * (column_sums + 4 * mean) / ((rows + 4) * mean)
    for r in range(rows):
        row = (row_sums[r] + 16 * mean) / (columns + 16)
        above, below = symbols[max(r - 1, 0)], symbols[min(r + 1, rows - 1)]
        for c in range(columns):
            left, right = symbols[r, max(c - 1, 0)], symbols[r, min(c + 1, columns - 1)]
            near = float(abs(left)) + float(abs(right)) + float(abs(above[c])) + float(abs(below[c]))
            estimate = row * factors[c] + 0.0625 * near
            number = 0
            while number < thresholds.size and estimate >= thresholds[number]:
                number += 1
            classes[r, c] = number


def rates_of(symbols: Symbols, classes: npt.NDArray[np.uint8], following: Machine, searched: bool) -> Floats:
    """Bits (classes, quantisers, magnitudes) of a symbol of either sign.

    Args:
        symbols: (O, K) of kind "trellis".
        classes: Their `classes_of`.
        following: their machine.
        searched: Whether the symbols went through the states; else they count for both quantisers.
    """
    k = np.arange(MAGNITUDES)
    mean = 2.0 ** ((np.arange(_CLASSES) - 7.5) / 2)
    ratio = (np.sqrt(1 + mean**2) - 1) / mean  # of a two-sided geometric distribution
    prior = np.where(k > 0, 2.0, 1.0) * ratio[:, None] ** k
    counts = np.repeat((_PRIOR * prior / prior.sum(axis=1, keepdims=True))[:, None], 2, axis=1)
    _count(symbols, classes, following, searched, counts)
    bits: Floats = np.log2(counts.sum(axis=2, keepdims=True)) - np.log2(counts)
    bits[:, :, 1:] += 1  # the sign
    return bits


@compiled
def _count(
    symbols: Symbols,
    classes: npt.NDArray[np.uint8],
    following: Machine,
    searched: bool,
    counts: Floats,
) -> None:
    for r in range(symbols.shape[0]):
        state = np.int64(0)
        for c in range(symbols.shape[1]):
            symbol = np.int64(symbols[r, c])
            magnitude = min(abs(symbol), np.int64(MAGNITUDES - 1))
            if searched:
                counts[classes[r, c], state & 1, magnitude] += 1
                state = following[state, symbol & 1]
            else:
                counts[classes[r, c], 0, magnitude] += 1
                counts[classes[r, c], 1, magnitude] += 1

"""Contexts of the mixing coder, known of a weight before it is coded: expected magnitude, expected sign, contexts.

The *scale* at a place is the column's mean magnitude so far times the row's, refined by the nearest neighbours. Within
a convolution's kernel, the weights' expected *values* follow from those already coded: a linear prediction whose
coefficients are the Cholesky factors (LDLᵀ) of the kernels' second moments so far, solved anew for every row. Trained
kernels are smooth, which makes signs, and with them zeros and magnitudes, 3 to 5 % cheaper on ResNet-20.

Units: magnitudes and their sums are in half quantiser steps (a trellis has odd ones), means in 1/256 of that;
logarithms are of means, in 1/64 octave; normalised weights are in 1/256 of the scale at their place.
"""

from __future__ import annotations

import numpy as np

from evocompress.codecs.compiled import compiled
from evocompress.codecs.mixing_coder import ROOM, SLOTS, X
from evocompress.codecs.mixing_tables import LOG, POWER, Int, Ints

__all__ = [
    "CLAMP",
    "CONTEXTS",
    "HINT",
    "INVERSE",
    "KERNEL",
    "KERNEL_TILT",
    "LINES",
    "MAX_HALF",
    "MEAN",
    "NORMAL",
    "PREDICTED",
    "RECENT",
    "ROW",
    "ROW_TILT",
    "SCALE",
    "SIGNS",
    "SUMS",
    "TILT",
    "TILTS",
    "TOTAL",
    "WHOLE",
    "Y",
    "begin_row",
    "describe",
    "log",
    "power",
    "solve",
]


#: Magnitudes above this count as this, so that no sum overflows.
MAX_HALF = 1 << 18
#: Contexts of a set of counters; inputs of the sign.
CONTEXTS, SIGNS = 1080, 10
#: Logarithm of a whole step, two halves, as a mean.
WHOLE = 9 * 64
#: Normalised weights lie within three times their scale.
CLAMP = 768
_COLUMN_WEIGHT, _ROW_WEIGHT, _GROUP_WEIGHT, _MEAN_WEIGHT = 16, 16, 8, 64  # symbols' worth of what is expected
_FLOOR = 51  # added to a scale before it divides: a tenth of a step
_MAX_FACTOR = 1 << 19

#: Scalars in `memory`: the plane's hint (a mean), its total so far, mean and its logarithm; the row's total and tilt;
#: the kernel's total and tilt; the total of the last eight magnitudes; logarithm and inverse of the scale; the linear
#: prediction. The sign's inputs follow, from Y on.
HINT, TOTAL, MEAN, MEAN_LOG, ROW, ROW_TILT, KERNEL, KERNEL_TILT, RECENT, SCALE, INVERSE, PREDICTED, Y = range(
    ROOM, ROOM + 13
)

#: Rows of `lines` (LINES, columns): magnitudes of this row of the plane and the two before, by its number modulo 3;
#: weights signed and normalised, modulo 2; sums of either over all rows before; and what they come to for this row.
HALVES, NORMAL, SUMS, TILTS, COLUMN, TILT, LINES = 0, 3, 5, 6, 7, 8, 9


@compiled
def log(x: Int, tables: Ints) -> Int:
    """Logarithm of x ≥ 1 in 1/64 octave, exact to one or two units."""
    shift = np.int64(0)
    while x >= 4096:
        x >>= 4
        shift += 256
    return shift + tables[LOG + x]


@compiled
def power(exponent: Int, tables: Ints) -> Int:
    """2^(exponent / 64) of an exponent that is drawn into 0 … 2 047."""
    exponent = min(max(exponent, 0), 2047)
    return (tables[POWER + (exponent & 63)] << (exponent >> 6)) >> 16


@compiled
def begin_row(memory: Ints, tables: Ints, lines: Ints, groups: Ints, positions: Ints, row: Int) -> None:
    """Means of the plane, its columns, channels and kernel positions, from the rows before this one."""
    columns, period = lines.shape[1], len(positions)
    memory[MEAN] = (memory[TOTAL] * 256 + _MEAN_WEIGHT * memory[HINT]) // (row * columns + _MEAN_WEIGHT)
    mean = max(memory[MEAN], 1)
    mean_log = log(mean, tables)
    memory[MEAN], memory[MEAN_LOG] = mean, mean_log
    for i in (ROW, ROW_TILT, KERNEL, KERNEL_TILT, RECENT):
        memory[i] = 0
    count_log = log(row * period + _GROUP_WEIGHT, tables)
    for g in range(groups.shape[1] if period > 1 else 0):
        groups[1, g] = log(groups[0, g] * 256 + _GROUP_WEIGHT * mean, tables) - count_log - mean_log
    count_log = log(row * (columns // period) + _GROUP_WEIGHT, tables)
    column_log = log(row + _COLUMN_WEIGHT, tables)
    for place in range(period):
        position = log(positions[place] * 256 + _GROUP_WEIGHT * mean, tables) - count_log
        for g in range((columns - place + period - 1) // period):
            c = g * period + place
            expected = power(position + groups[1, g], tables) if period > 1 else mean
            lines[COLUMN, c] = log(lines[SUMS, c] * 256 + _COLUMN_WEIGHT * max(expected, 1), tables) - column_log
            lines[TILT, c] = 3 * lines[TILTS, c] // (row + 4)


@compiled
def solve(moments: Ints, factor: Ints) -> None:
    """Fill `factor` (places, places) in: unit lower triangular L of moments = L·D·Lᵀ, in 1/65536.

    `moments` (places + 1, places): the lower triangle of the sum of outer products; the last row holds their number.
    """
    n = len(factor)
    count = max(moments[n, 0], 1)
    trace = np.int64(0)
    for i in range(n):
        trace += (moments[i, i] << 8) // count
    ridge = 4 * (trace // n) // count + 1
    scaled, diagonal = np.zeros(n, np.int64), np.zeros(n, np.int64)
    for j in range(n):
        d = (moments[j, j] << 8) // count + ridge
        for q in range(j):
            scaled[q] = (factor[j, q] * diagonal[q]) >> 16
            d -= (factor[j, q] * scaled[q]) >> 16
        d = max(d, ridge)
        diagonal[j] = d
        for i in range(j + 1, n):
            v = (moments[i, j] << 8) // count
            for q in range(j):
                v -= (factor[i, q] * scaled[q]) >> 16
            v = min(max(v, -(1 << 36)), 1 << 36)
            factor[i, j] = min(max((v << 16) // d, -_MAX_FACTOR), _MAX_FACTOR)


@compiled
def _size(half: Int) -> Int:
    """Six sizes of magnitude, from halves."""
    whole = (half + 1) >> 1
    return whole if whole < 3 else (3 if whole < 5 else (4 if whole < 9 else 5))


@compiled
def _coarse(logarithm: Int) -> Int:
    """Thirty classes of magnitude, half an octave each, from 2^-7 steps on."""
    return min(max((logarithm + 448) >> 5, 0), 29)


@compiled
def describe(
    memory: Ints, tables: Ints, lines: Ints, groups: Ints, period: Int, row: Int, column: Int, group: Int, place: Int
) -> None:
    """Fill in the inputs from the third on, the slots (as context numbers), and the scale of the weight at a place."""
    mean, mean_log, column_log = memory[MEAN], memory[MEAN_LOG], lines[COLUMN, column]
    row_log = log(memory[ROW] * 256 + _ROW_WEIGHT * mean, tables) - log(column + _ROW_WEIGHT, tables)
    separable = column_log + row_log - mean_log
    scale = max(power(separable, tables), 4)
    left = lines[row % 3, column - 1] if column >= 1 else mean >> 8
    second = lines[row % 3, column - 2] if column >= 2 else left
    above = lines[(row + 2) % 3, column] if row >= 1 else mean >> 8
    higher = lines[(row + 1) % 3, column] if row >= 2 else above
    log_left = log((512 * left + 256 * second + scale) >> 2, tables)
    log_above = log((512 * above + 256 * higher + scale) >> 2, tables)
    count, total, group_log = place, memory[KERNEL], groups[1, group]
    if period == 1:
        count, total, group_log = min(column, 8), memory[RECENT], column_log - mean_log
    recent = log(total * 256 + 4 * scale, tables) - tables[LOG + count + 4]
    memory[X + 2] = 2 * (mean_log - WHOLE)
    memory[X + 3] = 2 * (column_log - mean_log)
    memory[X + 4] = 2 * (row_log - mean_log)
    memory[X + 5] = 2 * (log_left - separable)
    memory[X + 6] = 2 * (log_above - separable)
    memory[X + 7] = 2 * (recent - separable)
    memory[X + 8] = 2 * group_log
    coarse = _coarse(separable - WHOLE)
    memory[SLOTS] = (coarse * 6 + _size(left)) * 6 + _size(second)
    memory[SLOTS + 1] = _coarse(recent - WHOLE) * 30 + coarse
    memory[SLOTS + 2] = _coarse(group_log + mean_log - WHOLE) * 30 + _coarse(row_log - WHOLE)
    memory[SCALE] = (12 * separable + 2 * log_left + 2 * log_above) >> 4
    memory[INVERSE] = power(36 * 64 - log(power(memory[SCALE], tables) + _FLOOR, tables), tables)

"""The integer model of rans.py: which table of probabilities codes a symbol, and how the tables learn.

A symbol's *class* is the expected magnitude at its place: the column's mean so far, times the row's, drawn a little to
the last two symbols of the row. Magnitudes of kernels cluster by row (output channel), by column (input channel and
kernel position) and locally. A table belongs to a class and a *set*: plain symbols, or those of either quantiser of a
trellis. Tables count what they code; from time to time, on a schedule that both sides know, counts become intervals.

Invariants: integers alone, none beyond 63 bits, and no index that depends on a stream leaves its array. The bounds are
written beside the steps that need them.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from evocompress.codecs.compiled import compiled

__all__ = [
    "BYTES",
    "CLASSES",
    "CLASS_OF",
    "DIRECT",
    "EARLIER",
    "ESCAPE",
    "ESCAPES",
    "EXPECTED",
    "HINTS",
    "INCREMENT",
    "MAX_ESTIMATE",
    "MAX_LEVEL",
    "NARROW",
    "NARROW_DIRECT",
    "PRECISION",
    "RECENT",
    "SEPARABLE",
    "UNIT",
    "Int",
    "Ints",
    "Tables",
    "copy_tables",
    "fresh_tables",
    "hint_of",
    "learn_in_time",
    "prepare_group",
]

Ints: TypeAlias = npt.NDArray[np.int64]
#: A whole number in a compiled loop: int or np.int64, which NumPy's stubs keep apart.
Int: TypeAlias = Any

#: Intervals are parts of 2^16.
PRECISION = 16
#: Estimates are in 1/64 of a level.
UNIT = 64
#: Magnitudes below this have a token of their own for either sign; the token `ESCAPE` announces larger ones.
DIRECT = 16
ESCAPE = 2 * DIRECT - 1
#: Levels and estimates above these count as these.
MAX_LEVEL = 1023
MAX_ESTIMATE = 4095
#: What an estimate is made of, in 1/32: the row's last symbol, the one before it, and the separable estimate.
RECENT = 3
EARLIER = 2
SEPARABLE = 32 - RECENT - EARLIER

# Lower ends of the classes, in 1/64 level: two classes per octave. The narrow ones have fewer tokens of their own.
_THRESHOLDS = (2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1024, 1448, 2048)
CLASSES = len(_THRESHOLDS) + 1
NARROW = 8
NARROW_DIRECT = 4
_SETS = 3
_WIDE = ESCAPE + 4 * (31 - 4)  # tokens of an escape: all direct ones, then four per octave up to 2^31
#: First tables of escapes (four), of bytes (eight), and the one of hints.
ESCAPES = _SETS * CLASSES
BYTES = ESCAPES + 4
HINTS = BYTES + 8
_TABLES = HINTS + 1

INCREMENT = 32
_PRIOR = 48 * INCREMENT
_LIMIT = 1 << 18
_FIRST_WAIT, _LONGEST_WAIT = 64, 1 << 15

#: Class of an estimate, and the estimate that stands for a class.
CLASS_OF: npt.NDArray[np.uint8] = np.searchsorted(_THRESHOLDS, np.arange(MAX_ESTIMATE + 1), side="right").astype(
    np.uint8
)
EXPECTED: Ints = np.array([1, *_THRESHOLDS], np.int64)


class Tables(NamedTuple):
    """All that adapts. T tables of up to 256 tokens.

    `counts` int32 (T, 256); `edges` int32 (T, 257), where the tokens' intervals begin; `finder` uint8 (T, 256), the
    token that position 256·i lies in; `sizes` and `totals` int64 (T,), how many tokens a table has and what its counts
    added up to when they last became intervals; `clock` int64 (2,), how many symbols are left to wait for until they do
    again, and about how many there have been by then.
    """

    counts: npt.NDArray[np.int32]
    edges: npt.NDArray[np.int32]
    finder: npt.NDArray[np.uint8]
    sizes: Ints
    totals: Ints
    clock: Ints


def _prior(mean: int, quantiser: int, direct: int) -> list[int]:
    """Counts of a two-sided geometric distribution of levels whose mean magnitude is `mean` in 1/128 level."""
    one = 1 << 40
    spread = max(mean * one // (2 * UNIT), one // 64)
    ratio = (math.isqrt(one * one + spread * spread) - one) * one // spread  # E|q| = 2θ/(1-θ²)
    powers = [one]
    for _ in range(2 * DIRECT):
        powers.append(powers[-1] * ratio // one)
    # Mass of a level times how many levels' worth of places it draws: its neighbours' are never chosen.
    mass = [powers[0] * (2 - quantiser)] + [powers[2 * k - quantiser] * 2 for k in range(1, DIRECT + 1)]
    if quantiser:
        mass[1] = powers[1] * 3 // 2
    tail = sum(mass[direct:]) * 2
    total = mass[0] + 2 * sum(mass[1:direct]) + tail
    counts = [1 + _PRIOR * mass[0] // total]
    for k in range(1, DIRECT):
        counts += [1 + _PRIOR * mass[k] // total if k < direct else 0] * 2
    return [*counts, 1 + _PRIOR * tail // total]


@functools.cache
def _priors() -> Tables:
    counts = np.zeros((_TABLES, 256), np.int32)
    ends = (0, *_THRESHOLDS, MAX_ESTIMATE)
    for group in range(_SETS):
        for k in range(CLASSES):
            direct = NARROW_DIRECT if k < NARROW else DIRECT
            counts[group * CLASSES + k, : ESCAPE + 1] = _prior(ends[k] + ends[k + 1], int(group == 1), direct)
    counts[ESCAPES:BYTES, :_WIDE] = 8
    counts[BYTES:HINTS] = 2
    counts[HINTS, :CLASSES] = 2
    sizes = np.array([ESCAPE + 1] * ESCAPES + [_WIDE] * 4 + [256] * 8 + [CLASSES], np.int64)
    edges, finder = np.zeros((_TABLES, 257), np.int32), np.zeros((_TABLES, 256), np.uint8)
    tables = Tables(counts, edges, finder, sizes, np.zeros(_TABLES, np.int64), np.array([_FIRST_WAIT, 0]))
    learn(tables)
    return tables


def fresh_tables() -> Tables:
    """The tables that a file starts with."""
    return copy_tables(_priors())


def copy_tables(tables: Tables) -> Tables:
    """An independent copy (a few hundred kB)."""
    counts, edges, finder, sizes, totals, clock = tables
    return Tables(counts.copy(), edges.copy(), finder.copy(), sizes, totals.copy(), clock.copy())


@compiled
def learn(tables: Tables) -> None:
    """Turn the counts of every table that has changed into intervals, and halve counts that have grown large.

    Tokens of count zero get no interval, all others at least 1 of 2^16. Counts add up to less than 2^31.
    """
    for table in range(tables.sizes.size):
        size = tables.sizes[table]
        counts, edges = tables.counts[table], tables.edges[table]
        total, used = np.int64(0), np.int64(0)
        for token in range(size):
            total += counts[token]
            used += np.int64(counts[token] > 0)
        if total == tables.totals[table]:
            continue
        spare = np.int64(1 << PRECISION) - used
        before, seen, position = np.int64(0), np.int64(0), np.int64(0)
        for token in range(size):
            before += counts[token]
            seen += np.int64(counts[token] > 0)
            edge = before * spare // total + seen
            edges[token + 1] = edge
            while position < edge:
                tables.finder[table, position >> 8] = token
                position += 256
        if total > _LIMIT:
            total = np.int64(0)
            for token in range(size):
                counts[token] = (counts[token] + 1) >> 1
                total += counts[token]
        tables.totals[table] = total


@compiled
def wait(total: Int) -> Int:
    """How many symbols to count before tables learn again, if they last did after `total`: ever more."""
    return min(_FIRST_WAIT + (total >> 4), _LONGEST_WAIT)


@compiled
def learn_in_time(tables: Tables) -> Int:
    """Learn, and return how many symbols to wait for before doing so again."""
    tables.clock[1] = min(tables.clock[1] + wait(tables.clock[1]), np.int64(1) << 40)
    learn(tables)
    return wait(tables.clock[1])


@compiled
def hint_of(symbols: npt.NDArray[np.int32]) -> Int:
    """The class of a plane's mean magnitude, both its sides taken as even levels; 0 for an empty one."""
    rows, columns = symbols.shape
    total = np.int64(0)
    for row in range(rows):
        for column in range(columns):
            level: Int = min(2 * abs(np.int64(symbols[row, column])), MAX_LEVEL)
            total += level
    return np.int64(CLASS_OF[min(UNIT * total // max(rows * columns, 1), MAX_ESTIMATE)])


@compiled
def prepare_group(sums: Ints, row: Int, expected: Int, factors: Ints) -> Int:
    """Statistics for the rows from `row` on: the mean level so far, in 1/64; and `factors` (columns,) are filled in.

    `sums` (columns,) are the levels of all rows before. A row's levels so far, in 1/64, times a column's factor, is the
    separable estimate (column's mean × row's mean / mean), times 2^36. With row < 2^31: sums < 2^41, mean < 2^17.
    """
    columns = sums.size
    total = np.int64(0)
    for column in range(columns):
        total += sums[column]
    mean = max((UNIT * total + 64 * expected) // (np.int64(row) * columns + 64), 1)
    scale = (np.int64(1) << 44) // ((np.int64(row) + 4) * mean)
    for column in range(columns):
        ratio = min((UNIT * sums[column] + 4 * mean) * scale >> 24, np.int64(1) << 26)
        factors[column] = ratio * ((np.int64(1) << 30) // (column + 16)) >> 14
    return mean

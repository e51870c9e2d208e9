"""The compiled loops of rans.py over planes: symbols to intervals, and words to symbols.

Reading and modelling rows are the same loop twice, written out: a call in its middle would cost more than all else.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evocompress.codecs.compiled import compiled
from evocompress.codecs.dependent import Machine
from evocompress.codecs.rans_coder import LOW, Words, put, put_escape, take, take_escape
from evocompress.codecs.rans_model import (
    BYTES,
    CLASS_OF,
    CLASSES,
    DIRECT,
    EARLIER,
    ESCAPE,
    ESCAPES,
    INCREMENT,
    MAX_ESTIMATE,
    MAX_LEVEL,
    NARROW,
    NARROW_DIRECT,
    PRECISION,
    RECENT,
    SEPARABLE,
    UNIT,
    Int,
    Ints,
    Tables,
    learn_in_time,
    prepare_group,
)

__all__ = ["LANES", "model_bytes", "model_rows", "read_bytes", "read_rows"]

#: Rows that are coded side by side.
LANES = 4


@compiled
def model_rows(
    symbols: npt.NDArray[np.int32],
    first: Int,
    last: Int,
    lanes: Int,
    following: Machine,
    expected: Int,
    sums: Ints,
    tables: Tables,
    packed: Ints,
) -> Int:
    """The intervals of rows `first` to `last` of a plane, in the decoder's order. Returns how many there are.

    `expected` is the plane's mean level by its hint, `sums` (columns,) the levels of the rows before, kept up to date,
    `packed` has room for four intervals a symbol of 4 or more, and one for each other.
    """
    columns = symbols.shape[1]
    counts, edges, left = tables.counts, tables.edges, tables.clock[0]
    factors = np.empty(columns, np.int64)
    row_sums, recent, earlier, state = np.empty((4, lanes), np.int64)
    trellis = following.shape[0] > 1
    base = 0 if trellis else 2 * CLASSES
    n = np.int64(0)
    for row in range(first, last, lanes):
        mean = prepare_group(sums, row, expected, factors)
        width = min(lanes, last - row)
        row_sums[:], recent[:], earlier[:], state[:] = 16 * mean, mean, mean, 0
        for column in range(columns):
            factor, total = factors[column], np.int64(0)
            for lane in range(width):
                estimate = SEPARABLE * (row_sums[lane] * factor >> 36) + RECENT * recent[lane] + EARLIER * earlier[lane]
                level_class = np.int64(CLASS_OF[min(estimate >> 5, MAX_ESTIMATE)])
                odd = state[lane] & 1
                table = base + odd * CLASSES + level_class
                symbol = np.int64(symbols[row + lane, column])
                magnitude = abs(symbol)
                if magnitude < (NARROW_DIRECT if level_class < NARROW else DIRECT):
                    n = put(counts, edges, table, 2 * magnitude - np.int64(symbol > 0), lane, packed, n)
                else:
                    n = put(counts, edges, table, ESCAPE, lane, packed, n)
                    n = put_escape(counts, edges, ESCAPES + level_class // 6, symbol, lane, packed, n)
                level = min(2 * magnitude - (odd & np.int64(magnitude > 0)), MAX_LEVEL)
                total += level
                earlier[lane] = recent[lane]
                recent[lane] = UNIT * level
                row_sums[lane] += UNIT * level
                if trellis:
                    state[lane] = following[state[lane], symbol & 1]
            sums[column] += total
            left -= width
            if left <= 0:
                left = learn_in_time(tables)
    tables.clock[0] = left
    return n


@compiled
def read_rows(
    symbols: npt.NDArray[np.int32],
    first: Int,
    last: Int,
    lanes: Int,
    following: Machine,
    expected: Int,
    sums: Ints,
    tables: Tables,
    states: Ints,
    words: Words,
    cursor: Ints,
) -> Int:
    """The inverse of `model_rows` and `code`: fills in rows `first` to `last`. Returns how many intervals it read."""
    columns = symbols.shape[1]
    counts, edges, finder, left = tables.counts, tables.edges, tables.finder, tables.clock[0]
    factors = np.empty(columns, np.int64)
    row_sums, recent, earlier, state = np.empty((4, lanes), np.int64)
    trellis = following.shape[0] > 1
    base = 0 if trellis else 2 * CLASSES
    n, position, end = np.int64(0), cursor[0], words.size - 1
    for row in range(first, last, lanes):
        mean = prepare_group(sums, row, expected, factors)
        width = min(lanes, last - row)
        row_sums[:], recent[:], earlier[:], state[:] = 16 * mean, mean, mean, 0
        for column in range(columns):
            factor, total = factors[column], np.int64(0)
            for lane in range(width):
                estimate = SEPARABLE * (row_sums[lane] * factor >> 36) + RECENT * recent[lane] + EARLIER * earlier[lane]
                level_class = np.int64(CLASS_OF[min(estimate >> 5, MAX_ESTIMATE)])
                odd = state[lane] & 1
                table = base + odd * CLASSES + level_class
                x = states[lane]  # `take`, written out: a call would cost more than all else
                slot = x & ((1 << PRECISION) - 1)
                token = np.int64(finder[table, slot >> 8])
                while slot >= edges[table, token + 1]:
                    token += 1
                low = np.int64(edges[table, token])
                x = (np.int64(edges[table, token + 1]) - low) * (x >> PRECISION) + slot - low
                if x < LOW:
                    x = x << 32 | np.int64(words[min(position, end)])
                    position += 1
                states[lane] = x
                counts[table, token] += INCREMENT
                magnitude = (token + 1) >> 1
                symbol = magnitude if token & 1 else -magnitude
                if token == ESCAPE:
                    cursor[0] = position
                    table = ESCAPES + level_class // 6
                    symbol, intervals = take_escape(counts, edges, finder, table, states, lane, words, cursor)
                    magnitude = abs(symbol)
                    n += intervals
                    position = cursor[0]
                symbols[row + lane, column] = symbol
                level = min(2 * magnitude - (odd & np.int64(magnitude > 0)), MAX_LEVEL)
                total += level
                earlier[lane] = recent[lane]
                recent[lane] = UNIT * level
                row_sums[lane] += UNIT * level
                if trellis:
                    state[lane] = following[state[lane], symbol & 1]
            sums[column] += total
            n += width
            left -= width
            if left <= 0:
                left = learn_in_time(tables)
    cursor[0], tables.clock[0] = position, left
    return n


@compiled
def model_bytes(values: npt.NDArray[np.int32], row: Int, tables: Tables, packed: Ints) -> None:
    """The intervals of a piece (n,) of a row of bytes."""
    counts, edges, left = tables.counts, tables.edges, tables.clock[0]
    for i in range(values.size):
        put(counts, edges, BYTES + row % 8, values[i], 0, packed, i)
        left -= 1
        if left <= 0:
            left = learn_in_time(tables)
    tables.clock[0] = left


@compiled
def read_bytes(
    values: npt.NDArray[np.int32], row: Int, tables: Tables, states: Ints, words: Words, cursor: Ints
) -> None:
    """The inverse of `model_bytes` and `code`."""
    counts, edges, finder, left = tables.counts, tables.edges, tables.finder, tables.clock[0]
    for i in range(values.size):
        values[i] = take(counts, edges, finder, BYTES + row % 8, states, 0, words, cursor)
        left -= 1
        if left <= 0:
            left = learn_in_time(tables)
    tables.clock[0] = left

"""Compiled loops of rans.py: symbols to intervals, intervals to words, and words to symbols; single ones, then planes.

A coder's state x lies in [2^31, 2^63) while encoding, and in [0, 2^63) while decoding whatever bytes. numba does not
look whether an index lies inside its array, so every one that a stream decides is bounded here or in rans_model.py.

Reading and modelling rows are the same loop twice, written out: a call in its middle would cost more than all else.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from evocompress.codecs.compiled import compiled
from evocompress.codecs.dependent import Machine
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

__all__ = ["FIELD", "LANES", "LOW", "code", "model_bytes", "model_rows", "put", "read_bytes", "read_rows", "take"]

_Counts: TypeAlias = npt.NDArray[np.int32]
_Finder: TypeAlias = npt.NDArray[np.uint8]
_Words: TypeAlias = npt.NDArray[np.uint32]


#: The least state of a coder, from which it starts.
LOW = 1 << 31
#: A packed interval is lane << 2·FIELD | where it begins << FIELD | its width, both in parts of 2^16.
FIELD = 17
#: Rows that are coded side by side.
LANES = 4

_RAW_BITS = 15


@compiled
def put(counts: _Counts, edges: _Counts, table: Int, token: Int, lane: Int, packed: Ints, n: Int) -> Int:
    """Append a token's interval to `packed` at n, and count it. Returns n + 1."""
    low = np.int64(edges[table, token])
    packed[n] = (lane << FIELD | low) << FIELD | (np.int64(edges[table, token + 1]) - low)
    counts[table, token] += INCREMENT
    return n + 1


@compiled
def take(
    counts: _Counts, edges: _Counts, finder: _Finder, table: Int, states: Ints, lane: Int, words: _Words, cursor: Ints
) -> Int:
    """Decode a token by a lane's coder, and count it. The last word stands for all that would follow."""
    x = states[lane]
    slot = x & ((1 << PRECISION) - 1)
    token = np.int64(finder[table, slot >> 8])
    while slot >= edges[table, token + 1]:  # ends: the last edge is 2^16
        token += 1
    low = np.int64(edges[table, token])
    x = (np.int64(edges[table, token + 1]) - low) * (x >> PRECISION) + slot - low
    if x < LOW:
        x = x << 32 | np.int64(words[min(cursor[0], words.size - 1)])
        cursor[0] += 1
    states[lane] = x
    counts[table, token] += INCREMENT
    return token


@compiled
def _put_escape(counts: _Counts, edges: _Counts, table: Int, symbol: Int, lane: Int, packed: Ints, n: Int) -> Int:
    """A large symbol: its token of the wide alphabet, then the bits that this leaves open, 15 at a time."""
    magnitude = abs(symbol)
    if magnitude < DIRECT:
        return put(counts, edges, table, 2 * magnitude - np.int64(symbol > 0), lane, packed, n)
    octave = np.int64(4)
    while magnitude >> (octave + 1):
        octave += 1
    n = put(counts, edges, table, ESCAPE + 4 * (octave - 4) + (magnitude >> (octave - 2) & 3), lane, packed, n)
    rest = (magnitude & ((1 << (octave - 2)) - 1)) << 1 | np.int64(symbol < 0)
    bits = octave - 1
    while bits > 0:
        piece: Int = min(bits, _RAW_BITS)
        low = (rest & ((1 << piece) - 1)) << (PRECISION - piece)
        packed[n] = (lane << FIELD | low) << FIELD | 1 << (PRECISION - piece)
        n += 1
        rest >>= piece
        bits -= piece
    return n


@compiled
def _take_escape(
    counts: _Counts, edges: _Counts, finder: _Finder, table: Int, states: Ints, lane: Int, words: _Words, cursor: Ints
) -> tuple[Int, Int]:
    """The inverse of `_put_escape`: a symbol of magnitude below 2^31, and how many intervals it took."""
    token = take(counts, edges, finder, table, states, lane, words, cursor)
    if token < ESCAPE:
        magnitude = (token + 1) >> 1
        return (magnitude if token & 1 else -magnitude), 1
    octave = 4 + ((token - ESCAPE) >> 2)
    rest, bits, intervals = np.int64(0), np.int64(0), np.int64(1)
    while bits < octave - 1:
        piece: Int = min(octave - 1 - bits, _RAW_BITS)
        x = states[lane]
        rest |= (x >> (PRECISION - piece) & ((1 << piece) - 1)) << bits
        x = (x >> PRECISION) << (PRECISION - piece) | x & ((1 << (PRECISION - piece)) - 1)
        if x < LOW:
            x = x << 32 | np.int64(words[min(cursor[0], words.size - 1)])
            cursor[0] += 1
        states[lane] = x
        bits += piece
        intervals += 1
    magnitude = (4 + ((token - ESCAPE) & 3)) << (octave - 2) | rest >> 1
    return (-magnitude if rest & 1 else magnitude), intervals


@compiled
def code(packed: Ints, states: Ints, words: _Words) -> Int:
    """Code intervals (n,) from the last to the first. Returns how many `words` that took; the last is to be read first.

    At most one word an interval: a state below 2^63 without its low word is below 2^31.
    """
    n = np.int64(0)
    mask = np.int64((1 << FIELD) - 1)
    for i in range(packed.size - 1, -1, -1):
        width, low, lane = packed[i] & mask, packed[i] >> FIELD & mask, packed[i] >> (2 * FIELD)
        x = states[lane]
        if x >= width << (63 - PRECISION):
            words[n] = x & 0xFFFFFFFF
            n += 1
            x >>= 32
        whole = x // width
        states[lane] = (whole << PRECISION) + (x - whole * width) + low
    return n


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
                    n = _put_escape(counts, edges, ESCAPES + level_class // 6, symbol, lane, packed, n)
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
    words: _Words,
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
                    symbol, intervals = _take_escape(counts, edges, finder, table, states, lane, words, cursor)
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
    values: npt.NDArray[np.int32], row: Int, tables: Tables, states: Ints, words: _Words, cursor: Ints
) -> None:
    """The inverse of `model_bytes` and `code`."""
    counts, edges, finder, left = tables.counts, tables.edges, tables.finder, tables.clock[0]
    for i in range(values.size):
        values[i] = take(counts, edges, finder, BYTES + row % 8, states, 0, words, cursor)
        left -= 1
        if left <= 0:
            left = learn_in_time(tables)
    tables.clock[0] = left

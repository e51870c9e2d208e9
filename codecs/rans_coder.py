"""Single symbols of rans.py's stream: tokens to intervals, intervals to words, and words to tokens.

A coder's state x lies in [2^31, 2^63) while encoding, and in [0, 2^63) while decoding whatever bytes. numba does not
look whether an index lies inside its array, so every one that a stream decides is bounded here or in rans_model.py.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from evocompress.codecs.compiled import compiled
from evocompress.codecs.rans_model import DIRECT, ESCAPE, INCREMENT, PRECISION, Int, Ints

Counts: TypeAlias = npt.NDArray[np.int32]
Finder: TypeAlias = npt.NDArray[np.uint8]
Words: TypeAlias = npt.NDArray[np.uint32]

__all__ = ["FIELD", "LOW", "Counts", "Finder", "Words", "code", "put", "put_escape", "take", "take_escape"]

#: The least state of a coder, from which it starts.
LOW = 1 << 31
#: A packed interval is lane << 2·FIELD | where it begins << FIELD | its width, both in parts of 2^16.
FIELD = 17

_RAW_BITS = 15


@compiled
def put(counts: Counts, edges: Counts, table: Int, token: Int, lane: Int, packed: Ints, n: Int) -> Int:
    """Append a token's interval to `packed` at n, and count it. Returns n + 1."""
    low = np.int64(edges[table, token])
    packed[n] = (lane << FIELD | low) << FIELD | (np.int64(edges[table, token + 1]) - low)
    counts[table, token] += INCREMENT
    return n + 1


@compiled
def take(
    counts: Counts, edges: Counts, finder: Finder, table: Int, states: Ints, lane: Int, words: Words, cursor: Ints
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
def put_escape(counts: Counts, edges: Counts, table: Int, symbol: Int, lane: Int, packed: Ints, n: Int) -> Int:
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
def take_escape(
    counts: Counts, edges: Counts, finder: Finder, table: Int, states: Ints, lane: Int, words: Words, cursor: Ints
) -> tuple[Int, Int]:
    """The inverse of `put_escape`: a symbol of magnitude below 2^31, and how many intervals it took."""
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
def code(packed: Ints, states: Ints, words: Words) -> Int:
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

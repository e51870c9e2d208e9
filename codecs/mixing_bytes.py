"""Planes of bytes for the mixing coder: each bit under the bits before it, the byte to the left and the byte above.

Row i of a plane holds byte i of every element of an array (lossless.py), so the byte above belongs to the same element.
"""

from __future__ import annotations

import numpy as np

from evocompress.codecs.compiled import compiled
from evocompress.codecs.mixing_coder import (
    DECODE,
    ENCODE,
    INPUTS,
    MARGIN,
    MODE,
    POSITION,
    SETS,
    SLOTS,
    STRIDE,
    X,
    decide,
    grown,
)
from evocompress.codecs.mixing_tables import Bytes, Int, Ints, Small, Symbols
from evocompress.codecs.mixing_weights import MEMORY

__all__ = ["BYTE_COUNTERS", "BYTE_MIXERS", "code_bytes", "fresh_byte_mixers"]


_ROWS = 8
_SET = 1 << 16
BYTE_COUNTERS = SETS * _SET
#: Room for the mixers of bytes, one per row modulo 8, at the end of `memory`.
BYTE_MIXERS = _ROWS * STRIDE


def fresh_byte_mixers(squash: Ints) -> Ints:
    """Mixers (BYTE_MIXERS,) that add up the counters; `squash` as in mixing_weights.py."""
    mixers = np.zeros((_ROWS, STRIDE), np.int64)
    mixers[:, INPUTS - SETS : INPUTS] = 26214
    cells = np.arange(STRIDE - INPUTS - 1)
    mixers[:, INPUTS + 1 :] = 16 * squash[np.minimum(128 * cells, len(squash) - 1)]
    return mixers.ravel()


@compiled
def _code_byte(memory: Ints, buffer: Bytes, tables: Ints, counters: Small, row: Int, contexts: Int, byte: Int) -> Int:
    """Code a byte, highest bit first; `contexts` are two bytes, 256 times the left one plus the other."""
    kind, node = row % _ROWS, np.int64(1)
    left, above = kind * 256 + (contexts >> 8), kind * 256 + (contexts & 255)
    for shift in range(7, -1, -1):
        memory[SLOTS] = kind * 256 + node
        memory[SLOTS + 1] = _SET + (left * 30011 + node * 257) % _SET
        memory[SLOTS + 2] = 2 * _SET + (above * 30011 + node * 257) % _SET
        mixer = MEMORY + kind * STRIDE
        node = 2 * node + decide(memory, buffer, tables, counters, mixer, 0, (byte >> shift) & 1)
    return node - 256


@compiled
def code_bytes(memory: Ints, buffer: Bytes, tables: Ints, counters: Small, symbols: Symbols) -> Bytes:
    """Code a plane of bytes (rows, columns); a decoder fills it in. Returns the buffer, as `code_weights` does."""
    rows, columns = symbols.shape
    encoding, decoding = memory[MODE] == ENCODE, memory[MODE] == DECODE
    for i in range(INPUTS):
        memory[X + i] = 0
    for row in range(rows):
        for column in range(columns):
            if encoding and memory[POSITION] + MARGIN > len(buffer):
                buffer = grown(buffer)
            left = np.int64(symbols[row, column - 1]) if column >= 1 else np.int64(0)
            other = np.int64(0)
            if row >= 1:
                other = np.int64(symbols[row - 1, column])
            elif column >= 2:
                other = np.int64(symbols[row, column - 2])
            byte = np.int64(symbols[row, column])
            byte = _code_byte(memory, buffer, tables, counters, row, 256 * left + other, byte)
            if decoding:
                symbols[row, column] = byte
    return buffer

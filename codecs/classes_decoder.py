"""Decoding of the classes coder's stream, compiled: a plane at a time, without a call for each class of each block.

entropy.py codes through a library, class by class, which takes a millisecond for a plane of 4 × 4; a network of 65 536
small tensors took a minute to read. Here the loops of FORMAT.md, sections 6 to 8, are written out. Both decoders give
the same symbols and refuse the same streams; the library's is used where nothing can be compiled.

Invariant: integers only. Of the coder's 64-bit numbers there is `point - lower` alone, which stays below `range`, so
that no product or shift leaves 64 bits.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from evocompress.codecs.compiled import compiled

__all__ = ["ClassesStream", "read_plane_of_bytes", "read_plane_of_weights"]

Ints: TypeAlias = npt.NDArray[np.int64]
#: An integer, of Python or of numpy: compiled code has one kind.
Int: TypeAlias = Any
Words: TypeAlias = npt.NDArray[np.uint32]
Registers: TypeAlias = npt.NDArray[np.uint64]
Symbols: TypeAlias = npt.NDArray[np.int32]

_PRECISION = 24
_RAW_BITS = 15
_DIRECT = 31  # tokens of one symbol each
_INCREMENT = 32
_LIMIT = 1 << 19
_BLOCK = 1 << 14
_MARGIN = 1 << 20  # magnitudes above count as this
_MAX_ESTIMATE = (1 << 15) - 1
_PIECE = 4096
#: Registers: the point in the interval, the interval's width, and how many words have been read.
_POINT, _RANGE, _POSITION = 0, 1, 2


@compiled
def _take(registers: Registers, words: Words, edges: Ints, tokens: Int) -> Int:
    """The next of `tokens` tokens, whose intervals lie between `edges` (tokens + 1,) of 2^24; -1: none is there."""
    scale = registers[_RANGE] >> np.uint64(_PRECISION)
    quantile = np.int64(registers[_POINT] // scale)
    if quantile >= edges[tokens]:
        return -1
    low, high = 0, tokens
    while high - low > 1:
        middle = (low + high) >> 1
        if edges[middle] <= quantile:
            low = middle
        else:
            high = middle
    _narrow(registers, words, scale, edges[low], edges[low + 1] - edges[low])
    return low


@compiled
def _narrow(registers: Registers, words: Words, scale: np.uint64, left: Int, width: Int) -> None:
    """Go on with the interval [left, left + width) of 2^24."""
    point, size = registers[_POINT] - scale * np.uint64(left), scale * np.uint64(width)
    if size < np.uint64(1 << 32):
        size <<= np.uint64(32)
        position = registers[_POSITION]
        word = np.uint64(words[position]) if position < np.uint64(words.size) else np.uint64(0)
        point = point << np.uint64(32) | word
        registers[_POSITION] = position + np.uint64(1)
    registers[_POINT], registers[_RANGE] = point, size


@compiled
def _raw(registers: Registers, words: Words, bits: Int) -> Int:
    """So many bits, at most 15, as they are; -1: none are there."""
    scale = registers[_RANGE] >> np.uint64(_PRECISION)
    quantile = np.int64(registers[_POINT] // scale)
    if quantile >= 1 << _PRECISION:
        return -1
    shift = _PRECISION - bits
    value = quantile >> shift
    _narrow(registers, words, scale, value << shift, 1 << shift)
    return value


@compiled
def _learn_edges(counts: Ints, edges: Ints, tokens: Int) -> Int:
    """The edges (tokens + 1,) of 2^24 that counts (tokens,) stand for; returns what they add up to."""
    total = np.int64(0)
    for token in range(tokens):
        total += counts[token]
    free, seen = (1 << _PRECISION) - tokens, np.int64(0)
    edges[0] = 0
    for token in range(tokens):
        seen += counts[token]
        edges[token + 1] = seen * free // total + token + 1
    return total


@compiled
def _halve(counts: Ints) -> None:
    """Halve counts (tokens,) that add up to too much."""
    total = np.int64(0)
    for token in range(counts.size):
        total += counts[token]
    if total > _LIMIT:
        for token in range(counts.size):
            counts[token] = (counts[token] + 1) >> 1


@compiled
def read_plane_of_bytes(symbols: Symbols, tables: Ints, registers: Registers, words: Words) -> float:
    """Fill in a plane (rows, columns) of bytes; returns the bits that it took, -1 if the stream is damaged."""
    rows, columns = symbols.shape
    tokens = tables.shape[1]
    edges, bits = np.empty(tokens + 1, np.int64), 0.0
    for row in range(rows):
        counts = tables[row % tables.shape[0]]
        for start in range(0, columns, _PIECE):
            stop = min(start + _PIECE, columns)
            entropy = np.log2(np.float64(_learn_edges(counts, edges, tokens)))
            for column in range(start, stop):
                token = _take(registers, words, edges, tokens)
                if token < 0:
                    return -1.0
                symbols[row, column] = token
                bits += entropy - np.log2(np.float64(counts[token]))
            for column in range(start, stop):
                counts[symbols[row, column]] += _INCREMENT
            _halve(counts)
    return bits


@compiled
def read_plane_of_weights(
    symbols: Symbols,
    hints: Ints,
    tables: Ints,
    thresholds: Ints,
    class_of: npt.NDArray[np.uint8],
    registers: Registers,
    words: Words,
) -> float:
    """Fill in a plane (rows, columns) of weights; returns the bits that it took, -1 if the stream is damaged.

    `hints` (classes,) and `tables` (classes, tokens) are counts, which learn; `class_of` has the class of an estimate.
    """
    rows, width = symbols.shape
    classes, tokens = tables.shape
    edges = np.empty((classes, tokens + 1), np.int64)
    edges_of_hints = np.empty(classes + 1, np.int64)
    bits = np.log2(np.float64(_learn_edges(hints, edges_of_hints, classes)))
    hint = _take(registers, words, edges_of_hints, classes)
    if hint < 0:
        return -1.0
    bits -= np.log2(np.float64(hints[hint]))
    hints[hint] += _INCREMENT
    _halve(hints)
    expected = np.int64(thresholds[hint - 1]) if hint else np.int64(1)

    sums, column_means = np.zeros(width, np.int64), np.empty(width, np.int64)
    total, most = np.int64(0), max(1, min(rows // 4 + 1, _BLOCK // width)) * width
    known = np.zeros(most, np.int64)  # sums of magnitudes of the block's rows
    sizes = np.zeros(most, np.int64)  # magnitudes of the block
    kinds, order = np.empty(most, np.uint8), np.empty(most, np.int64)
    coded, extra = np.empty(most, np.int64), np.zeros(most, np.int64)
    entropies = np.zeros(classes)
    start = 0
    while start < rows:
        stop = min(rows, start + max(1, min(start // 4, _BLOCK // width)))
        height = stop - start
        mean = (64 * total + 64 * expected) // (start * width + 64)
        for column in range(width):
            column_means[column] = (64 * sums[column] + 4 * mean) // (start + 4)
        known[:height] = 0
        for phase in range(3):
            first = (0, 2, 1)[phase]
            stride = (4, 4, 2)[phase]
            reach = (0, 2, 1)[phase]
            before = (0, (width + 3) // 4, (width + 1) // 2)[phase]
            if first >= width:
                continue
            each = (width - first + stride - 1) // stride  # columns of the phase
            count = height * each
            # Classes, and how many symbols each has.
            frequency = np.zeros(classes + 1, np.int64)
            for r in range(height):
                row = (64 * known[r] + 16 * mean) // (before + 16)
                for i in range(each):
                    column = first + i * stride
                    estimate = column_means[column]
                    if reach:
                        separable = estimate * row // max(mean, 1)
                        near = 32 * sizes[r * width + column - reach]
                        if column + reach < width:
                            near += 32 * sizes[r * width + column + reach]
                        else:
                            near += row // 2
                        estimate = (3 * separable + near) // 4
                    kind = class_of[min(estimate, _MAX_ESTIMATE)]
                    kinds[r * each + i] = kind
                    frequency[kind + 1] += 1
            for kind in range(classes):
                if frequency[kind + 1]:
                    entropies[kind] = np.log2(np.float64(_learn_edges(tables[kind], edges[kind], tokens)))
                frequency[kind + 1] += frequency[kind]
            for place in range(count):
                kind = kinds[place]
                order[frequency[kind]] = place
                frequency[kind] += 1
            # Tokens, class by class.
            largest = 0
            for i in range(count):
                place = order[i]
                kind = kinds[place]
                token = _take(registers, words, edges[kind], tokens)
                if token < 0:
                    return -1.0
                coded[place], extra[place] = token, 0
                largest = max(largest, token)
                bits += entropies[kind] - np.log2(np.float64(tables[kind, token]))
            for place in range(count):
                tables[kinds[place], coded[place]] += _INCREMENT
            for kind in range(classes):
                if kind == 0 and frequency[0] or kind and frequency[kind] > frequency[kind - 1]:
                    _halve(tables[kind])
            # Extra bits, token by token.
            for token in range(_DIRECT, largest + 1):
                wide, shift = (token - _DIRECT) // 4 + 3, 0
                while wide:
                    piece = min(wide, _RAW_BITS)
                    for place in range(count):
                        if coded[place] == token:
                            value = _raw(registers, words, piece)
                            if value < 0:
                                return -1.0
                            extra[place] |= value << shift
                            bits += piece
                    wide -= piece
                    shift += piece
            for r in range(height):
                for i in range(each):
                    place, column = r * each + i, first + i * stride
                    token = coded[place]
                    magnitude = (token + 1) >> 1
                    negative = not token & 1
                    if token >= _DIRECT:
                        octave, quarter = (token - _DIRECT) >> 2, (token - _DIRECT) & 3
                        magnitude = ((4 + quarter) << (octave + 2)) + (extra[place] >> 1)
                        negative = bool(extra[place] & 1)
                    symbols[start + r, column] = -magnitude if negative else magnitude
                    size = min(magnitude, _MARGIN)
                    sizes[r * width + column] = size
                    known[r] += size
        for r in range(height):
            total += known[r]
            for column in range(width):
                sums[column] += sizes[r * width + column]
        start = stop
    return float(bits)


class ClassesStream:
    """The words of a stream, and where decoding is in them."""

    def __init__(self, stream: bytes) -> None:
        padded = stream + bytes(-len(stream) % 4)
        self.words = np.frombuffer(padded, "<u4").astype(np.uint32)
        first = int.from_bytes(padded[:4].ljust(4, b"\0"), "little") << 32
        first |= int.from_bytes(padded[4:8].ljust(4, b"\0"), "little")
        self.registers = np.array([first, (1 << 64) - 1, 2], np.uint64)

    @property
    def ended(self) -> bool:
        """Whether nothing but what an encoder's end leaves is left over."""
        point, width, position = map(int, self.registers)
        return position >= len(self.words) and (width == (1 << 64) - 1 or point < (1 << 33) - 1)

"""Fast lossless coding of every tensor's symbols into one byte stream: interleaved rANS, compiled.

Asymmetric numeral systems (Duda, 2013) decode with one multiplication and no division. Large planes are coded four rows
at a time, each by a coder of its own, all in one stream (interleaving: Giesen, 2014), so that the processor works on
four symbols at once. rans_model.py says under which probabilities; rans_coder.py holds the loops.

An encoder runs twice: forwards to learn which interval each symbol has, backwards to code them. It does so in *chunks*
of about a million intervals, so that memory stays small. At the end of a chunk the decoder's coders are in the state in
which the encoder's started: that is a check.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from evocompress.codecs.dependent import Kind, Machine, following_of
from evocompress.codecs.rans_coder import (
    FIELD,
    LANES,
    LOW,
    code,
    model_bytes,
    model_rows,
    put,
    read_bytes,
    read_rows,
    take,
)
from evocompress.codecs.rans_model import (
    EXPECTED,
    HINTS,
    NARROW_DIRECT,
    PRECISION,
    Ints,
    Tables,
    copy_tables,
    fresh_tables,
    hint_of,
)
from evocompress.errors import CodecError, FormatError

__all__ = ["BitCounter", "Decoder", "Encoder", "Kind", "State"]

Symbols: TypeAlias = npt.NDArray[np.int32]

_MAX_SYMBOL = (1 << 31) - 1
_LARGE = 1 << 16  # planes from this size on are coded in all lanes, smaller ones in the first
_PART = 1 << 18  # symbols that are coded in one call, if a row is not longer
_CHUNK = 1 << 20  # a chunk ends with the part that brings it to as many intervals
_FEW = 1 << 12  # widths up to so many are counted one by one, not how often there is each of 2^16


class State:
    """The adaptive statistics of a file."""

    def __init__(self, tables: Tables | None = None) -> None:
        self.tables = fresh_tables() if tables is None else tables

    def copy(self) -> State:
        """An independent copy."""
        return State(copy_tables(self.tables))


def _lanes(shape: tuple[int, int]) -> int:
    return LANES if shape[0] * shape[1] >= _LARGE else 1


def _parts(shape: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The rows of each part, first and last + 1: whole groups of lanes."""
    rows, columns = shape
    step = max(_PART // (columns * LANES), 1) * LANES
    for first in range(0, rows, step):
        yield first, min(first + step, rows)


def _pieces(shape: tuple[int, int]) -> Iterator[tuple[int, slice]]:
    """The pieces of a plane of bytes: row, and the columns of a part."""
    for row in range(shape[0]):
        for first in range(0, shape[1], _PART):
            yield row, slice(first, min(first + _PART, shape[1]))


def _intervals(tables: Tables, symbols: Symbols, kind: Kind) -> Iterator[Ints]:
    """The packed intervals of a plane, part by part; the tables learn meanwhile.

    Raises:
        CodecError: A symbol out of range.
    """
    if symbols.size == 0:
        return
    symbols = np.require(symbols, np.int32, ["C", "W"])  # numba would compile anew for an array of another layout
    low, high = (0, 255) if kind == "bytes" else (-_MAX_SYMBOL, _MAX_SYMBOL)
    least, most = int(symbols.min()), int(symbols.max())
    if least < low or most > high:
        raise CodecError(f"Symbols of kind {kind!r} run from {least} to {most}; they must lie in [{low}, {high}].")
    if kind == "bytes":
        for row, columns in _pieces(symbols.shape):
            packed = np.empty(columns.stop - columns.start, np.int64)
            model_bytes(symbols[row, columns], row, tables, packed)
            yield packed
        return
    rows, width = symbols.shape
    hint, lanes, sums = hint_of(symbols), _lanes((rows, width)), np.zeros(width, np.int64)
    for first, last in _parts((rows, width)):
        part = symbols[first:last]
        large = 0 if max(most, -least) < NARROW_DIRECT else int((np.abs(part) >= NARROW_DIRECT).sum())
        packed = np.empty(1 + part.size + 3 * large, np.int64)
        begin = put(tables.counts, tables.edges, HINTS, hint, 0, packed, 0) if first == 0 else 0
        following, expected = following_of(kind), int(EXPECTED[hint])
        n = model_rows(symbols, first, last, lanes, following, expected, sums, tables, packed[begin:])
        yield packed[: begin + n]


class Encoder:
    """Symbols to bytes.

    >>> encoder = Encoder()
    >>> encoder.plane(np.array([[0, 1, -3], [0, 0, 90]], np.int32), "weights")
    >>> Decoder(encoder.finish()).plane((2, 3), "weights").tolist()
    [[0, 1, -3], [0, 0, 90]]
    """

    def __init__(self) -> None:
        self.state = State()
        self._words: list[bytes] = []
        self._waiting: list[Ints] = []
        self._count = 0

    def plane(self, symbols: Symbols, kind: Kind, period: int = 1) -> None:
        """Append a plane (rows, columns) of int32 symbols: magnitudes below 2^31, or 0 … 255 for "bytes".

        `period` is the number of places of a convolution's kernel; this coder does not use it.

        Raises:
            CodecError: A symbol out of range.
        """
        for packed in _intervals(self.state.tables, symbols, kind):
            self._waiting.append(packed)
            self._count += len(packed)
            if self._count >= _CHUNK:
                self._end_chunk()

    def _end_chunk(self) -> None:
        """Code what waits: the states of the coders that were used, then the words."""
        states = np.full(LANES, LOW, np.int64)
        words = np.empty(self._count + 2 * LANES, np.uint32)
        n, several = 0, False
        while self._waiting:
            packed = self._waiting.pop()
            several = several or bool((packed >> (2 * FIELD)).any())
            n += code(packed, states, words[n:])
        for lane in range(LANES - 1 if several else 0, -1, -1):
            x = int(states[lane])
            words[n], words[n + 1] = x & 0xFFFFFFFF, x >> 32 | (LOW if several and lane == 0 else 0)
            n += 2
        self._words.append(words[:n][::-1].astype("<u4").tobytes())
        self._count = 0

    def finish(self) -> bytes:
        """The stream: 32-bit little-endian words, without the zero bytes at its end (the decoder puts them back)."""
        if self._count:
            self._end_chunk()
        return b"".join(self._words).rstrip(b"\0")


class Decoder:
    """Bytes to symbols: planes must be asked for in the order, shape and kind in which they were encoded."""

    def __init__(self, stream: bytes) -> None:
        self.state = State()
        stream = stream.rstrip(b"\0")  # a file may be padded
        padded = stream + bytes(-len(stream) % 4 + 4)  # one word of zeros, for whoever reads on
        self._words = np.frombuffer(padded, "<u4").astype(np.uint32)
        self._cursor = np.zeros(1, np.int64)
        self._states = np.full(LANES, LOW, np.int64)
        self._count = 0
        self._lanes = 0  # of the chunk; 0 between chunks
        self._heads = 0.0  # bits by which the words that have been read say more than the planes have taken

    def _word(self) -> int:
        self._cursor[0] += 1
        return int(self._words[min(self._cursor[0], len(self._words)) - 1])

    def _begin_chunk(self) -> None:
        high = self._word()
        self._lanes = LANES if high & LOW else 1
        self._states[0] = (high & (LOW - 1)) << 32 | self._word()
        for lane in range(1, self._lanes):
            self._states[lane] = (self._word() & (LOW - 1)) << 32 | self._word()
        self._heads += 64 * self._lanes - self._information()

    def _information(self) -> float:
        """Bits in the coders of the chunk."""
        return float(np.log2(np.maximum(self._states[: self._lanes], 1)).sum())

    @property
    def bits(self) -> float:
        """Bits that the planes so far have taken: words that were read, less what the coders still hold of them."""
        return 32 * int(self._cursor[0]) - self._heads - self._information()

    def _end_chunk(self) -> None:
        if (self._states != LOW).any():
            raise FormatError("The entropy-coded stream is damaged: its coders do not end where they began.")
        self._heads += self._information()
        self._lanes = self._count = 0

    def _advance(self, intervals: int) -> None:
        self._count += intervals
        if self._count >= _CHUNK:
            self._end_chunk()

    def plane(self, shape: tuple[int, int], kind: Kind, period: int = 1) -> Symbols:
        """The next plane, of this shape (rows, columns), int32.

        Raises:
            FormatError: The stream is damaged.
        """
        symbols = np.zeros(shape, np.int32)
        if symbols.size == 0:
            return symbols
        if kind == "bytes":
            for row, columns in _pieces(shape):
                self._ready(1)
                read_bytes(symbols[row, columns], row, self.state.tables, self._states, self._words, self._cursor)
                self._advance(columns.stop - columns.start)
        else:
            self._read(symbols, following_of(kind))
        return symbols

    def _ready(self, lanes: int) -> None:
        if not self._lanes:
            self._begin_chunk()
        if lanes > self._lanes:
            raise FormatError("The entropy-coded stream is damaged: it holds one coder where there must be four.")

    def _read(self, symbols: Symbols, following: Machine) -> None:
        tables, lanes, sums = self.state.tables, _lanes(symbols.shape), np.zeros(symbols.shape[1], np.int64)
        expected = 0
        for first, last in _parts(symbols.shape):
            self._ready(min(lanes, last - first))  # a plane's last row alone in a chunk has one coder
            n = 0
            if first == 0:
                hint, n = take(*tables[:3], HINTS, self._states, 0, self._words, self._cursor), 1
                expected = int(EXPECTED[hint])
            coder = self._states, self._words, self._cursor
            n += read_rows(symbols, first, last, lanes, following, expected, sums, tables, *coder)
            self._advance(n)

    def finish(self) -> None:
        """Check that nothing is left over.

        Raises:
            FormatError: The stream goes on after the last symbol, or is damaged.
        """
        if self._lanes:
            self._end_chunk()
        if self._cursor[0] < len(self._words) - 1:
            raise FormatError("The entropy-coded stream goes on after its last symbol: the file is damaged.")


class BitCounter:
    """Ideal code length of planes, from a copy of an encoder's state: what a trial would cost, without coding it."""

    def __init__(self, state: State) -> None:
        self.state = state.copy()
        self.bits = 0.0

    def plane(self, symbols: Symbols, kind: Kind, period: int = 1) -> None:
        """Add a plane's code length."""
        for packed in _intervals(self.state.tables, symbols, kind):
            widths = packed & ((1 << FIELD) - 1)
            if len(widths) < _FEW:
                self.bits += float((PRECISION - np.log2(widths)).sum())
                continue
            counts = np.bincount(widths)
            distinct = np.flatnonzero(counts)
            self.bits += float(counts[distinct] @ (PRECISION - np.log2(distinct)))

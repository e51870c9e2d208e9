"""Lossless coding of every tensor's symbols into one byte stream, on `constriction`'s range coder.

The probabilities of a block follow from the integer counts of its classes (contexts.py) by integer arithmetic.
`constriction` takes them as float64 values, but these are integers that already add up to what it scales them to, so
its scale is exactly 1.0, nothing is ever rounded, and any machine decodes the same. Golden bitstreams would show a
change.

Three coders share one walk over a plane: `Encoder`, `Decoder` and `BitCounter`, which adds up ideal code lengths.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from evocompress.codecs.classes_decoder import ClassesStream, read_plane_of_bytes, read_plane_of_weights
from evocompress.codecs.contexts import (
    ALPHABET,
    CLASS_OF,
    CLASSES,
    DIRECT,
    THRESHOLDS,
    Block,
    Counts,
    all_classes,
    extra_bits,
    magnitude_class,
    phases,
    row_blocks,
    token_base,
    tokenize,
    walk,
)
from evocompress.codecs.dependent import Kind
from evocompress.errors import CodecError, FormatError

__all__ = ["BitCounter", "Decoder", "Encoder", "Kind", "PlainDecoder", "State", "classes_of", "rate_table"]

Ints: TypeAlias = npt.NDArray[np.int64]
Symbols: TypeAlias = npt.NDArray[np.int32]

_PRECISION = 24  # bits of constriction's probabilities
_MAX_SYMBOL = (1 << 31) - 1
_DAMAGED = "The entropy-coded stream is damaged: it holds what no encoder writes."
_GOES_ON = "The entropy-coded stream goes on after its last symbol: the file is damaged."
_WHOLE = 1 << 20  # planes up to this size get all their classes at once
_RAW_BITS = 15  # raw bits are coded in pieces of at most this many, well below the coder's 24-bit precision


@functools.cache
def _stream() -> Any:
    """`constriction`, a compiled module without stubs, when it is first needed: the other coders do without it."""
    return importlib.import_module("constriction").stream


def _model(counts: Ints) -> object:
    """Counts (n,) as constriction's model: integer shares of 2^24 - n, to each of which it adds a 1 of its own."""
    edges = np.cumsum(counts)
    shares = (edges * ((1 << _PRECISION) - len(counts)) // edges[-1]).astype(np.float64)
    shares[1:] -= shares[:-1]  # np.diff takes several times as long, and there is a model for each class of each block
    return _stream().model.Categorical(shares, perfect=False)


class State:
    """The adaptive statistics of a file: one `Counts` per kind of plane, and one for the hints."""

    def __init__(self) -> None:
        self.weights = Counts()
        self.bytes = Counts.uniform(8, 256)
        self.hints = Counts.uniform(1, CLASSES)

    def copy(self) -> State:
        """An independent copy."""
        other = State.__new__(State)
        other.weights, other.bytes, other.hints = self.weights.copy(), self.bytes.copy(), self.hints.copy()
        return other


class _Coder(Protocol):
    """Codes tokens under a table of counts, and raw bits; returns what was coded (the decoder ignores its input)."""

    def tokens(self, values: Ints, counts: Ints) -> Ints: ...

    def raw(self, values: Ints, bits: int) -> Ints: ...


def _code_classes(coder: _Coder, counts: Counts, classes: npt.NDArray[np.uint8], tokens: Ints) -> Ints:
    """Code tokens (n,) class by class, then count them."""
    order = np.argsort(classes, kind="stable")
    ends = np.cumsum(np.bincount(classes, minlength=len(counts.table)))
    ordered = tokens[order]
    begin = 0
    for k, end in enumerate(ends):
        if end > begin:
            ordered[begin:end] = coder.tokens(ordered[begin:end], counts.table[k])
            begin = int(end)
    coded = np.empty_like(ordered)
    coded[order] = ordered
    counts.update(classes, coded)
    return coded


def _code_extra(coder: _Coder, tokens: Ints, extra: Ints) -> Ints:
    """Code the raw bits of the tokens (n,) that have any, one bit width after the other."""
    coded = np.zeros_like(extra)
    large = tokens[tokens >= 2 * DIRECT - 1]
    for token in np.unique(large) if large.size else ():
        places = np.flatnonzero(tokens == token)
        bits, shift = extra_bits(int(token)), 0
        while bits:
            piece = min(bits, _RAW_BITS)
            coded[places] |= coder.raw((extra[places] >> shift) & ((1 << piece) - 1), piece) << shift
            bits, shift = bits - piece, shift + piece
    return coded


def _join(tokens: Ints, extra: Ints) -> Symbols:
    """Tokens and extra bits (n,) back to symbols: the inverse of `tokenize`."""
    symbols = np.where(tokens & 1, (tokens + 1) >> 1, -(tokens >> 1))
    large = tokens[tokens >= 2 * DIRECT - 1]
    for token in np.unique(large) if large.size else ():
        places = np.flatnonzero(tokens == token)
        magnitude = token_base(int(token)) + (extra[places] >> 1)
        symbols[places] = np.where(extra[places] & 1, -magnitude, magnitude)
    return symbols.astype(np.int32)


def _code_hint(coder: _Coder, state: State, symbols: Symbols) -> int:
    """The plane's mean magnitude, as a class: what contexts start from. A decoder passes zeros and gets the hint."""
    hint = np.array([_hint(symbols)], np.int64)
    return int(_code_classes(coder, state.hints, np.zeros(1, np.uint8), hint)[0])


def _decode_weights(coder: _Coder, state: State, symbols: Symbols) -> None:
    """Fill a plane in, block by block."""
    for block in walk(symbols, _code_hint(coder, state, symbols)):
        blank = np.zeros(block.classes.size, np.int64)
        tokens = _code_classes(coder, state.weights, block.classes.ravel(), blank)
        extra = _code_extra(coder, tokens, blank)
        symbols[block.start : block.stop, block.columns] = _join(tokens, extra).reshape(block.classes.shape)


def _encode_weights(coder: _Coder, state: State, symbols: Symbols) -> None:
    """Code a plane in the decoder's order; who knows all symbols can have all classes and tokens at once."""
    for start, stop, columns, classes in _planned(symbols, _code_hint(coder, state, symbols)):
        tokens, extra = tokenize(symbols[start:stop, columns].ravel())
        _code_classes(coder, state.weights, classes.ravel(), tokens)
        _code_extra(coder, tokens, extra)


def _planned(symbols: Symbols, hint: int) -> Iterator[Block]:
    """The blocks of `walk`, by the way that is faster for a plane of this size."""
    if symbols.size > _WHOLE:
        yield from walk(symbols, hint)
        return
    classes, columns = all_classes(symbols, hint), phases(symbols.shape[1])
    for start, stop in row_blocks(*symbols.shape):
        for part in columns:
            yield Block(start, stop, part, classes[start:stop, part])


def _code_bytes(coder: _Coder, state: State, symbols: Symbols) -> None:
    for row in range(symbols.shape[0]):
        for start in range(0, symbols.shape[1], 4096):
            piece = symbols[row, start : start + 4096].astype(np.int64)
            classes = np.full(len(piece), row % 8, np.uint8)
            symbols[row, start : start + 4096] = _code_classes(coder, state.bytes, classes, piece)


def _code(coder: _Coder, state: State, symbols: Symbols, kind: Kind, *, decoding: bool) -> None:
    if symbols.size == 0:
        return
    if kind == "bytes":
        _code_bytes(coder, state, symbols)
    else:
        (_decode_weights if decoding else _encode_weights)(coder, state, symbols)


class Encoder:
    """Symbols to bytes.

    >>> encoder = Encoder()
    >>> encoder.plane(np.array([[0, 1, -3], [0, 0, 90]], np.int32), "weights")
    >>> Decoder(encoder.finish()).plane((2, 3), "weights").tolist()
    [[0, 1, -3], [0, 0, 90]]
    """

    def __init__(self) -> None:
        self.state = State()
        self._range = _stream().queue.RangeEncoder()

    def tokens(self, values: Ints, counts: Ints) -> Ints:
        """Code tokens (n,) under one table of counts."""
        self._range.encode(values.astype(np.int32), _model(counts))
        return values

    def raw(self, values: Ints, bits: int) -> Ints:
        """Code values below 2^bits as they are."""
        self._range.encode(values.astype(np.int32), _stream().model.Uniform(1 << bits))
        return values

    def plane(self, symbols: Symbols, kind: Kind, period: int = 1) -> None:
        """Append a plane (rows, columns) of int32 symbols: magnitudes below 2^31, or 0 … 255 for "bytes".

        Raises:
            CodecError: A symbol out of range.
        """
        low, high = (0, 255) if kind == "bytes" else (-_MAX_SYMBOL, _MAX_SYMBOL)
        if symbols.size and (symbols.min() < low or symbols.max() > high):
            extremes = f"{symbols.min()} to {symbols.max()}"
            raise CodecError(f"Symbols of kind {kind!r} run from {extremes}; they must lie in [{low}, {high}].")
        _code(self, self.state, symbols, kind, decoding=False)

    def finish(self) -> bytes:
        """The stream: 32-bit little-endian words, without the zero bytes at its end (the decoder puts them back)."""
        stream: bytes = self._range.get_compressed().astype("<u4").tobytes()
        return stream.rstrip(b"\0")


class Decoder:
    """Bytes to symbols: planes must be asked for in the order, shape and kind in which they were encoded."""

    def __init__(self, stream: bytes) -> None:
        self.state = State()
        self.bits = 0.0
        self._stream = ClassesStream(stream.rstrip(b"\0"))  # a file may be padded

    def plane(self, shape: tuple[int, int], kind: Kind, period: int = 1) -> Symbols:
        """The next plane, of this shape (rows, columns), int32.

        Raises:
            FormatError: The stream is damaged.
        """
        symbols, of = np.zeros(shape, np.int32), self._stream
        if symbols.size == 0:
            return symbols
        if kind == "bytes":
            bits = read_plane_of_bytes(symbols, self.state.bytes.table, of.registers, of.words)
        else:
            hints, table = self.state.hints.table[0], self.state.weights.table
            bits = read_plane_of_weights(symbols, hints, table, THRESHOLDS, CLASS_OF, of.registers, of.words)
        if bits < 0:
            raise FormatError(_DAMAGED)
        self.bits += bits
        return symbols

    def finish(self) -> None:
        """Check that nothing is left over.

        Raises:
            FormatError: The stream goes on after the last symbol.
        """
        if not self._stream.ended:
            raise FormatError(_GOES_ON)


class PlainDecoder:
    """The same through `constriction`, class by class: for where nothing is compiled, and as a check."""

    def __init__(self, stream: bytes) -> None:
        self.state = State()
        self.bits = 0.0
        stream = stream.rstrip(b"\0")
        padded = stream + bytes(-len(stream) % 4)
        self._range = _stream().queue.RangeDecoder(np.frombuffer(padded, "<u4").astype(np.uint32))

    def tokens(self, values: Ints, counts: Ints) -> Ints:
        """Decode as many tokens as `values` has places."""
        coded = self._decode(_model(counts), len(values))
        self.bits += _code_length(coded, counts)
        return coded

    def raw(self, values: Ints, bits: int) -> Ints:
        """Decode as many values below 2^bits as `values` has places."""
        self.bits += bits * len(values)
        return self._decode(_stream().model.Uniform(1 << bits), len(values))

    def _decode(self, model: object, count: int) -> Ints:
        try:
            decoded = self._range.decode(model, count)
        except (AssertionError, ValueError) as error:
            raise FormatError(_DAMAGED) from error
        return np.asarray(decoded, np.int64)

    def plane(self, shape: tuple[int, int], kind: Kind, period: int = 1) -> Symbols:
        """The next plane, of this shape (rows, columns), int32."""
        symbols = np.zeros(shape, np.int32)
        _code(self, self.state, symbols, kind, decoding=True)
        return symbols

    def finish(self) -> None:
        """Check that nothing is left over.

        Raises:
            FormatError: The stream goes on after the last symbol.
        """
        if not self._range.maybe_exhausted():
            raise FormatError(_GOES_ON)


class BitCounter:
    """Ideal code length of planes, from a copy of an encoder's state: what a trial would cost, without coding it."""

    def __init__(self, state: State) -> None:
        self.state = state.copy()
        self.bits = 0.0

    def tokens(self, values: Ints, counts: Ints) -> Ints:
        """Add the code length of tokens (n,) under one table of counts."""
        self.bits += _code_length(values, counts)
        return values

    def raw(self, values: Ints, bits: int) -> Ints:
        """Add raw bits."""
        self.bits += bits * len(values)
        return values

    def plane(self, symbols: Symbols, kind: Kind, period: int = 1) -> None:
        """Add a plane's code length."""
        _code(self, self.state, symbols, kind, decoding=False)


def _code_length(values: Ints, counts: Ints) -> float:
    """Ideal code length in bits of tokens (n,) under one table of counts."""
    seen = np.bincount(values, minlength=len(counts))
    occurring = np.flatnonzero(seen)
    return float(seen[occurring] @ (np.log2(counts.sum()) - np.log2(counts[occurring])))


def _hint(symbols: Symbols) -> int:
    return magnitude_class(int(np.abs(symbols.astype(np.int64)).sum()), symbols.size)


def classes_of(symbols: Symbols) -> npt.NDArray[np.uint8]:
    """The context class of every symbol of a plane (rows, columns), as an encoder sees it."""
    if symbols.size <= _WHOLE:
        return all_classes(symbols, _hint(symbols))
    classes = np.zeros(symbols.shape, np.uint8)
    for block in walk(symbols, _hint(symbols)):
        classes[block.start : block.stop, block.columns] = block.classes
    return classes


def rate_table(classes: npt.NDArray[np.uint8], symbols: Symbols) -> npt.NDArray[np.float64]:
    """Bits (CLASSES, ALPHABET) that each token would cost in each class, raw bits included, given these symbols."""
    counts = Counts()
    counts.update(classes.ravel(), tokenize(symbols.ravel())[0])
    bits: npt.NDArray[np.float64] = np.log2(counts.table.sum(axis=1, keepdims=True)) - np.log2(counts.table)
    bits += np.array([extra_bits(token) for token in range(ALPHABET)])
    return bits

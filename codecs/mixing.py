"""The smallest lossless coding of every tensor's symbols into one byte stream: context mixing, for preset `best`.

Each symbol is a few binary decisions. For each, three counters (adaptive probabilities by context), a parametric prior
and eight features are mixed into one probability with weights that learn as the file goes by (Mahoney, 2005), and an
arithmetic coder spends what that implies. The statistics are shared by all planes of a file. mixing_contexts.py says
what is known about a weight; mixing_weights.py and mixing_bytes.py what is decided in which order;
mixing_coder.py how one decision is coded.

Everything is integers, so every machine decodes the same, compiled or not. Three million weights a second go through
either way where it is compiled.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from evocompress.codecs.dependent import Kind, following_of
from evocompress.codecs.mixing_bytes import BYTE_COUNTERS, BYTE_MIXERS, code_bytes, fresh_byte_mixers
from evocompress.codecs.mixing_coder import COUNT, DECODE, ENCODE, LOW, MODE, POSITION, WIDTH
from evocompress.codecs.mixing_tables import STRETCH, tables
from evocompress.codecs.mixing_weights import COUNTERS, MEMORY, code_weights, fresh_memory
from evocompress.errors import CodecError, FormatError

__all__ = ["BitCounter", "Decoder", "Encoder", "Kind", "State"]

Symbols: TypeAlias = npt.NDArray[np.int32]

_MAX_SYMBOL = (1 << 31) - 1
_MAX_PERIOD = 64  # kernels of more places are coded as if they were none
_BITS = 40


class State:
    """All that a coder has learned, about 0.4 MB (1.2 MB once there are bytes), and its registers."""

    def __init__(self) -> None:
        squash = tables()[:STRETCH]
        self.memory = np.concatenate([fresh_memory(squash), fresh_byte_mixers(squash)])
        assert len(self.memory) == MEMORY + BYTE_MIXERS
        self.memory[WIDTH] = 1 << _BITS
        self.counters = np.zeros(COUNTERS, np.int32)
        self.byte_counters = np.zeros(0, np.int32)
        self.moments: dict[int, npt.NDArray[np.int64]] = {}

    def copy(self) -> State:
        """An independent copy."""
        other = State.__new__(State)
        other.memory, other.counters = self.memory.copy(), self.counters.copy()
        other.byte_counters = self.byte_counters.copy()
        other.moments = {period: moments.copy() for period, moments in self.moments.items()}
        return other

    @property
    def bits(self) -> float:
        """How far the interval has been narrowed, in bits: what coding has taken so far."""
        return 8 * int(self.memory[POSITION]) + _BITS - math.log2(self.memory[WIDTH])

    def code(self, buffer: npt.NDArray[np.uint8], symbols: Symbols, kind: Kind, period: int) -> npt.NDArray[np.uint8]:
        """Code a plane (rows, columns) in the mode that the registers say; a decoder fills it in.

        Returns the buffer, or a larger one that has taken its place.
        """
        if symbols.size == 0:
            return buffer
        if kind == "bytes":
            if len(self.byte_counters) == 0:
                self.byte_counters = np.zeros(BYTE_COUNTERS, np.int32)
            return code_bytes(self.memory, buffer, tables(), self.byte_counters, symbols)
        if not 1 < period <= _MAX_PERIOD or symbols.shape[1] % period:
            period = 1
        width = math.isqrt(period)
        width = width if width * width == period else period
        moments = self.moments.setdefault(period, np.zeros((period + 1, period), np.int64))
        return code_weights(self.memory, buffer, tables(), self.counters, moments, symbols, following_of(kind), width)


class Encoder:
    """Symbols to bytes.

    >>> encoder = Encoder()
    >>> encoder.plane(np.array([[0, 1, -3], [0, 0, 90]], np.int32), "weights")
    >>> Decoder(encoder.finish()).plane((2, 3), "weights").tolist()
    [[0, 1, -3], [0, 0, 90]]
    """

    def __init__(self) -> None:
        self.state = State()
        self.state.memory[MODE] = ENCODE
        self._buffer = np.zeros(1 << 12, np.uint8)

    def plane(self, symbols: Symbols, kind: Kind, period: int = 1) -> None:
        """Append a plane (rows, columns) of int32 symbols: magnitudes below 2^31, or 0 … 255 for "bytes".

        `period` is the number of places of a convolution's kernel (columns are input channels × places), else 1.

        Raises:
            CodecError: A symbol out of range.
        """
        low, high = (0, 255) if kind == "bytes" else (-_MAX_SYMBOL, _MAX_SYMBOL)
        if symbols.size and (symbols.min() < low or symbols.max() > high):
            extremes = f"{symbols.min()} to {symbols.max()}"
            raise CodecError(f"Symbols of kind {kind!r} run from {extremes}; they must lie in [{low}, {high}].")
        self._buffer = self.state.code(self._buffer, np.require(symbols, np.int32, ["C", "W"]), kind, period)

    def finish(self) -> bytes:
        """The stream, without the zero bytes at its end (the decoder puts them back)."""
        memory = self.state.memory
        low, width = int(memory[LOW]), int(memory[WIDTH])
        zeros = _BITS  # as many as the interval has a point with
        while -(-low >> zeros) << zeros >= low + width:
            zeros -= 1
        point = -(-low >> zeros) << zeros
        done = int.from_bytes(self._buffer[: memory[POSITION]].tobytes(), "big")
        number = (done << _BITS) + point  # may carry
        return number.to_bytes(int(memory[POSITION]) + _BITS // 8, "big").rstrip(b"\0")


class Decoder:
    """Bytes to symbols: planes must be asked for in the order, shape, kind and period in which they were encoded."""

    def __init__(self, stream: bytes) -> None:
        stream = stream.rstrip(b"\0")  # a file may be padded
        self.state = State()
        self._stream = np.frombuffer(stream, np.uint8).copy()
        memory = self.state.memory
        memory[MODE], memory[POSITION] = DECODE, _BITS // 8
        memory[LOW] = int.from_bytes(stream[: _BITS // 8].ljust(_BITS // 8, b"\0"), "big")

    def plane(self, shape: tuple[int, int], kind: Kind, period: int = 1) -> Symbols:
        """The next plane, of this shape (rows, columns), int32."""
        symbols = np.zeros(shape, np.int32)
        self.state.code(self._stream, symbols, kind, period)
        return symbols

    @property
    def bits(self) -> float:
        """Bits that the planes so far have taken: all but those that a decoder begins with."""
        return self.state.bits - _BITS

    def finish(self) -> None:
        """Check that nothing is left over.

        Raises:
            FormatError: The stream goes on after the last symbol.
        """
        if self.state.memory[POSITION] < len(self._stream):
            raise FormatError("The entropy-coded stream goes on after its last symbol: the file is damaged.")


class BitCounter:
    """Code length of planes, from a copy of a coder's state: what a trial would cost, without its bytes."""

    def __init__(self, state: State) -> None:
        self.state = state.copy()
        memory = self.state.memory
        memory[MODE], memory[WIDTH], memory[LOW], memory[POSITION] = COUNT, 1 << _BITS, 0, 0
        self._buffer = np.zeros(0, np.uint8)

    def plane(self, symbols: Symbols, kind: Kind, period: int = 1) -> None:
        """Add a plane's code length."""
        self.state.code(self._buffer, np.require(symbols, np.int32, ["C", "W"]), kind, period)

    @property
    def bits(self) -> float:
        """Bits so far."""
        return self.state.bits

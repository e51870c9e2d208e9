"""The entropy coders that a file can be written with, each one row. Numbers in files are theirs for ever."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import evocompress.codecs.entropy as entropy
import evocompress.codecs.mixing as mixing
import evocompress.codecs.rans as rans
from evocompress.codecs.compiled import COMPILED
from evocompress.codecs.entropy import Kind, Symbols

__all__ = ["CODERS", "Coder", "CoderName", "coder_numbered", "count_bits"]

CoderName: TypeAlias = Literal["classes", "rans", "mixing"]


class PlaneEncoder(Protocol):
    """Symbols to bytes."""

    state: Any

    def plane(self, symbols: Symbols, kind: Kind, period: int = 1) -> None:
        """Append a plane (rows, columns) of a tensor whose kernels have `period` places (`kernel_places`)."""
        ...

    def finish(self) -> bytes:
        """The stream."""
        ...


class PlaneDecoder(Protocol):
    """Bytes to symbols, in the order in which they were encoded."""

    @property
    def bits(self) -> float:
        """How many bits of the stream the planes so far have taken: their ideal code length."""
        ...

    def plane(self, shape: tuple[int, int], kind: Kind, period: int = 1) -> Symbols:
        """The next plane (rows, columns), of the period with which it was encoded."""
        ...

    def finish(self) -> None:
        """Check that nothing is left over."""
        ...


class Coder(NamedTuple):
    """One entropy coder: its number in files and its classes. `state` is what a `counter` counts from."""

    number: int
    encoder: type[Any]
    decoder: type[Any]
    counter: type[Any]
    state: type[Any]


CODERS: dict[CoderName, Coder] = {
    "classes": Coder(
        0,
        entropy.Encoder,
        entropy.Decoder if COMPILED else entropy.PlainDecoder,
        entropy.BitCounter,
        entropy.State,
    ),
    "rans": Coder(1, rans.Encoder, rans.Decoder, rans.BitCounter, rans.State),
    "mixing": Coder(2, mixing.Encoder, mixing.Decoder, mixing.BitCounter, mixing.State),
}


def coder_numbered(number: int) -> Coder | None:
    """The coder that a file names, or None for an unknown number."""
    return next((coder for coder in CODERS.values() if coder.number == number), None)


def count_bits(state: Any) -> Any:
    """A bit counter that starts from this state of whichever coder."""
    return next(coder for coder in CODERS.values() if isinstance(state, coder.state)).counter(state)

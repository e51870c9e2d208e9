"""Codecs and stages: a codec is a chain of stages that ends in integers, and back.

A *stage* transforms an array and hands what comes out to the rest of its chain; the last stage is a quantiser, which
hands over symbols. Whatever a decoder needs to know beyond the symbols (a step, an axis, a rank) the stage writes as
varints into the side information; so a chain is named in a file by its stage numbers alone. Adding a stage means
adding one file and one row in registry.py.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import ClassVar, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from evocompress.codecs.budget import Budget, Charge
from evocompress.codecs.entropy import Kind, Symbols
from evocompress.codecs.sensitivity import Sensitivity
from evocompress.errors import CodecError, FormatError

__all__ = ["Codec", "Coded", "Cost", "Floats", "Layout", "Plane", "Shape", "SideReader", "Stage", "varint"]

Floats: TypeAlias = npt.NDArray[np.float64]
Shape: TypeAlias = tuple[int, ...]

#: What an array between two stages counts for beside its elements: a call takes as long as many of them.
_ARRAY = 1 << 8

#: Squared error per step² and bits per symbol trade at dD/dR = -2·ln 2·step²/12 at high rate (Gish and Pierce, 1968).
_STEP_PER_RATE = math.sqrt(6 / math.log(2))


def varint(value: int) -> bytes:
    """A signed integer as zig-zag base-128, low group first.

    >>> [varint(v).hex() for v in (0, -1, 1, 64)]
    ['00', '01', '02', '8001']
    """
    rest = value << 1 if value >= 0 else (-value << 1) - 1
    out = bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out)


class SideReader:
    """Reads varints off side information; refuses to read past its end.

    While a tensor table is read it has the file's `budget`, which the layouts of its tensors are charged to.
    """

    def __init__(self, data: bytes, budget: Budget | None = None) -> None:
        self._data = data
        self.position = 0
        self.budget = budget

    def charge(self, kind: Charge, amount: int) -> None:
        """Count what decoding will cost, if somebody counts: a stage's `layout` says so where that is much.

        `Codec.layout` counts the arrays that stages hand to each other; planes and their symbols are counted too.

        Raises:
            FormatError: The file may not cost as much.
        """
        if self.budget is not None:
            self.budget.charge(kind, amount)

    def integer(self, low: int, high: int) -> int:
        """The next varint, which must lie in [low, high].

        Raises:
            FormatError: The data end too soon, or the value is out of range.
        """
        rest, shift = 0, 0
        while True:
            if self.position >= len(self._data) or shift > 63:
                raise FormatError("The side information of a tensor ends too soon: the file is damaged.")
            byte = self._data[self.position]
            self.position += 1
            rest |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        value = -((rest + 1) >> 1) if rest & 1 else rest >> 1
        if not low <= value <= high:
            raise FormatError(f"A value of the side information is {value}, outside [{low}, {high}]: damaged file.")
        return value

    def finish(self) -> None:
        """Check that everything was read.

        Raises:
            FormatError: Something is left over.
        """
        if self.position != len(self._data):
            raise FormatError("The side information of a tensor is too long: the file is damaged.")


class Plane(NamedTuple):
    """Symbols for the entropy coder: int32 (rows, columns), and which statistics they share."""

    symbols: Symbols
    kind: Kind = "weights"


class Layout(NamedTuple):
    """Shape (rows, columns) and kind of a plane that a decoder is about to read."""

    rows: int
    columns: int
    kind: Kind = "weights"


class Coded(NamedTuple):
    """What a codec makes of an array: planes of symbols, and side information."""

    planes: tuple[Plane, ...]
    side: bytes


@dataclasses.dataclass(frozen=True)
class Cost:
    """The exchange rate of one array: the score to minimise is `scale·Σ error² + rate_weight·bits`.

    `scale` is the array's sensitivity (1 without calibration data), `rate_weight` is λ. Both must be positive. Where
    `sensitivity` is known, it takes the place of `scale·Σ error²` for the stages that can use it; `scale` is its mean.
    """

    rate_weight: float
    scale: float = 1.0
    sensitivity: Sensitivity | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in ("rate_weight", "scale"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise CodecError(f"{name} is {value}; it must be a positive, finite number.")

    @property
    def price(self) -> float:
        """Squared error that one bit is worth."""
        return self.rate_weight / self.scale

    def price_in(self, unit: float) -> float:
        """`price` in squares of a unit, however large or small that is."""
        root = min(math.sqrt(self.price) / unit, 1e150)
        return root * root

    @property
    def step(self) -> float:
        """The uniform quantiser's step at which a bit more buys just `price` less squared error."""
        return _STEP_PER_RATE * math.sqrt(self.price)

    def scaled(self, factor: float) -> Cost:
        """The cost of an array in which a squared error counts `factor` times as much."""
        return Cost(self.rate_weight, self.scale * factor)

    @property
    def flat(self) -> Cost:
        """The same without its second-order sensitivity: for what is not the array itself, such as coefficients."""
        return Cost(self.rate_weight, self.scale)

    def distortion(self, error: Floats) -> float:
        """What an error, an array of the shape of the weights, costs."""
        if self.sensitivity is not None:
            return self.sensitivity.distortion(error.reshape(len(self.sensitivity.g), -1))
        return self.scale * float((error**2).sum())


class Stage(Protocol):
    """One step of a codec. A terminal stage (a quantiser) ignores `rest`, which is empty.

    A transform with `second_order = True` gets a tensor's sensitivity if it is the first of its chain. A quantiser with
    `alone = True` takes tensors as they are, in their own dtype, so that no transform may come before it.
    """

    id: ClassVar[str]
    number: ClassVar[int]
    terminal: ClassVar[bool]

    def encode(self, x: Floats, cost: Cost, rest: Codec) -> Coded:
        """Array of any shape to planes and side information, at the least cost that this stage can find."""
        ...

    def layout(self, side: SideReader, shape: Shape, rest: Codec) -> list[Layout]:
        """The planes that `decode` will ask for; reads this stage's side information (and lets `rest` read its own)."""
        ...

    def decode(self, planes: Iterator[Symbols], side: SideReader, shape: Shape, rest: Codec) -> Floats:
        """The array of this shape."""
        ...


@dataclasses.dataclass(frozen=True)
class Codec:
    """A chain of stages; equality, hash and repr come from the stages' parameters."""

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        if not self.stages or not self.stages[-1].terminal or any(stage.terminal for stage in self.stages[:-1]):
            names = " + ".join(stage.id for stage in self.stages) or "(nothing)"
            raise CodecError(f"A codec is any number of transforms and one quantiser at its end, not {names}.")
        if len(self.stages) > 1 and getattr(self.stages[-1], "alone", False):
            names, last = " + ".join(stage.id for stage in self.stages), self.stages[-1].id
            raise CodecError(f"{names}: {last} keeps a tensor's bytes and takes no transform before it; give it alone.")

    @property
    def rest(self) -> Codec:
        """The chain without its first stage; a chain's last stage gets itself, and ignores it."""
        return Codec(self.stages[1:]) if len(self.stages) > 1 else self

    def encode(self, x: npt.NDArray[np.generic] | Floats, cost: Cost) -> Coded:
        """Array of any shape to planes and side information."""
        if len(self.stages) > 1 and not getattr(self.stages[0], "second_order", False):
            cost = cost.flat  # the sensitivity is that of weights, not of what a transform makes of them
        return self.stages[0].encode(x, cost, self.rest)  # type: ignore[arg-type]

    def layout(self, side: SideReader, shape: Shape) -> list[Layout]:
        """The planes of an array of this shape, from its side information, which the array is charged to."""
        side.charge("numbers", math.prod(shape) + _ARRAY)
        return self.stages[0].layout(side, shape, self.rest)

    def decode_from(self, planes: Iterator[Symbols], side: SideReader, shape: Shape) -> Floats:
        """The array of this shape, from planes in the order of `layout`."""
        return self.stages[0].decode(planes, side, shape, self.rest)

    def decode(self, coded: Coded, shape: Shape) -> Floats:
        """The inverse of `encode`, as far as a lossy codec has one."""
        side = SideReader(coded.side)
        x = self.decode_from(iter([plane.symbols for plane in coded.planes]), side, shape)
        side.finish()
        return x

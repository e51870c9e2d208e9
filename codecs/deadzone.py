"""Uniform quantiser with a dead zone that rate-distortion optimised rounding opens where it pays.

Every weight is rounded to the level that minimises squared error + λ·bits (rounding.py); the dead zone is what that
rule does to small weights (Sullivan, 1996).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from evocompress.codecs.codec import Codec, Coded, Cost, Floats, Layout, Plane, Shape, SideReader, varint
from evocompress.codecs.entropy import Symbols
from evocompress.codecs.planes import from_planes, plane_layouts, split
from evocompress.codecs.rounding import rate_optimised
from evocompress.codecs.scales import MAX_CODE, MIN_CODE, scale_code, scale_value
from evocompress.errors import CodecError

__all__ = ["DeadZone"]

_MAX_SYMBOL = 1 << 30
_BLOCK = 1 << 19  # weights whose rounding is optimised at a time


def _optimised(x: Floats, price: float, passes: int) -> Symbols:
    """Symbols of a plane x (rows, columns) in units of the step: the nearest level, one towards zero, or zero.

    `price` is in squared steps per bit.
    """
    nearest = np.rint(x).astype(np.int32)
    nonzero = np.flatnonzero(nearest)
    levels = nearest.ravel()[nonzero]
    candidates = np.stack([levels, levels - np.sign(levels), np.zeros_like(levels)])
    return rate_optimised(nearest, candidates, (candidates - x.ravel()[nonzero]) ** 2, price, passes)


def _in_blocks(x: Floats, step: float, price: float, passes: int) -> Symbols:
    """A plane's symbols, large ones some rows at a time: optimising takes two hundred bytes a weight."""
    rows, columns = x.shape
    height, symbols = max(_BLOCK // columns, 1), np.empty(x.shape, np.int32)
    for first in range(0, rows, height):
        block = slice(first, first + height)
        symbols[block] = _optimised(x[block] / np.float64(step), price, passes)
    return symbols


@dataclasses.dataclass(frozen=True)
class DeadZone:
    """Uniform dead-zone quantiser; terminal.

    `step_scale` multiplies the step that λ implies; `passes` is how often the rounding is optimised (0: round to
    nearest). `step`, where it is not 0, takes the place of both: weights that training has left on a grid of that step,
    one of the format's scales, go into the file exactly, without passes.
    """

    id: ClassVar[str] = "deadzone"
    number: ClassVar[int] = 1
    terminal: ClassVar[bool] = True

    step_scale: float = 1.0
    passes: int = 3
    step: float = 0.0

    def __post_init__(self) -> None:
        if not 0.01 <= self.step_scale <= 100:
            raise CodecError(f"deadzone: step_scale is {self.step_scale}; it must lie in [0.01, 100].")
        if not 0 <= self.passes <= 10:
            raise CodecError(f"deadzone: passes is {self.passes}; it must lie in [0, 10].")
        if not 0 <= self.step < math.inf:
            raise CodecError(f"deadzone: step is {self.step}; it must be positive and finite, or 0 for λ's.")

    def encode(self, x: Floats, cost: Cost, rest: Codec) -> Coded:
        """Array of any shape to symbols and the code of the step."""
        largest = max(float(x.max(initial=0.0)), -float(x.min(initial=0.0)))
        code = scale_code(self.step or cost.step * self.step_scale)
        code = max(code, scale_code(largest / _MAX_SYMBOL) + 8)
        code = min(max(code, MIN_CODE), MAX_CODE)
        step = scale_value(code)
        price = cost.price_in(step)
        planes = tuple(Plane(_in_blocks(part, step, price, self.passes)) for part in split(x))
        if not any(plane.symbols.any() for plane in planes):
            code = 0  # nothing is left of the array, so the shortest code will do
        return Coded(planes, varint(code))

    def layout(self, side: SideReader, shape: Shape, rest: Codec) -> list[Layout]:
        """One symbol per element."""
        side.integer(MIN_CODE, MAX_CODE)
        return plane_layouts(shape)

    def decode(self, planes: Iterator[Symbols], side: SideReader, shape: Shape, rest: Codec) -> Floats:
        """Symbols times step."""
        return from_planes(planes, shape).astype(np.float64) * scale_value(side.integer(MIN_CODE, MAX_CODE))

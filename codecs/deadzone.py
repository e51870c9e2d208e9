"""Uniform quantiser with a dead zone that rate-distortion optimised rounding opens where it pays.

Every weight is rounded to the level that minimises squared error + λ·bits, the bits taken from the entropy coder's own
context classes (entropy-constrained scalar quantisation: Chou, Lookabaugh and Gray, 1989, with a uniform codebook;
the dead zone is what that rule does to small weights: Sullivan, 1996).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from evocompress.codecs.arrange import from_planes, plane_layouts, to_planes
from evocompress.codecs.codec import Codec, Coded, Cost, Floats, Layout, Plane, Shape, SideReader, varint
from evocompress.codecs.contexts import tokenize
from evocompress.codecs.entropy import Symbols, classes_of, rate_table
from evocompress.codecs.steps import MAX_CODE, MIN_CODE, scale_code, scale_value
from evocompress.errors import CodecError

__all__ = ["DeadZone", "rate_optimised"]

_MAX_SYMBOL = 1 << 30


def rate_optimised(x: Floats, nearest: Plane, price: float, passes: int) -> Plane:
    """Re-round a plane: per element the level among {nearest, one towards zero, zero} of least error² + price·bits.

    `x` (rows, columns) is in units of the step, `price` in squared steps per bit. Each pass takes its rates from
    the symbols of the pass before.
    """
    symbols = nearest.symbols
    candidates = np.stack([symbols, symbols - np.sign(symbols), np.zeros_like(symbols)])
    error = (candidates - x) ** 2
    tokens = np.stack([tokenize(candidate)[0] for candidate in candidates])
    for _ in range(passes):
        classes = classes_of(symbols)
        rates = rate_table(classes, symbols)
        choice = np.argmin(error + price * rates[classes, tokens], axis=0)
        symbols = np.take_along_axis(candidates, choice[None], axis=0)[0]
    return Plane(symbols, nearest.kind)


@dataclasses.dataclass(frozen=True)
class DeadZone:
    """Uniform dead-zone quantiser; terminal.

    `step_scale` multiplies the step that λ implies; `passes` is how often the rounding is optimised (0: round to
    nearest).
    """

    id: ClassVar[str] = "deadzone"
    number: ClassVar[int] = 1
    terminal: ClassVar[bool] = True

    step_scale: float = 1.0
    passes: int = 2

    def __post_init__(self) -> None:
        if not 0.01 <= self.step_scale <= 100:
            raise CodecError(f"deadzone: step_scale is {self.step_scale}; it must lie in [0.01, 100].")
        if not 0 <= self.passes <= 10:
            raise CodecError(f"deadzone: passes is {self.passes}; it must lie in [0, 10].")

    def encode(self, x: Floats, cost: Cost, rest: Codec) -> Coded:
        """Array of any shape to symbols and the code of the step."""
        largest = float(np.abs(x).max(initial=0.0))
        code = max(scale_code(cost.step * self.step_scale), scale_code(largest / _MAX_SYMBOL) + 8)
        code = min(max(code, MIN_CODE), MAX_CODE)
        step = scale_value(code)
        scaled = x / step
        planes = to_planes(np.rint(scaled))
        if self.passes and x.size:
            price = cost.price / step**2 if step > 1e-150 else 0.0
            scaled_planes, start = [], 0
            for plane in planes:
                part = scaled.ravel()[start : start + plane.symbols.size].reshape(plane.symbols.shape)
                scaled_planes.append(rate_optimised(part, plane, price, self.passes))
                start += plane.symbols.size
            planes = tuple(scaled_planes)
        if not any(plane.symbols.any() for plane in planes):
            code = 0  # nothing is left of the array, so the shortest code will do
        return Coded(planes, varint(code))

    def layout(self, side: SideReader, shape: Shape, rest: Codec) -> list[Layout]:
        """One symbol per element."""
        side.integer(MIN_CODE, MAX_CODE)
        return plane_layouts(shape)

    def decode(self, planes: Iterator[Symbols], side: SideReader, shape: Shape, rest: Codec) -> Floats:
        """Symbols times step."""
        return from_planes(planes, shape) * scale_value(side.integer(MIN_CODE, MAX_CODE))

"""Dependent quantisation as a stage, with second-order sensitivity where there is one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from evocompress.codecs.codec import Codec, Coded, Cost, Floats, Layout, Plane, Shape, SideReader, varint
from evocompress.codecs.dependent import KINDS, MACHINES, levels
from evocompress.codecs.entropy import Symbols
from evocompress.codecs.feedback import inverse_factor, quantise_rows
from evocompress.codecs.planes import matrix_shape, plane_layouts, split
from evocompress.codecs.scales import MAX_CODE, MIN_CODE, scale_code, scale_value
from evocompress.codecs.sensitivity import Sensitivity
from evocompress.codecs.viterbi import trellis_quantise
from evocompress.errors import CodecError, FormatError

__all__ = ["Trellis"]

_MAX_SYMBOL = 1 << 30
#: Step² per squared error that a bit is worth, before `step_scale`: the trellis has two quantisers of twice this step.
_STEP_PER_RATE = 0.62 * math.sqrt(6 / math.log(2))
#: With error feedback a wider step is better: measured on held-out images, benchmarks/NOTES.md.
_SECOND_ORDER_STEP = 1.4
_WORTH = 1 << 11  # weights: of fewer a larger machine does not save the two bytes that name it
_FLOOR = 1e-4  # of the largest row weight: a dead row is cheap to damage, not free
#: Power of g where it differs by orders of magnitude: one step suits none of the rows then; of 0, ¼, ½ and 1 the best.
_TEMPER = 0.25


@dataclasses.dataclass(frozen=True)
class Trellis:
    """Dependent quantiser, rate-distortion optimised; with calibration, of second order; terminal.

    `step_scale` multiplies the step that λ implies; `passes` is how often symbols are searched where the sensitivity is
    of second order; `damping` is what its H gets added to its diagonal, relative to the diagonal's mean. `states` are
    those of the machine: more of them make smaller errors in as many bytes, and take longer to search, not to decode;
    fewer than 2 048 weights get 8, as a larger machine would not save the two bytes that name it.
    """

    id: ClassVar[str] = "trellis"
    number: ClassVar[int] = 4
    terminal: ClassVar[bool] = True

    step_scale: float = 1.0
    passes: int = 3
    damping: float = 0.003
    states: int = 8

    def __post_init__(self) -> None:
        if self.states not in MACHINES:
            choices = ", ".join(map(str, MACHINES))
            raise CodecError(f"trellis: states is {self.states}; it must be one of {choices}.")
        if not 0.01 <= self.step_scale <= 100:
            raise CodecError(f"trellis: step_scale is {self.step_scale}; it must lie in [0.01, 100].")
        if not 1 <= self.passes <= 10:
            raise CodecError(f"trellis: passes is {self.passes}; it must lie in [1, 10].")
        if not 1e-6 <= self.damping <= 100:
            raise CodecError(f"trellis: damping is {self.damping}; it must lie in [1e-6, 100].")

    def encode(self, x: Floats, cost: Cost, rest: Codec) -> Coded:
        """Array of any shape to symbols and the code of the step.

        Raises:
            CodecError: The cost's sensitivity is that of a matrix of another shape.
        """
        largest = max(float(x.max(initial=0.0)), -float(x.min(initial=0.0)))
        states = self.states if x.size >= _WORTH else 8
        if cost.sensitivity is None or largest == 0:
            code = self._code(math.sqrt(cost.price), largest)
            step = scale_value(code)
            price = cost.price_in(step)
            parts = [trellis_quantise(part, price, step=step, states=states) for part in split(x)]
        else:
            code, symbols = self._second_order(x, cost.rate_weight, cost.sensitivity, largest, states)
            parts = split(symbols)
        if not any(part.any() for part in parts):
            return Coded(tuple(Plane(part, KINDS[8]) for part in parts), varint(0))  # shortest, as nothing is left of x
        machine = varint(MAX_CODE + states // 8) if states > 8 else b""
        return Coded(tuple(Plane(part, KINDS[states]) for part in parts), machine + varint(code))

    def _code(self, error: float, largest: float) -> int:
        """The code of the step where a bit is worth a squared error of error²."""
        code = max(scale_code(_STEP_PER_RATE * self.step_scale * error), scale_code(largest / _MAX_SYMBOL) + 8)
        return min(max(code, MIN_CODE), MAX_CODE)

    def _second_order(
        self, x: Floats, price: float, of: Sensitivity, largest: float, states: int
    ) -> tuple[int, Symbols]:
        rows, columns = matrix_shape(x.shape)
        if not of.fits(rows, columns):
            shape = (len(of.g), of.width)
            raise CodecError(f"the sensitivity is that of a matrix {shape}; the weights are {x.shape}.")
        factors = [[inverse_factor(H, self.damping) for H in of.blocks(group)] for group in range(of.groups)]
        g = _tempered(of.g) if of.uneven_rows else of.g
        top = float(g.max())
        weight = 0.5 * np.maximum(g, _FLOOR * top) if top > 0 else np.full(rows, 0.5)
        # A squared error's cost in the middle of the rows and columns, on a log axis, sets the step for all of them.
        diagonals = [np.concatenate([np.diag(block) for block in blocks]) for blocks in factors]
        middle = np.mean([-2 * np.log(diagonal).mean() for diagonal in diagonals]) + np.log(weight).mean()
        code = self._code(
            _SECOND_ORDER_STEP * math.sqrt(price / math.exp(min(max(float(middle), -600.0), 600.0))), largest
        )
        step = scale_value(code)
        height = rows // len(factors)
        parts = [
            quantise_rows(part, factor, of_part, price / step**2, self.passes, step=step, states=states)
            for part, factor, of_part in zip(
                x.reshape(len(factors), height, columns), factors, weight.reshape(len(factors), height), strict=True
            )
        ]
        return code, (parts[0] if len(parts) == 1 else np.concatenate(parts)).reshape(x.shape)

    def layout(self, side: SideReader, shape: Shape, rest: Codec) -> list[Layout]:
        """One symbol per element."""
        states, _ = _machine_and_step(side)
        return [Layout(rows, columns, KINDS[states]) for rows, columns, _ in plane_layouts(shape)]

    def decode(self, planes: Iterator[Symbols], side: SideReader, shape: Shape, rest: Codec) -> Floats:
        """Levels times step."""
        (states, step), x, first = _machine_and_step(side), np.empty(math.prod(shape)), 0
        for rows, columns, _ in plane_layouts(shape):
            np.multiply(levels(next(planes), MACHINES[states]).ravel(), step, out=x[first : first + rows * columns])
            first += rows * columns
        return x.reshape(shape)


def _tempered(g: Floats) -> Floats:
    """g less uneven, of the same sum."""
    tempered = np.asarray(g**_TEMPER, np.float64)
    return tempered * (float(g.sum()) / max(float(tempered.sum()), np.finfo(np.float64).tiny))


def _machine_and_step(side: SideReader) -> tuple[int, float]:
    """How many states, and the step: a code above the largest one names the machine, and the step's code follows.

    Raises:
        FormatError: There is no such machine or step.
    """
    code, states = side.integer(MIN_CODE, MAX_CODE + max(MACHINES) // 8), 8
    if code > MAX_CODE:
        states = 8 * (code - MAX_CODE)
        if states not in MACHINES or states == 8:
            raise FormatError(f"The side information names a trellis of {states} states: damaged file.")
        code = side.integer(MIN_CODE, MAX_CODE)
    return states, scale_value(code)

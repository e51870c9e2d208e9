"""A scale for each row of a matrix, so that rows whose errors cost more get finer steps.

A token that is common costs more than one that is rare, by orders of magnitude (Zipf, 1935), and so do errors of its
row of an embedding. At high rate the error of least cost for so many bits has g·step² the same in all rows (reverse
water-filling with weights: Cover and Thomas, "Elements of Information Theory", ch. 10); one step for all of them takes
up to ½·log2(mean of g / geometric mean of g) bits more for each weight.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from evocompress.codecs.codec import Codec, Coded, Cost, Floats, Layout, Shape, SideReader, varint
from evocompress.codecs.entropy import Symbols
from evocompress.codecs.planes import from_planes, matrix_shape, plane_layouts, to_planes
from evocompress.codecs.scales import scale_values
from evocompress.codecs.sensitivity import Sensitivity

__all__ = ["RowScales"]

#: Codes of scales between two k: half an octave. Steps that are off by up to a quarter cost .014 bits a weight.
_CODES = 4
_MOST = 40  # half octaves to either side of the middle
_FLOOR = 1e-12  # of the largest g: rows that cost nothing stay within reach

Ints = npt.NDArray[np.int32]


@dataclasses.dataclass(frozen=True)
class RowScales:
    """Rows are divided by 2^(k/2) before the rest of the chain codes them, k from what errors of each row cost.

    Without a sensitivity of second order, or where it is so even that scales would cost more than they save, rows
    stay as they are, for one byte.
    """

    id: ClassVar[str] = "rowscales"
    number: ClassVar[int] = 27
    terminal: ClassVar[bool] = False
    second_order: ClassVar[bool] = True

    def encode(self, x: Floats, cost: Cost, rest: Codec) -> Coded:
        """Array of any shape to a number for each row, and the scaled array."""
        halves = _halves(cost.sensitivity, x.shape)
        if halves is None or cost.sensitivity is None:
            plain = rest.encode(x, cost)
            return Coded(plain.planes, varint(0) + plain.side)
        scales = _scales(halves)
        inner = dataclasses.replace(cost.sensitivity, g=cost.sensitivity.g * scales**2, uneven_rows=False)
        scaled = (x.reshape(matrix_shape(x.shape)) / scales[:, None]).reshape(x.shape)
        coded = rest.encode(scaled, Cost(cost.rate_weight, inner.scale, inner))
        return Coded((*to_planes(halves), *coded.planes), varint(1) + coded.side)

    def layout(self, side: SideReader, shape: Shape, rest: Codec) -> list[Layout]:
        """One symbol for each row if there are scales, then the rest."""
        of_scales = plane_layouts((matrix_shape(shape)[0],)) if side.integer(0, 1) else []
        return of_scales + rest.layout(side, shape)

    def decode(self, planes: Iterator[Symbols], side: SideReader, shape: Shape, rest: Codec) -> Floats:
        """The rest's rows times their scales."""
        if not side.integer(0, 1):
            return rest.decode_from(planes, side, shape)
        scales = _scales(from_planes(planes, (matrix_shape(shape)[0],)))
        rows = rest.decode_from(planes, side, shape)
        with np.errstate(over="ignore", under="ignore"):  # scales of a damaged file
            return (rows.reshape(matrix_shape(shape)) * scales[:, None]).reshape(shape)


def _scales(halves: Ints) -> Floats:
    """2^(k/2)."""
    return scale_values(_CODES * halves.astype(np.int64))


def _halves(sensitivity: Sensitivity | None, shape: Shape) -> Ints | None:
    """k of each row; None where one step for all is as good."""
    rows, columns = matrix_shape(shape)
    if sensitivity is None or not sensitivity.fits(rows, columns) or rows < 2 or not sensitivity.g.any():
        return None
    g = np.maximum(sensitivity.g, _FLOOR * sensitivity.g.max())
    octaves = np.log2(g)
    saved = 0.5 * (math.log2(float(g.mean())) - float(octaves.mean())) * rows * columns
    halves = np.clip(np.rint(octaves.mean() - octaves), -_MOST, _MOST).astype(np.int32)
    _, counts = np.unique(halves, return_counts=True)
    spent = float((counts * np.log2(rows / counts)).sum()) + 64
    return halves if saved > 2 * spent else None

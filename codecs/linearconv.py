"""LinearConv as a codec: some filters of a bank are kept, the others are linear combinations of them.

Kahatapitiya and Rodrigo ("Exploiting the Redundancy in Convolutional Filters for Parameter Reduction", WACV 2021) train
α·O primary filters and the coefficients of the rest. Here the primaries are chosen out of a trained bank: pivoted QR
takes at each step the filter that the ones already taken explain least (Businger and Golub, 1965).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import scipy  # its parts are imported when they are first used, which takes half a second

from evocompress.codecs.codec import Codec, Coded, Cost, Floats, Layout, Plane, Shape, SideReader, varint
from evocompress.codecs.entropy import Symbols
from evocompress.codecs.lowrank import LowRank, least_squares
from evocompress.codecs.planes import as_matrix, matrix_shape
from evocompress.errors import CodecError, FormatError

__all__ = ["LinearConv"]

_BITS_PER_NUMBER = 1.0  # what a weight or a coefficient is taken to cost when the number of primaries is chosen


def _norms(primaries: Floats) -> Floats:
    """Norms (1, n) of the primary filters, 1 for those that are zero: what an error in their coefficients costs."""
    norms = np.sqrt((primaries**2).sum(axis=1))[None]
    return np.where(norms > 0, norms, 1.0)


@dataclasses.dataclass(frozen=True)
class LinearConv:
    """W (O, K): up to ⌈alpha·O⌉ primary filters, and coefficients for the others, of low rank if `rank` is below 1.

    There are fewer primaries where λ says that they do not pay.
    """

    id: ClassVar[str] = "linearconv"
    number: ClassVar[int] = 20
    terminal: ClassVar[bool] = False

    alpha: float = 1.0
    rank: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise CodecError(f"linearconv: alpha is {self.alpha}; it must lie in (0, 1].")
        if not 0 < self.rank <= 1:
            raise CodecError(f"linearconv: rank is {self.rank}; it must lie in (0, 1] (1: coefficients of full rank).")

    def encode(self, x: Floats, cost: Cost, rest: Codec) -> Coded:
        """Array of any shape to a mask of the primaries, the primaries, and the coefficients of the others."""
        matrix = as_matrix(x)
        if matrix.size == 0:
            return Coded((), varint(0) + varint(0))
        rows, columns = matrix.shape
        triangle, pivots = scipy.linalg.qr(matrix.T, mode="r", pivoting=True, check_finite=False)
        count = self._count(np.asarray(triangle, np.float64), matrix.shape, cost)
        mask = np.zeros((1, rows), np.int32)
        mask[0, pivots[:count]] = 1
        chosen = mask[0] == 1
        coded_primaries = rest.encode(matrix[chosen], cost)
        primaries = rest.decode(coded_primaries, (count, columns))
        norms = _norms(primaries)
        coefficients = least_squares(primaries, matrix[~chosen]) * norms
        low = self.rank < 1 and count < rows
        coded = (LowRank(self.rank).encode(coefficients, cost, rest)) if low else rest.encode(coefficients, cost)
        side = varint(count) + varint(int(low)) + coded_primaries.side + coded.side
        return Coded((Plane(mask), *coded_primaries.planes, *coded.planes), side)

    def _count(self, triangle: Floats, shape: tuple[int, int], cost: Cost) -> int:
        """How many primaries pay: what is left unexplained, against what they and their coefficients cost.

        The rows of the triangular factor from the n-th on hold what n primaries leave unexplained.
        """
        rows, columns = shape
        counts = np.arange(1, min(math.ceil(self.alpha * rows), rows) + 1)
        left = np.append(np.cumsum((triangle**2).sum(axis=1)[::-1])[::-1], 0.0)
        numbers = counts * columns + (rows - counts) * counts
        error = left[np.minimum(counts, len(left) - 1)]
        return int(counts[np.argmin(error + cost.price * _BITS_PER_NUMBER * numbers)])

    def layout(self, side: SideReader, shape: Shape, rest: Codec) -> list[Layout]:
        """Mask, primaries, coefficients."""
        rows, columns = matrix_shape(shape)
        count, low = side.integer(0, rows), side.integer(0, 1)
        if count == 0:
            if rows * columns:
                raise FormatError("A LinearConv tensor has no primary filters: the file is damaged.")
            return []
        others = (rows - count, count)
        side.charge("products", (rows - count) * count * columns)
        layouts = [Layout(1, rows), *rest.layout(side, (count, columns))]
        of_others = Codec((LowRank(), *rest.stages)) if low else rest
        return layouts + of_others.layout(side, others)

    def decode(self, planes: Iterator[Symbols], side: SideReader, shape: Shape, rest: Codec) -> Floats:
        """Primaries in their places, combinations of them in the others."""
        rows, columns = matrix_shape(shape)
        count, low = side.integer(0, rows), side.integer(0, 1)
        if count == 0:
            return np.zeros(shape)
        chosen = next(planes)[0] != 0
        if int(chosen.sum()) != count:
            raise FormatError("A LinearConv mask marks another number of filters than it says: the file is damaged.")
        primaries = rest.decode_from(planes, side, (count, columns))
        others = (rows - count, count)
        coefficients = LowRank().decode(planes, side, others, rest) if low else rest.decode_from(planes, side, others)
        matrix = np.empty((rows, columns))
        matrix[chosen] = primaries
        matrix[~chosen] = (coefficients / _norms(primaries)) @ primaries
        return matrix.reshape(shape)

"""Low-rank factorisation of the weight matrix by its singular values (Eckart and Young, 1936), both factors coded."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import scipy  # its parts are imported when they are first used, which takes half a second

from evocompress.codecs.codec import Codec, Coded, Cost, Floats, Layout, Plane, Shape, SideReader, varint
from evocompress.codecs.entropy import Symbols
from evocompress.codecs.planes import as_matrix, matrix_shape
from evocompress.codecs.scales import scale_codes, scale_values
from evocompress.errors import CodecError

__all__ = ["LowRank", "least_squares"]

_BITS_PER_COEFFICIENT = 2.0  # what a factor's entry is taken to cost when the rank is chosen


def least_squares(basis: Floats, target: Floats) -> Floats:
    """The coefficients (n, r) of least norm that best make target (n, k) out of basis (r, k)."""
    if 0 in basis.shape or 0 in target.shape or not basis.any():
        return np.zeros((len(target), len(basis)))
    solution = scipy.linalg.lstsq(basis.T, target.T, cond=1e-10, check_finite=False, lapack_driver="gelsy")[0]
    return np.asarray(solution.T, np.float64)


@dataclasses.dataclass(frozen=True)
class LowRank:
    """W (O, K) ≈ A·B with at most `rank`·min(O, K) components, fewer where λ says that they do not pay.

    B's rows are coded at the scale of their singular values, so that one step suits both factors; A is then solved for
    anew against the B that the decoder will have.
    """

    id: ClassVar[str] = "lowrank"
    number: ClassVar[int] = 19
    terminal: ClassVar[bool] = False

    rank: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.rank <= 1:
            raise CodecError(f"lowrank: rank is {self.rank}; it is a share of the full rank and must lie in (0, 1].")

    def encode(self, x: Floats, cost: Cost, rest: Codec) -> Coded:
        """Array of any shape to scales, B and A."""
        matrix = as_matrix(x)
        if matrix.size == 0:
            return Coded((), varint(0))
        _, sizes, right = scipy.linalg.svd(matrix, full_matrices=False, check_finite=False)
        paying = sizes**2 > cost.price * _BITS_PER_COEFFICIENT * sum(matrix.shape)
        rank = min(int(paying.sum()), math.ceil(self.rank * len(sizes)))
        if rank == 0:
            return Coded((), varint(0))
        codes = scale_codes(sizes[:rank])
        scales = scale_values(codes)[:, None]
        coded_right = rest.encode(right[:rank] * scales, cost)
        basis = rest.decode(coded_right, (rank, matrix.shape[1])) / scales
        coded_left = rest.encode(least_squares(basis, matrix), cost)
        scale_plane = Plane(np.diff(codes, prepend=np.int32(0))[None])
        side = varint(rank) + coded_right.side + coded_left.side
        return Coded((scale_plane, *coded_right.planes, *coded_left.planes), side)

    def layout(self, side: SideReader, shape: Shape, rest: Codec) -> list[Layout]:
        """Scales, B, A; nothing at rank 0."""
        rows, columns = matrix_shape(shape)
        rank = side.integer(0, min(rows, columns))
        if rank == 0:
            return []
        side.charge("products", rows * rank * columns)
        return [Layout(1, rank), *rest.layout(side, (rank, columns)), *rest.layout(side, (rows, rank))]

    def decode(self, planes: Iterator[Symbols], side: SideReader, shape: Shape, rest: Codec) -> Floats:
        """A times B."""
        rows, columns = matrix_shape(shape)
        rank = side.integer(0, min(rows, columns))
        if rank == 0:
            return np.zeros(shape)
        scales = scale_values(np.cumsum(next(planes).ravel().astype(np.int64)))[:, None]
        basis = rest.decode_from(planes, side, (rank, columns)) / scales
        return (rest.decode_from(planes, side, (rows, rank)) @ basis).reshape(shape)

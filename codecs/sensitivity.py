"""Second-order sensitivity, what an error of a weight matrix costs the network: two small matrices, not one huge one.

The Hessian of a layer is taken as the Kronecker product of its inputs' second moment and its output gradients' (Martens
and Grosse, 2015), of which the latter's diagonal is kept.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from evocompress.errors import CodecError

__all__ = ["Sensitivity"]

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Sensitivity:
    """Error E (O, K) costs ½·Σ_o g_o·E_o H E_oᵀ.

    `H` (groups, K, K) is symmetric and positive semidefinite; O/groups successive rows share one (a convolution without
    groups has one). `g` (O,) is not negative.

    `uneven_rows` says that g differs between rows by orders of magnitude, as between an embedding's tokens, so that
    each row wants a step of its own (`row_scales.py`).

    Of a wide matrix all rows share one H, of which only blocks along the diagonal are kept: `columns` is K then, and
    `H` (K/B rounded up, B, B) has one block for each B successive columns, zero where the last one reaches beyond K.
    """

    H: Floats
    g: Floats
    columns: int = 0
    uneven_rows: bool = False

    def __post_init__(self) -> None:
        if self.H.ndim != 3 or self.H.shape[1] != self.H.shape[2] or self.g.ndim != 1:
            raise CodecError(f"Sensitivity of shapes {self.H.shape}, {self.g.shape}; must be (groups, K, K) and (O,).")
        if not len(self.H) or len(self.g) % self.groups:
            raise CodecError(f"Sensitivity: {len(self.g)} rows do not divide into {len(self.H)} groups.")
        if self.columns and not 0 <= self.H.shape[1] * len(self.H) - self.columns < self.H.shape[1]:
            raise CodecError(f"Sensitivity: H of shape {self.H.shape} has not the blocks of {self.columns} columns.")
        if not (np.isfinite(self.H).all() and np.isfinite(self.g).all() and (self.g >= 0).all()):
            raise CodecError("Sensitivity holds NaN, Inf or a negative g: the calibration network or data are broken.")

    @property
    def groups(self) -> int:
        """How many groups of rows there are, each with an H, or several blocks, of its own."""
        return 1 if self.columns else len(self.H)

    @property
    def width(self) -> int:
        """K."""
        return self.columns or self.H.shape[1]

    def blocks(self, group: int) -> list[Floats]:
        """The blocks along the diagonal of a group's H: one (K, K), or several (B, B) of which the last is cut off."""
        if not self.columns:
            return [self.H[group]]
        size = self.H.shape[1]
        ends = [min(size, self.columns - first) for first in range(0, self.columns, size)]
        return [block[:end, :end] for block, end in zip(self.H, ends, strict=True)]

    def squares(self, size: int) -> Floats:
        """Squares (groups, K/size, size, size) along the diagonal of H; zero across the blocks of a wide one.

        Args:
            size: Divides K.
        """
        count = self.width // size
        if not self.columns:
            return np.asarray(np.einsum("gipiq->gipq", self.H.reshape(self.groups, count, size, count, size)))
        squares, block = np.zeros((1, count, size, size)), self.H.shape[1]
        for place in range(count):
            first, last = place * size, (place + 1) * size
            for number in range(first // block, (last - 1) // block + 1):
                start, end = max(first, number * block), min(last, (number + 1) * block)
                here, there = slice(start - first, end - first), slice(start - number * block, end - number * block)
                squares[0, place, here, here] = self.H[number, there, there]
        return squares

    def fits(self, rows: int, columns: int) -> bool:
        """Whether it is one of a matrix of this shape."""
        return self.width == columns and len(self.g) == rows

    def distortion(self, error: Floats) -> float:
        """What an error (O, K) costs."""
        if self.columns:
            per_row, first = np.zeros(len(error)), 0
            for block in self.blocks(0):
                part = error[:, first : first + len(block)]
                per_row += np.einsum("ok,ok->o", part @ block, part)
                first += len(block)
            return 0.5 * float(self.g @ per_row)
        parts = error.reshape(len(self.H), -1, error.shape[1])
        per_row = np.einsum("gok,gok->go", parts @ self.H, parts).ravel()
        return 0.5 * float(self.g @ per_row)

    @property
    def scale(self) -> float:
        """The one number that it comes down to: what a squared error costs on average."""
        if self.columns:
            return 0.5 * float(self.g.mean() * np.einsum("bkk->bk", self.H).sum() / self.columns)
        diagonal = np.einsum("gkk->gk", self.H).mean(axis=1)
        return 0.5 * float((self.g.reshape(len(self.H), -1).mean(axis=1) * diagonal).mean())

    def scaled(self, factor: float) -> Sensitivity:
        """One in which every error costs `factor` times as much."""
        return dataclasses.replace(self, g=self.g * factor)

"""Orthogonal wavelet transform of the weight matrix, with PyWavelets (Mallat, 1989; Daubechies, 1988)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pywt

from evocompress.codecs.arrange import as_matrix, matrix_shape
from evocompress.codecs.codec import Codec, Coded, Cost, Floats, Layout, Shape, SideReader, varint
from evocompress.codecs.entropy import Symbols
from evocompress.errors import CodecError

__all__ = ["WAVELETS", "Wavelet"]

#: The orthogonal wavelets that a file can name; new ones go to the end.
WAVELETS = ("haar", "db2", "db3", "db4", "sym4", "sym8", "coif1", "coif2")
_MAX_LEVEL = 8
# With periodisation an orthogonal wavelet stays an orthonormal map, and coefficients are no more than weights (but for
# one when a length is odd).
_MODE = "periodization"


def _axes(shape: tuple[int, int]) -> tuple[int, ...]:
    """A row vector is transformed along its length only."""
    return (0, 1) if shape[0] > 1 else (1,)


def _forward(matrix: Floats, name: str, level: int) -> tuple[Floats, Any]:
    """Coefficients as one matrix, and the slices of its sub-bands; fewer levels where the matrix is too small."""
    axes = _axes(matrix.shape)  # type: ignore[arg-type]
    level = min(level, pywt.dwtn_max_level(matrix.shape, name, axes))
    bands = pywt.wavedecn(matrix, name, mode=_MODE, level=level, axes=axes)
    return pywt.coeffs_to_array(bands, axes=axes)


def _slices(shape: tuple[int, int], name: str, level: int) -> tuple[tuple[int, int], Any]:
    """Shape of the coefficient matrix and its slices: both depend on nothing but the shape."""
    array, slices = _forward(np.zeros(shape), name, level)
    return array.shape, slices


@dataclasses.dataclass(frozen=True)
class Wavelet:
    """Wavelet transform over the matrix (output channels by the rest), `level` times."""

    id: ClassVar[str] = "wavelet"
    number: ClassVar[int] = 18
    terminal: ClassVar[bool] = False

    name: str = "haar"
    level: int = 2

    def __post_init__(self) -> None:
        if self.name not in WAVELETS:
            raise CodecError(f"wavelet: name is {self.name!r}; it must be one of {', '.join(WAVELETS)}.")
        if not 1 <= self.level <= _MAX_LEVEL:
            raise CodecError(f"wavelet: level is {self.level}; it must lie in [1, {_MAX_LEVEL}].")

    def encode(self, x: Floats, cost: Cost, rest: Codec) -> Coded:
        """Transform; an orthonormal transform keeps squared errors."""
        side = varint(WAVELETS.index(self.name)) + varint(self.level)
        coded = rest.encode(_forward(as_matrix(x), self.name, self.level)[0] if x.size else x, cost)
        return Coded(coded.planes, side + coded.side)

    def layout(self, side: SideReader, shape: Shape, rest: Codec) -> list[Layout]:
        """Planes of the coefficient matrix."""
        return rest.layout(side, self._read(side, shape)[0])

    def decode(self, planes: Iterator[Symbols], side: SideReader, shape: Shape, rest: Codec) -> Floats:
        """Transform back, and drop what padding an odd length has left."""
        inner, slices, name = self._read(side, shape)
        array = rest.decode_from(planes, side, inner)
        if not slices:
            return array
        rows, columns = matrix_shape(shape)
        bands = pywt.array_to_coeffs(array, slices, output_format="wavedecn")
        matrix = pywt.waverecn(bands, name, mode=_MODE, axes=_axes((rows, columns)))
        return np.asarray(matrix[:rows, :columns]).reshape(shape)

    @staticmethod
    def _read(side: SideReader, shape: Shape) -> tuple[Shape, Any, str]:
        name = WAVELETS[side.integer(0, len(WAVELETS) - 1)]
        level = side.integer(1, _MAX_LEVEL)
        if 0 in shape:
            return shape, None, name
        return *_slices(matrix_shape(shape), name, level), name

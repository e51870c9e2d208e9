"""Orthogonal wavelet transform of the weight matrix, with PyWavelets (Mallat, 1989; Daubechies, 1988).

The library is imported where something is transformed: files without wavelets are read without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from evocompress.codecs.codec import Codec, Coded, Cost, Floats, Layout, Shape, SideReader, varint
from evocompress.codecs.entropy import Symbols
from evocompress.codecs.planes import as_matrix, matrix_shape
from evocompress.errors import CodecError

__all__ = ["WAVELETS", "Wavelet"]

#: The orthogonal wavelets that a file can name; new ones go to the end.
WAVELETS = ("haar", "db2", "db3", "db4", "sym4", "sym8", "coif1", "coif2")
_MAX_LEVEL = 8
_PER_LEVEL = 1 << 11  # numbers that take as long as what PyWavelets does for a level, however small the matrix
# With periodisation an orthogonal wavelet stays an orthonormal map, and coefficients are no more than weights (but for
# one when a length is odd).
_MODE = "periodization"


def _axes(shape: tuple[int, int]) -> tuple[int, ...]:
    """A row vector is transformed along its length only."""
    return (0, 1) if shape[0] > 1 else (1,)


def _lengths(shape: tuple[int, int], name: str, level: int) -> list[tuple[int, int]]:
    """Shapes of the approximation at levels 0, 1, …: halves, rounded up; fewer levels where the matrix is too small."""
    import pywt

    axes = _axes(shape)
    taps: int = pywt.Wavelet(name).dec_len  # pyright: ignore[reportAttributeAccessIssue]
    longest = min(shape[axis] for axis in axes) // (taps - 1)
    lengths = [shape]
    for _ in range(min(level, max(longest.bit_length() - 1, 0))):
        rows, columns = lengths[-1]
        lengths.append((rows if len(axes) == 1 else (rows + 1) // 2, (columns + 1) // 2))
    return lengths


def _bands(lengths: list[tuple[int, int]]) -> tuple[tuple[int, int], list[dict[str, tuple[slice, slice]]]]:
    """Shape of the coefficient matrix, and where in it the detail bands lie, coarsest first.

    A band that is the difference along an axis begins where everything coarser ends on that axis; one that is the mean
    begins at 0.
    """
    end, places = lengths[-1], []
    for rows, columns in reversed(lengths[1:]):
        low = (slice(0, rows), slice(0, columns))
        high = (slice(end[0], end[0] + rows), slice(end[1], end[1] + columns))
        if lengths[0][0] == 1:
            places.append({"d": (low[0], high[1])})
            end = (end[0], end[1] + columns)
        else:
            places.append({"ad": (low[0], high[1]), "da": (high[0], low[1]), "dd": high})
            end = (end[0] + rows, end[1] + columns)
    return end, places


def _forward(matrix: Floats, name: str, level: int) -> Floats:
    """All coefficients as one matrix."""
    import pywt

    lengths = _lengths(matrix.shape, name, level)
    end, places = _bands(lengths)
    axes = _axes(matrix.shape)
    coarse, *details = pywt.wavedecn(matrix, name, mode=_MODE, level=len(lengths) - 1, axes=axes)
    array = np.zeros(end)
    array[: lengths[-1][0], : lengths[-1][1]] = coarse
    for bands, slices in zip(details, places, strict=True):
        for key, place in slices.items():
            array[place] = bands[key]
    return array


def _backward(array: Floats, shape: tuple[int, int], name: str, level: int) -> Floats:
    """The inverse of `_forward`, without what padding an odd length has left."""
    import pywt

    lengths = _lengths(shape, name, level)
    coefficients: list[Any] = [array[: lengths[-1][0], : lengths[-1][1]]]
    coefficients += [{key: array[place] for key, place in slices.items()} for slices in _bands(lengths)[1]]
    matrix = np.asarray(pywt.waverecn(coefficients, name, mode=_MODE, axes=_axes(shape)), np.float64)
    return matrix[: shape[0], : shape[1]]


@dataclasses.dataclass(frozen=True)
class Wavelet:
    """Wavelet transform over the matrix (output channels by the rest), `level` times."""

    id: ClassVar[str] = "wavelet"
    number: ClassVar[int] = 18
    terminal: ClassVar[bool] = False

    name: str = "haar"
    level: int = 1

    def __post_init__(self) -> None:
        if self.name not in WAVELETS:
            raise CodecError(f"wavelet: name is {self.name!r}; it must be one of {', '.join(WAVELETS)}.")
        if not 1 <= self.level <= _MAX_LEVEL:
            raise CodecError(f"wavelet: level is {self.level}; it must lie in [1, {_MAX_LEVEL}].")

    def encode(self, x: Floats, cost: Cost, rest: Codec) -> Coded:
        """Transform; an orthonormal transform keeps squared errors."""
        side = varint(WAVELETS.index(self.name)) + varint(self.level)
        coded = rest.encode(_forward(as_matrix(x), self.name, self.level) if x.size else x, cost)
        return Coded(coded.planes, side + coded.side)

    def layout(self, side: SideReader, shape: Shape, rest: Codec) -> list[Layout]:
        """Planes of the coefficient matrix."""
        name, level = self._read(side)
        side.charge("numbers", _PER_LEVEL * level)
        return rest.layout(side, self._inner(shape, name, level))

    def decode(self, planes: Iterator[Symbols], side: SideReader, shape: Shape, rest: Codec) -> Floats:
        """Transform back, and drop what padding an odd length has left."""
        name, level = self._read(side)
        array = rest.decode_from(planes, side, self._inner(shape, name, level))
        return _backward(array, matrix_shape(shape), name, level).reshape(shape) if array.size else array

    @staticmethod
    def _read(side: SideReader) -> tuple[str, int]:
        return WAVELETS[side.integer(0, len(WAVELETS) - 1)], side.integer(1, _MAX_LEVEL)

    @staticmethod
    def _inner(shape: Shape, name: str, level: int) -> Shape:
        """Shape of the coefficients."""
        return shape if 0 in shape else _bands(_lengths(matrix_shape(shape), name, level))[0]

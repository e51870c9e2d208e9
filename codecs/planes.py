"""Planes, the matrices of symbols that an entropy coder sees: any array as one row per output channel, and back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from evocompress.codecs.codec import Floats, Layout, Plane, Shape
from evocompress.codecs.entropy import Symbols

__all__ = ["as_matrix", "from_planes", "kernel_places", "matrix_shape", "plane_layouts", "split", "to_planes"]

Number = TypeVar("Number", bound=np.generic)

_WIDTH = 256  # a vector longer than this is cut into rows


def matrix_shape(shape: Shape) -> tuple[int, int]:
    """(rows, columns) of an array seen as a matrix: output channels by everything else; a vector is one row.

    >>> matrix_shape((20, 1, 5, 5)), matrix_shape((10,)), matrix_shape(())
    ((20, 25), (1, 10), (1, 1))
    """
    if len(shape) < 2:
        return 1, math.prod(shape)
    return shape[0], math.prod(shape[1:])


def kernel_places(shape: Shape) -> int:
    """How many places the kernels of an array seen as a convolution's have: a coder's period; 1 without kernels.

    >>> kernel_places((16, 3, 3, 3)), kernel_places((10, 64)), kernel_places(())
    (9, 1, 1)
    """
    return math.prod(shape[2:])


def as_matrix(x: Floats) -> Floats:
    """An array as a matrix of `matrix_shape`."""
    return x.reshape(matrix_shape(x.shape))


def plane_layouts(shape: Shape) -> list[Layout]:
    """The planes that hold one symbol per element: one, or two for a long vector whose last row is not full."""
    rows, columns = matrix_shape(shape)
    if rows * columns == 0:
        return []
    if rows == 1 and columns > _WIDTH:
        full, tail = divmod(columns, _WIDTH)
        return [Layout(full, _WIDTH)] + ([Layout(1, tail)] if tail else [])
    return [Layout(rows, columns)]


def split(x: npt.NDArray[Number]) -> list[npt.NDArray[Number]]:
    """An array of any shape as the matrices that its planes hold."""
    flat, parts, start = x.ravel(), [], 0
    for rows, columns, _ in plane_layouts(x.shape):
        parts.append(flat[start : start + rows * columns].reshape(rows, columns))
        start += rows * columns
    return parts


def to_planes(symbols: npt.NDArray[np.integer]) -> tuple[Plane, ...]:
    """An integer array of any shape as planes."""
    return tuple(Plane(part) for part in split(symbols.astype(np.int32, copy=False)))


def from_planes(planes: Iterator[Symbols], shape: Shape) -> Symbols:
    """The inverse of `to_planes`: takes as many planes as the shape has."""
    parts = [next(planes).ravel() for _ in plane_layouts(shape)]
    if len(parts) == 1:  # not copied
        return parts[0].reshape(shape)
    return (np.concatenate(parts) if parts else np.zeros(0, np.int32)).reshape(shape)

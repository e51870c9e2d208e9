"""Discrete cosine transform (Ahmed, Natarajan and Rao, 1974) over a kernel's spatial axes or over the whole matrix."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import ClassVar, Literal, get_args

import numpy as np
import scipy  # its parts are imported when they are first used, which takes half a second

from evocompress.codecs.codec import Codec, Coded, Cost, Floats, Layout, Shape, SideReader, varint
from evocompress.codecs.entropy import Symbols
from evocompress.codecs.planes import as_matrix, matrix_shape
from evocompress.errors import CodecError

__all__ = ["Dct", "transform_numbers"]

Axes = Literal["spatial", "matrix"]
_LONG = 1 << 16


def _transform(x: Floats, axes: Axes, *, inverse: bool) -> Floats:
    """Orthonormal DCT-II, or its inverse in place of x; an array without the axes comes back as it is."""
    function = scipy.fft.idctn if inverse else scipy.fft.dctn
    if x.size == 0:
        return x
    if axes == "matrix":
        return np.asarray(function(as_matrix(x), norm="ortho", overwrite_x=inverse)).reshape(x.shape)
    spatial = tuple(range(2, x.ndim))
    return np.asarray(function(x, axes=spatial, norm="ortho", overwrite_x=inverse)) if spatial else x


def transform_numbers(shape: Shape) -> int:
    """What a cosine transform of such an array counts for: an axis that is long may have a length of large factors.

    >>> transform_numbers((4, 5)), transform_numbers((1_000_003,))
    (20, 4000012)
    """
    return math.prod(shape) * (4 if max(matrix_shape(shape)) > _LONG else 1)


@dataclasses.dataclass(frozen=True)
class Dct:
    """Orthonormal DCT-II; `axes` is "spatial" (all but the first two) or "matrix" (output channels by the rest)."""

    id: ClassVar[str] = "dct"
    number: ClassVar[int] = 16
    terminal: ClassVar[bool] = False

    axes: Axes = "spatial"

    def __post_init__(self) -> None:
        if self.axes not in get_args(Axes):
            raise CodecError(f"dct: axes is {self.axes!r}; it must be one of {', '.join(get_args(Axes))}.")

    def encode(self, x: Floats, cost: Cost, rest: Codec) -> Coded:
        """Transform; an orthonormal transform keeps squared errors, so the cost goes on unchanged."""
        coded = rest.encode(_transform(x, self.axes, inverse=False), cost)
        return Coded(coded.planes, varint(get_args(Axes).index(self.axes)) + coded.side)

    def layout(self, side: SideReader, shape: Shape, rest: Codec) -> list[Layout]:
        """Coefficients lie as the weights did."""
        side.integer(0, 1)
        side.charge("numbers", transform_numbers(shape))
        return rest.layout(side, shape)

    def decode(self, planes: Iterator[Symbols], side: SideReader, shape: Shape, rest: Codec) -> Floats:
        """Transform back."""
        axes: Axes = get_args(Axes)[side.integer(0, 1)]
        return _transform(rest.decode_from(planes, side, shape), axes, inverse=True)

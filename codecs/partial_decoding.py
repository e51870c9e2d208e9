"""Decoding of large tensors some rows at a time: a quantiser alone in its chain needs no more than their symbols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from evocompress.codecs.codec import Codec, Shape, SideReader
from evocompress.codecs.dtypes import dtype_named, to_dtype
from evocompress.codecs.entropy import Symbols
from evocompress.codecs.planes import plane_layouts
from evocompress.codecs.registry import LOSSLESS
from evocompress.errors import FormatError

__all__ = ["decode_in_parts"]

_PART = 1 << 20  # weights
#: Stages that make of each row of their last plane a row of weights.
_BY_ROWS = ("deadzone", "trellis", "codebook")


def decode_in_parts(codec: Codec, planes: Sequence[Symbols], side: bytes, shape: Shape, dtype: str) -> npt.NDArray[Any]:
    """A tensor of this shape and dtype from all of its planes and side information.

    The same as `to_dtype` of what the codec decodes, whose float64 are never there for all of a large tensor.

    Raises:
        FormatError: It decodes to NaN, or to numbers that the dtype does not have.
    """
    if not _by_rows(codec, shape):
        return _decode(codec, planes, side, shape, dtype)
    array = np.empty(shape, dtype_named(dtype))
    # Of two rows at least: one alone would be a long vector, which lies in its planes in another way.
    count = min(-(-array.size // _PART), shape[0] // 2)
    for part, symbols in zip(np.array_split(array, count), np.array_split(planes[-1], count), strict=True):
        part[...] = _decode(codec, [*planes[:-1], symbols], side, part.shape, dtype)
    return array


def _by_rows(codec: Codec, shape: Shape) -> bool:
    """Whether all symbols are in one plane, whose rows are those of the tensor, and more of them than one part."""
    alone = len(codec.stages) == 1 and codec.stages[0].id in _BY_ROWS
    return alone and len(shape) > 1 and shape[0] > 1 and sum(n * k for n, k, _ in plane_layouts(shape)) > _PART


def _decode(codec: Codec, planes: Sequence[Symbols], side: bytes, shape: Shape, dtype: str) -> npt.NDArray[Any]:
    reader = SideReader(side)
    x = codec.decode_from(iter(planes), reader, shape)
    if codec != LOSSLESS and np.isnan(x).any():
        raise FormatError("A tensor decodes to NaN: the file is damaged.")
    return to_dtype(x, dtype, shape)

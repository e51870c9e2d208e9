"""Lossless coding of tensors that must not change: integers, step counters, masks, or what a recipe says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from evocompress.codecs.codec import Codec, Coded, Cost, Layout, Plane, Shape, SideReader, varint
from evocompress.codecs.entropy import Symbols
from evocompress.codecs.planes import from_planes, plane_layouts, to_planes

__all__ = ["Lossless"]

_SMALL = 1 << 30
_WIDEST = 16  # bytes of an element: complex128


@dataclasses.dataclass(frozen=True)
class Lossless:
    """Small integers as symbols; everything else byte by byte, the bytes of one significance together; terminal.

    Unlike other stages it takes the array in its own dtype, and decodes to int64, or to bytes uint8 (…, itemsize) in
    little-endian order that the container views as the tensor's dtype.
    """

    id: ClassVar[str] = "lossless"
    number: ClassVar[int] = 3
    terminal: ClassVar[bool] = True
    alone: ClassVar[bool] = True

    def encode(self, x: npt.NDArray[Any], cost: Cost, rest: Codec) -> Coded:
        """Array of any dtype to planes; `cost` has no say."""
        if x.dtype.kind in "biu" and (x.size == 0 or (int(x.min()) > -_SMALL and int(x.max()) < _SMALL)):
            return Coded(to_planes(x.astype(np.int64)), varint(0))
        itemsize = x.dtype.itemsize
        little_endian = np.ascontiguousarray(x).astype(x.dtype.newbyteorder("<"), copy=False)
        raw = np.frombuffer(little_endian.tobytes(), np.uint8).reshape(-1, itemsize).T
        planes = (Plane(raw.astype(np.int32), "bytes"),) if x.size else ()
        return Coded(planes, varint(itemsize))

    def layout(self, side: SideReader, shape: Shape, rest: Codec) -> list[Layout]:
        """One symbol per integer, or one row per byte of an element."""
        itemsize = side.integer(0, _WIDEST)
        if itemsize == 0:
            return plane_layouts(shape)
        size = int(np.prod(shape, dtype=np.int64))
        return [Layout(itemsize, size, "bytes")] if size else []

    def decode(self, planes: Iterator[Symbols], side: SideReader, shape: Shape, rest: Codec) -> npt.NDArray[Any]:
        """Int64 of this shape, or uint8 (…, itemsize)."""
        itemsize = side.integer(0, _WIDEST)
        if itemsize == 0:
            return from_planes(planes, shape).astype(np.int64)
        if 0 in shape:
            return np.zeros((*shape, itemsize), np.uint8)
        return np.ascontiguousarray(next(planes).astype(np.uint8).T).reshape(*shape, itemsize)

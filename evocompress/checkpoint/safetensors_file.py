"""Safetensors files, written tensor by tensor: no more than one of them need be in memory.

The format (Hugging Face, 2022): the length of a JSON header (8 bytes, little-endian), the header, which says where each
tensor lies, and the tensors' bytes, little-endian, without gaps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from evocompress.codecs.dtypes import FOREIGN, dtype_named, name_of
from evocompress.errors import CodecError
from evocompress.support.atomic_files import replacing

__all__ = ["Slot", "write_tensors"]

_NAMES = {
    "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "uint16": "U16", "uint32": "U32", "uint64": "U64",
    "float8_e4m3fn": "F8_E4M3", "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2": "F8_E5M2",
    "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0", "float4_e2m1fn_x2": "F4", "complex64": "C64",
}  # fmt: skip
_PAIRS = "float4_e2m1fn_x2"
_ALIGNMENT = 8
#: Which library's tensors these are: transformers refuses files that do not say so.
_METADATA = {"format": "pt"}


class Slot(NamedTuple):
    """A tensor of a file to be: name, dtype (its numpy name) and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """What it takes."""
        return math.prod(self.shape) * dtype_named(self.dtype).itemsize


def write_tensors(path: Path, slots: Sequence[Slot], arrays: Iterable[tuple[str, npt.NDArray[Any]]]) -> None:
    """Write a safetensors file whole or not at all: the tensors that `slots` announce, in any order.

    Raises:
        CodecError: Arrays that are not those of the slots, or a name that the header needs for itself.
    """
    header, places = _header(slots)
    announced = {slot.name: slot for slot in slots}
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(header)
        for name, array in arrays:
            slot = announced.pop(name, None)
            if slot is None or (slot.dtype, slot.shape) != (name_of(array.dtype), array.shape):
                raise CodecError(f"Tensor {name!r}, {array.dtype} {array.shape}, is not among those announced: {slot}.")
            file.seek(len(header) + places[name])
            little_endian = np.ascontiguousarray(array)
            if slot.dtype not in FOREIGN:
                little_endian = little_endian.astype(array.dtype.newbyteorder("<"), copy=False)
            file.write(little_endian.reshape(-1).view(np.uint8).data)
            del array, little_endian  # they are not needed while the next one is made
        if announced:
            raise CodecError(f"There is nothing for the tensors {', '.join(announced)}.")


def _header(slots: Sequence[Slot]) -> tuple[bytes, dict[str, int]]:
    """The file's beginning, and where each tensor starts after it: wide dtypes first, so that all are aligned."""
    entries: dict[str, Any] = {"__metadata__": _METADATA}
    places: dict[str, int] = {}
    end = 0
    for slot in sorted(slots, key=lambda slot: -dtype_named(slot.dtype).itemsize):
        if slot.name in entries:
            raise CodecError(f"Tensor {slot.name!r}: safetensors cannot hold this name (again); rename it.")
        if slot.dtype not in _NAMES:
            raise CodecError(
                f"Tensor {slot.name!r} has dtype {slot.dtype}, which safetensors files do not have; "
                "evocompress.unpack gives it in Python."
            )
        places[slot.name], begin, end = end, end, end + slot.nbytes
        shape = list(slot.shape)
        if slot.dtype == _PAIRS:  # the file counts the floats, of which each byte has two
            if not shape:
                raise CodecError(f"Tensor {slot.name!r} of {_PAIRS} has no dimension; give it one for safetensors.")
            shape[-1] *= 2
        entries[slot.name] = {"dtype": _NAMES[slot.dtype], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text, places

"""The dtypes that a file can hold, by number (their place in `DTYPES`); new ones go to the end."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from evocompress.errors import CodecError, FormatError

__all__ = ["DTYPES", "FOREIGN", "dtype_name", "dtype_named", "is_float", "itemsize", "name_of", "to_dtype"]

DTYPES = (
    "float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool", "uint16",
    "uint32", "uint64", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
    "float4_e2m1fn_x2", "complex64", "complex128", "complex32", "uint1", "uint2", "uint3", "uint4", "uint5", "uint6",
    "uint7", "int1", "int2", "int3", "int4", "int5", "int6", "int7",
)  # fmt: skip
_FLOATS = ("float32", "float16", "bfloat16", "float64")
_OF_ML_DTYPES = ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")
#: Dtypes of torch that are one byte for each element, and that neither numpy nor ml_dtypes has: here their bits only.
_BYTES = ("float4_e2m1fn_x2", *(f"{sign}int{bits}" for sign in ("u", "") for bits in range(1, 8)))
#: Dtypes that numpy itself does not have.
FOREIGN = frozenset({*_OF_ML_DTYPES, *_BYTES, "complex32"})


def dtype_named(name: str) -> np.dtype[Any]:
    """The numpy dtype of this name; those of small floats come from ml_dtypes, which is imported only then.

    What no library has is a structure of one field, which is called like the dtype: a byte of integers of fewer bits
    or of two packed floats, and the two halves of a complex32.

    Raises:
        CodecError: The format has no such dtype.

    >>> dtype_named("float32"), name_of(dtype_named("uint4"))
    (dtype('float32'), 'uint4')
    """
    if name not in DTYPES:
        raise CodecError(f"dtype is {name}; a file holds {', '.join(DTYPES)}.")
    if name in _BYTES:
        return np.dtype([(name, np.uint8)])
    if name == "complex32":
        return np.dtype([(name, np.float16, (2,))])
    if name in _OF_ML_DTYPES:
        import ml_dtypes

        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return dtype
    return np.dtype(name)


@functools.cache
def itemsize(name: str) -> int:
    """Bytes of an element of this dtype."""
    return dtype_named(name).itemsize


def name_of(dtype: np.dtype[Any]) -> str:
    """The name of a numpy dtype: the inverse of `dtype_named`; of a dtype that no file holds, what numpy calls it."""
    return dtype.names[0] if dtype.names is not None and len(dtype.names) == 1 else dtype.name


def dtype_name(dtype: Any) -> str:
    """The name of a dtype of torch, numpy or ml_dtypes, or of one that is written as text."""
    name = str(dtype).removeprefix("torch.")
    return name if name in DTYPES or str(dtype).startswith("torch.") else name_of(np.dtype(dtype))


def is_float(name: str) -> bool:
    """Whether tensors of this dtype are lossily coded unless a recipe says otherwise.

    Floats of 8 bits and fewer are not: whoever made them has quantised the network already.
    """
    return name in _FLOATS


def to_dtype(x: npt.NDArray[Any], name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """A decoded array (floats, int64, or uint8 with the bytes of each element) in its tensor's dtype.

    Floats beyond what the dtype holds become its largest value, so that rounding never makes an infinity.

    Raises:
        FormatError: Integers or bytes that the dtype cannot hold.
    """
    dtype = dtype_named(name)
    if x.dtype == np.uint8 and x.shape == (*shape, dtype.itemsize):
        little = dtype if name in _OF_ML_DTYPES else dtype.newbyteorder("<")
        return x.reshape(-1).view(little).reshape(shape).astype(dtype, copy=False)
    if x.dtype.kind == "f" and is_float(name):
        largest = float(_largest(name))
        array: npt.NDArray[Any] = np.empty(x.shape, dtype)
        np.clip(x, -largest, largest, out=array, casting="unsafe")  # no float64 of all of x in between
        return array
    low, high = _range(name, dtype)
    if x.dtype != np.int64 or (x.size and (x.min() < low or x.max() > high)):
        raise FormatError(f"The file holds numbers that no {name} can be: it is damaged.")
    return x.astype(dtype)


def _range(name: str, dtype: np.dtype[Any]) -> tuple[int, int]:
    """The least and the largest of integers; of what is coded in another way an interval without any."""
    if name == "bool":
        return 0, 1
    if dtype.kind not in "iu":
        return 0, -1
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def _largest(name: str) -> float:
    if name == "bfloat16":
        return float.fromhex("0x1.fep+127")
    return float(np.finfo(name).max)

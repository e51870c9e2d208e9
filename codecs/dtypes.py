"""The dtypes that a file can hold, by number (their place in `DTYPES`); new ones go to the end."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from evocompress.errors import CodecError, FormatError

__all__ = ["DTYPES", "dtype_named", "is_float", "to_dtype"]

DTYPES = (
    "float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool", "uint16",
    "uint32", "uint64",
)  # fmt: skip


def dtype_named(name: str) -> np.dtype[Any]:
    """The numpy dtype of this name; bfloat16 comes from ml_dtypes, which is imported only then.

    Raises:
        CodecError: The format has no such dtype.
    """
    if name not in DTYPES:
        raise CodecError(f"dtype is {name}; a file holds {', '.join(DTYPES)}.")
    if name == "bfloat16":
        import ml_dtypes

        dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return dtype
    return np.dtype(name)


def is_float(name: str) -> bool:
    """Whether tensors of this dtype are lossily coded unless a recipe says otherwise."""
    return "float" in name


def to_dtype(x: npt.NDArray[Any], name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """A decoded array (floats, int64, or uint8 with the bytes of each element) in its tensor's dtype.

    Floats beyond what the dtype holds become its largest value, so that rounding never makes an infinity.

    Raises:
        FormatError: Integers or bytes that the dtype cannot hold.
    """
    dtype = dtype_named(name)
    if x.dtype == np.uint8 and x.shape == (*shape, dtype.itemsize):
        little = dtype if name == "bfloat16" else dtype.newbyteorder("<")
        return x.view(little).reshape(shape).astype(dtype, copy=False)
    if x.dtype.kind == "f" and is_float(name):
        largest = float(_largest(name))
        array: npt.NDArray[Any] = np.clip(x, -largest, largest).astype(dtype)
        return array
    low, high = (0, 1) if name == "bool" else (0, -1) if is_float(name) else _range(dtype)
    if x.dtype != np.int64 or (x.size and (x.min() < low or x.max() > high)):
        raise FormatError(f"The file holds numbers that no {name} can be: it is damaged.")
    return x.astype(dtype)


def _range(dtype: np.dtype[Any]) -> tuple[int, int]:
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def _largest(name: str) -> float:
    if name == "bfloat16":
        return float.fromhex("0x1.fep+127")
    return float(np.finfo(name).max)

"""Read arrays out of a pickle without running anything that it asks for.

A pickle may name any function and have it called. Here a name is looked up in one small table of inert stand-ins that
record their arguments; the arrays are made from the records afterwards, by this module. Everything else is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["load_plain"]

_DTYPE = re.compile(r"[|<>=]?[biuf][1248]")


class _Dtype:
    """Stands for numpy.dtype: its code, and the byte order that the state gives."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        self.code = code.decode("ascii", "replace") if isinstance(code, bytes) else str(code)
        self.order = ""

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("ascii", "replace") if isinstance(state[1], bytes) else str(state[1])
        self.order = order if order in ("<", ">") else ""

    def real(self) -> np.dtype[Any]:
        if not _DTYPE.fullmatch(self.code):
            raise pickle.UnpicklingError(f"array of dtype {self.code!r}: only plain numbers are read")
        return np.dtype(self.order + self.code.lstrip("|<>=") if self.order else self.code)


class _Array:
    """Stands for numpy.ndarray while the pickle is read."""

    shape: Any = (0,)
    dtype: Any = None
    fortran: Any = False
    data: Any = b""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.fortran, self.data = state

    def real(self) -> npt.NDArray[Any]:
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data
        whole = isinstance(self.shape, tuple) and all(isinstance(n, int) and n >= 0 for n in self.shape)
        if not isinstance(self.dtype, _Dtype) or not isinstance(data, bytes | bytearray) or not whole:
            raise pickle.UnpicklingError("an array without its shape, dtype and bytes")
        dtype = self.dtype.real()
        if math.prod(self.shape) * dtype.itemsize != len(data):
            raise pickle.UnpicklingError(f"array of shape {self.shape} and {dtype} with {len(data)} bytes")
        return np.frombuffer(data, dtype).reshape(self.shape, order="F" if self.fortran else "C")


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _encode(text: Any, _: Any = None) -> bytes:
    return str(text).encode("latin1")


class _Call:
    """A function that a pickle may call but not change: setting state is what a pickle could do to a bare function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it sets the state of a function, which is refused")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _Call(_reconstruct),
    ("numpy._core.multiarray", "_reconstruct"): _Call(_reconstruct),
    ("numpy.core.numeric", "_frombuffer"): _Call(_frombuffer),
    ("numpy._core.numeric", "_frombuffer"): _Call(_frombuffer),
    ("_codecs", "encode"): _Call(_encode),  # how Python 3 writes bytes in protocol 2
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """A stand-in, or a refusal."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is refused")
        return _ALLOWED[module, name]


def load_plain(data: bytes) -> Any:
    """The object in a pickle of built-in containers, scalars and numeric numpy arrays, of Python 2 or 3.

    Raises pickle.UnpicklingError for everything else, whatever the damage or the malice.
    """
    try:
        return _realise(_Unpickler(io.BytesIO(data), encoding="bytes").load())
    except pickle.UnpicklingError:
        raise
    except Exception as failure:  # a damaged pickle raises nearly anything
        raise pickle.UnpicklingError(f"{type(failure).__name__}: {failure}") from failure


def _realise(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.real()
    if isinstance(value, dict):
        return {key: _realise(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_realise(item) for item in value)
    return value

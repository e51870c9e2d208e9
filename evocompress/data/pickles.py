"""Read arrays out of a pickle without running anything that it asks for.

A pickle may name any function and have it called. Here a name is looked up in one small table of inert stand-ins that
record their arguments; the arrays are made from the records afterwards, by this module. Everything else is refused.

A pickle may also ask for much in few bytes. So it is read by the unpickler that is written in Python, whose memo is no
array as long as a pickle likes, text is made bytes at most once for each byte of the pickle, and what stands in many
places is made once.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

__all__ = ["load_plain"]

_SHORT = 32
_DTYPE = re.compile(r"[|<>=]?[biuf][1248]")


def _text(value: Any) -> str:
    """A short text; of anything else no text is made, which could be long."""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) and len(value) < _SHORT else value
    if not isinstance(text, str) or len(text) >= _SHORT:
        raise pickle.UnpicklingError("a dtype that is no short text")
    return text


class _Dtype:
    """Stands for numpy.dtype: its code, and the byte order that the state gives."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        self.code = _text(code)
        self.order = ""

    def __setstate__(self, state: Any) -> None:
        order = _text(state[1])
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

    def real(self, encode: Callable[[Any], bytes]) -> npt.NDArray[Any]:
        """The array; `encode` makes bytes of text."""
        data = encode(self.data) if isinstance(self.data, str) else self.data
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
}


class _Unpickler(pickle._Unpickler):
    """Written in Python: the compiled one makes its memo as long as the largest number that a pickle names."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, data: bytes) -> None:
        self._file, self._size, self._room = io.BytesIO(data), len(data), len(data)
        super().__init__(self._file, encoding="bytes")

    def encode(self, text: Any, _: Any = None) -> bytes:
        """Text as bytes; all texts together no more than the pickle has."""
        if not isinstance(text, str) or len(text) > self._room:
            raise pickle.UnpicklingError("it makes bytes of no text, or of more than it holds")
        self._room -= len(text)
        return text.encode("latin1")

    def load_bytearray8(self) -> None:
        """An array of bytes, which are there before room is made for them."""
        machine: Any = self  # whose reading and stack the standard library's stubs do not know
        size = int.from_bytes(machine.read(8), "little")
        if size > self._size:
            raise pickle.UnpicklingError("an array of more bytes than there are")
        machine.append(bytearray(machine.read(size)))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in, or a refusal."""
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in protocol 2
            return _Call(self.encode)
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is refused")
        return _ALLOWED[module, name]


def load_plain(data: bytes) -> Any:
    """The object in a pickle of built-in containers, scalars and numeric numpy arrays, of Python 2 or 3.

    Raises pickle.UnpicklingError for everything else, whatever the damage or the malice.
    """
    try:
        unpickler = _Unpickler(data)
        return _Realised(unpickler.encode).of(unpickler.load())
    except pickle.UnpicklingError:
        raise
    except Exception as failure:  # a damaged pickle raises nearly anything
        raise pickle.UnpicklingError(f"{type(failure).__name__}: {failure}") from failure


class _Realised:
    """Arrays in the places of their stand-ins; each object is made once, however often it is referred to."""

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        self._encode = encode
        self._made: dict[int, tuple[Any, Any]] = {}  # with what it is made of, so that no other gets its number

    def of(self, value: Any) -> Any:
        """An object that a pickle held."""
        if not isinstance(value, _Array | dict | list | tuple):
            return value
        if id(value) not in self._made:
            self._made[id(value)] = (value, self._anew(value))
        return self._made[id(value)][1]

    def _anew(self, value: Any) -> Any:
        if isinstance(value, _Array):
            return value.real(self._encode)
        if isinstance(value, dict):
            return {key: self.of(item) for key, item in value.items()}
        return type(value)(map(self.of, value))

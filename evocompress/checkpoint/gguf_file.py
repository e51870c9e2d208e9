"""GGUF files, as llama.cpp has them: floats and integers as they are, quantised tensors dequantised.

Needs the library gguf, whose own functions dequantise. Nothing in the file is run.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from evocompress.errors import FormatError
from evocompress.support.optional_libraries import needs_extra
from evocompress.support.wording import counted, quoted

__all__ = ["is_gguf", "read_gguf"]

_MAGIC = b"GGUF"
_PLAIN = ("F32", "F16", "F64", "I8", "I16", "I32", "I64")


def is_gguf(head: bytes) -> bool:
    """Whether a file begins as these do."""
    return head.startswith(_MAGIC)


def read_gguf(path: str | os.PathLike[str]) -> tuple[dict[str, npt.NDArray[Any]], str]:
    """The tensors of a GGUF file by name, in torch's order of dimensions, and what was done to them, or "".

    Tensors of float32, float16, float64 and integers are mapped: each is read when it is used. Those of blocks of a few
    bits are there as float32, with the errors that their quantisation has made.

    Raises:
        FormatError: It is damaged, of a version or with a quantisation that the library does not know, or big-endian.
        EvocompressError: The library gguf is not installed.
    """
    with needs_extra("gguf"):
        import gguf
    name = os.fspath(path)
    try:
        reader = gguf.GGUFReader(name, "c")  # copy on write: torch shares memory only with what may be written
    except MemoryError:
        raise
    except Exception as error:  # the library raises any kind on damaged files
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise FormatError(f"{name} is damaged, or no GGUF file that the library gguf reads: {reason}.") from None
    if reader.byte_order != "I":
        raise FormatError(f"{name} is a GGUF file for machines of the other byte order, which is not read.")
    arrays: dict[str, npt.NDArray[Any]] = {}
    quantised: Counter[str] = Counter()
    for tensor in reader.tensors:
        kind = tensor.tensor_type.name
        if kind not in (*_PLAIN, "BF16"):
            quantised[kind] += 1
        arrays[str(tensor.name)] = _array(name, tensor, kind)
    if not arrays:
        raise FormatError(f"{name} is a GGUF file without tensors, such as one of a vocabulary alone.")
    return arrays, _note(quantised)


def _array(path: str, tensor: Any, kind: str) -> npt.NDArray[Any]:
    import gguf

    if kind in _PLAIN:
        return np.asarray(tensor.data)
    if kind == "BF16":
        import ml_dtypes

        bits: npt.NDArray[Any] = tensor.data.view(ml_dtypes.bfloat16)
        return np.asarray(bits)
    try:
        return np.asarray(gguf.quants.dequantize(tensor.data, tensor.tensor_type), np.float32)
    except NotImplementedError:
        raise FormatError(
            f"{path}: tensor {quoted(str(tensor.name))} is quantised as {kind}, which the library gguf cannot undo."
        ) from None


def _note(quantised: Counter[str]) -> str:
    if not quantised:
        return ""
    kinds = ", ".join(sorted(quantised))
    return (
        f"{counted(sum(quantised.values()), 'tensor')} had been quantised ({kinds}), and went in as float32 with the "
        "errors of that; give the original where you have it"
    )

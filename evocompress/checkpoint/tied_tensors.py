"""Tied tensors: those that are there more than once, of which a file stores one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from evocompress.codecs.dtypes import name_of

__all__ = ["tied_tensors"]

_FEW = 64  # up to so many elements a tensor takes fewer bytes than what would say that it is tied
_HEAD = 64


def tied_tensors(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, str]:
    """Names of the arrays that equal an earlier one in dtype, shape and every bit, each with the first such name.

    Arrays of up to 64 elements are left alone. Tensors that share storage are equal, so they are found as well.

    >>> tied_tensors({"embedding": np.ones(100), "bias": np.zeros(100), "head": np.ones(100)})
    {'head': 'embedding'}
    """
    candidates: dict[tuple[object, ...], list[str]] = {}
    for name, array in arrays.items():
        if array.size > _FEW:
            head = array.flat[:_HEAD].tobytes()  # tells nearly all apart, at no cost
            candidates.setdefault((name_of(array.dtype), array.shape, head), []).append(name)
    tied: dict[str, str] = {}
    for names in candidates.values():
        first: dict[bytes, str] = {}
        for name in names if len(names) > 1 else ():
            source = first.setdefault(_digest(arrays[name]), name)
            if source != name:
                tied[name] = source
    return tied


def _digest(array: npt.NDArray[Any]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, digest_size=32).digest()

"""Size of a state dict in float32, and in its own dtypes: what files are compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from evocompress.codecs.dtypes import dtype_name, is_float

__all__ = ["float32_bytes", "own_bytes"]


def float32_bytes(state: Mapping[str, Any]) -> int:
    """What a state dict takes uncompressed, in bytes: floats of 16 bits or more as float32, all else as it is.

    Args:
        state: Names to torch tensors or numpy arrays, of which only shape and dtype count.

    >>> import numpy as np
    >>> float32_bytes({"weight": np.zeros((3, 2)), "count": np.array(7)})
    32
    """
    return sum(
        math.prod(tensor.shape) * (4 if is_float(dtype_name(tensor.dtype)) else tensor.dtype.itemsize)
        for tensor in state.values()
    )


def own_bytes(state: Mapping[str, Any]) -> int:
    """What a state dict takes uncompressed as it is, in bytes; `state` as for `float32_bytes`.

    >>> import numpy as np
    >>> own_bytes({"weight": np.zeros((3, 2), np.float16), "codes": np.zeros(5, np.int8)})
    17
    """
    return sum(math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in state.values())

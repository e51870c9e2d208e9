"""Size of a state dict in float32: what files are compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from evocompress.codecs.dtypes import is_float

__all__ = ["dtype_name", "float32_bytes"]


def float32_bytes(state: Mapping[str, Any]) -> int:
    """What a state dict takes uncompressed, in bytes: floats as float32, whatever their dtype, all else as it is.

    Args:
        state: Names to torch tensors or numpy arrays, of which only shape and dtype count.

    >>> import numpy as np
    >>> float32_bytes({"weight": np.zeros((3, 2)), "count": np.array(7)})
    32
    """
    return sum(
        math.prod(tensor.shape) * (4 if is_float(dtype_name(tensor)) else tensor.dtype.itemsize)
        for tensor in state.values()
    )


def dtype_name(tensor: Any) -> str:
    """The dtype of a torch tensor or numpy array, as numpy calls it."""
    return str(tensor.dtype).removeprefix("torch.")

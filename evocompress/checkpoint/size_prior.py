"""Data-free sensitivity prior from tensor size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from evocompress.codecs.dtypes import dtype_name, is_float

__all__ = ["size_prior"]

_POWER = 0.4  # of 0.25 to 0.7, the best on ResNet-20 and LeNet-5, on held-out images: benchmarks/NOTES.md


def size_prior(state: Mapping[str, Any]) -> dict[str, float]:
    """A scale for each matrix of floats: the more weights it has, the less an error in each of them costs.

    Large layers are redundant, and each of their outputs averages over more errors. Scales are normalised as those of
    `calibration.second_order` are, so that λ keeps its meaning; vectors are left out, which is the neutral 1.

    Args:
        state: Names to torch tensors or numpy arrays, of which only shape and dtype count.

    >>> import numpy as np
    >>> prior = size_prior({"small": np.zeros((10, 10)), "large": np.zeros((100, 100)), "bias": np.zeros(3)})
    >>> prior["small"] / prior["large"] > 6, "bias" in prior
    (True, False)
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if is_float(dtype_name(tensor.dtype))}
    sizes = {name: math.prod(shape) for name, shape in shapes.items() if len(shape) >= 2 and math.prod(shape)}
    middle = sum(size * math.log(size) for size in sizes.values()) / max(sum(sizes.values()), 1)
    return {name: math.exp(_POWER * (middle - math.log(size))) for name, size in sizes.items()}

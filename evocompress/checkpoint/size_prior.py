"""What errors may cost where nobody has looked: a guess from the shapes alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["size_prior"]

_POWER = 0.4  # of 0.25 to 0.7, the best on ResNet-20 and LeNet-5, on held-out images: benchmarks/NOTES.md


def size_prior(state: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """A scale for each matrix of floats: the more weights it has, the less an error in each of them costs.

    Large layers are redundant, and each of their outputs averages over more errors. Scales are normalised as
    second_order.py does, so that λ keeps its meaning; vectors are left out, which is the neutral 1.

    >>> import torch
    >>> prior = size_prior({"small": torch.zeros(10, 10), "large": torch.zeros(100, 100), "bias": torch.zeros(3)})
    >>> prior["small"] / prior["large"] > 6, "bias" in prior
    (True, False)
    """
    sizes = {
        name: tensor.numel()
        for name, tensor in state.items()
        if tensor.is_floating_point() and tensor.ndim >= 2 and tensor.numel()
    }
    middle = sum(size * math.log(size) for size in sizes.values()) / max(sum(sizes.values()), 1)
    return {name: math.exp(_POWER * (middle - math.log(size))) for name, size in sizes.items()}

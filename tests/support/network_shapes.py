"""Sizes of networks: the images that a built-in one takes by default, and how many parameters any has."""

from __future__ import annotations

import functools

import torch
from torch import nn

from evocompress.errors import ModelError
from evocompress.networks import build

__all__ = ["image_shape", "parameters"]

#: Of the built-in data sets.
_SHAPES = ((3, 32, 32), (1, 28, 28), (1, 8, 8))


@functools.cache
def image_shape(name: str) -> tuple[int, int, int]:
    """Channels, height and width for a network by its name: the first of the data sets' shapes that it can take."""
    network = build(name, seed=0).eval()
    for shape in _SHAPES:
        try:
            with torch.no_grad():
                network(torch.zeros(1, *shape))
        except (RuntimeError, ModelError):
            continue
        return shape
    raise ValueError(f"{name} takes no images of a built-in data set: {', '.join(map(str, _SHAPES))}")


def parameters(module: nn.Module) -> int:
    """How many numbers a module's parameters are."""
    return sum(p.numel() for p in module.parameters())

"""Tensors that a small file would lose whole, and sensitivities that keep what matters most of them.

Squared errors add up, but layers follow each other: what a network computes is lost with any one of its layers. Of the
energy of a layer's outputs a share of 1 - e is left, where e is its error's cost over that of losing it whole, and of
the last outputs about the product over all layers. The slope of a product's logarithm is that of -e divided by 1 - e,
so the rate weight of a tensor that loses much falls as 1 - e does. That it falls with the third power, and from e = 0.6
on, was best among what was tried (benchmarks/NOTES.md); below that nothing changes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from evocompress.checkpoint.packing import encode_tensor, to_numpy
from evocompress.checkpoint.recipe import Recipe
from evocompress.codecs import Sensitivity
from evocompress.codecs.container import iterate
from evocompress.codecs.dtypes import is_float

__all__ = ["lost_tensors", "with_lost_raised"]

_MUCH = 0.6  # of a tensor's own energy
_POWER = 3
_HALVINGS = 8
_MOST = 10.0  # log of the largest factor
_SMALL = 1e-5  # of the costliest tensor's energy: what is worth less may be lost

Sensitivities = Mapping[str, float | Sensitivity]


def lost_tensors(state: Mapping[str, Tensor], data: bytes, sensitivities: Sensitivities) -> list[str]:
    """Names of tensors of which a file has lost more than 0.6 of the energy; what costs next to nothing is left out.

    Args:
        state: The checkpoint that the file was made of.
        data: The file.
        sensitivities: What errors cost: energies are measured so. 1 where absent.
    """
    costs: dict[str, tuple[float, float]] = {}
    for name, decoded in iterate(data, state):
        array = to_numpy(name, state[name])
        if is_float(array.dtype.name) and array.size and np.isfinite(array).all():
            exact, sensitivity = array.astype(np.float64), sensitivities.get(name, 1.0)
            costs[name] = _cost(sensitivity, decoded.astype(np.float64) - exact), _cost(sensitivity, exact)
    largest = max((whole for _, whole in costs.values()), default=0.0)
    return [name for name, (error, whole) in costs.items() if error > _MUCH * whole > _MUCH * _SMALL * largest]


def with_lost_raised(
    state: Mapping[str, Tensor], recipe: Recipe, sensitivities: Sensitivities, names: Collection[str]
) -> dict[str, float | Sensitivity]:
    """Sensitivities of which those of some tensors are raised, as far as they lose too much under this recipe."""
    raised = dict(sensitivities)
    for name in names:
        array, sensitivity = to_numpy(name, state[name]), sensitivities.get(name, 1.0)
        raised[name] = _scaled(sensitivity, _factor(name, array, recipe, sensitivity))
    return raised


def _factor(name: str, array: npt.NDArray[Any], recipe: Recipe, sensitivity: float | Sensitivity) -> float:
    """The least factor f, by bisection, at which (1 - e)³ is at least (1 - 0.6)³ / f."""
    exact = array.astype(np.float64)
    whole = _cost(sensitivity, exact)

    def enough(log_factor: float) -> bool:
        record = encode_tensor(name, array, recipe, _scaled(sensitivity, math.exp(log_factor)))
        error = _cost(sensitivity, record.codec.decode(record.coded, record.shape) - exact)
        left = max(1 - error / whole, 0.0) if whole else 1.0
        return (left / (1 - _MUCH)) ** _POWER >= math.exp(-log_factor)

    if enough(0.0):
        return 1.0
    low, high = 0.0, _MOST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return math.exp(high)


def _cost(sensitivity: float | Sensitivity, error: npt.NDArray[np.float64]) -> float:
    if isinstance(sensitivity, Sensitivity):
        return sensitivity.distortion(error.reshape(len(sensitivity.g), -1))
    return sensitivity * float(np.square(error).sum())


def _scaled(sensitivity: float | Sensitivity, factor: float) -> float | Sensitivity:
    return sensitivity.scaled(factor) if isinstance(sensitivity, Sensitivity) else sensitivity * factor

"""The rate weight λ relative to the weights: what `pack` takes where nobody says λ.

λ is squared error per bit, so the same number means little to a network whose weights are a hundred times larger. A
share of the weights' mean square means the same to both: at 1e-3 the error is about 2.7 % of the weights, as
λ = 2 ln 2 · D where bits are many (Cover and Thomas, 2006, section 10.3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from evocompress.checkpoint.defaults import RELATIVE_RATE_WEIGHT
from evocompress.checkpoint.recipe import DEFAULT_RATE_WEIGHT
from evocompress.codecs.dtypes import is_float

__all__ = ["rate_weight_for", "with_small_raised"]

_SMALL = 0.01  # of the typical mean square: tensors below that are not left to λ alone
_PORTION = 1 << 20

AnyT = TypeVar("AnyT")


def rate_weight_for(state: Mapping[str, npt.NDArray[Any]], relative: float = RELATIVE_RATE_WEIGHT) -> float:
    """λ in squared error per bit: a share of the geometric mean, over all weights, of their tensors' mean squares.

    The geometric mean, since a few tensors of large weights say little about what the others can bear. Only matrices of
    floats count where there are any; without any weight that is not zero it is the λ of `Recipe()`.

    >>> state = {"weight": np.full((8, 8), 0.1), "bias": np.full(8, 5.0)}
    >>> f"{rate_weight_for(state):.3g}", f"{rate_weight_for({'weight': 10 * state['weight']}):.3g}"
    ('1e-05', '0.001')
    """
    typical = _typical(state, _mean_squares(state))
    return relative * typical if typical else DEFAULT_RATE_WEIGHT


def with_small_raised(
    state: Mapping[str, npt.NDArray[Any]], sensitivities: Mapping[str, float | AnyT]
) -> dict[str, float | AnyT]:
    """Sensitivities in which errors count for more in tensors whose weights are far smaller than those of others.

    An error that is nothing to the others would be all of such a tensor. With a hundredth of the typical mean square
    it counts as much as there, relative to the tensor; sensitivities of second order stay, as they were measured.
    """
    squares = _mean_squares(state)
    least = _SMALL * _typical(state, squares)
    raised = dict(sensitivities)
    for name, square in squares.items():
        sensitivity = raised.get(name, 1.0)
        if square < least and isinstance(sensitivity, float | int):
            raised[name] = sensitivity * least / square
    return raised


def _mean_squares(state: Mapping[str, npt.NDArray[Any]]) -> dict[str, float]:
    """Of the matrices that are not all zero, or of all such tensors where there is no matrix."""
    floats = {name: array for name, array in state.items() if is_float(array.dtype.name) and array.size}
    chosen = {name: array for name, array in floats.items() if array.ndim >= 2} or floats
    squares = {name: _mean_square(array.reshape(-1)) for name, array in chosen.items()}
    return {name: square for name, square in squares.items() if 0 < square < math.inf}


def _mean_square(weights: npt.NDArray[Any]) -> float:
    """In portions, so that large tensors are not copied whole."""
    parts = (weights[start : start + _PORTION] for start in range(0, weights.size, _PORTION))
    with np.errstate(over="ignore"):  # what overflows is left out
        return float(sum(np.square(part, dtype=np.float64).sum() for part in parts)) / weights.size


def _typical(state: Mapping[str, npt.NDArray[Any]], squares: Mapping[str, float]) -> float:
    """Their geometric mean over all weights; 0 where there are none."""
    weights = sum(state[name].size for name in squares)
    if not weights:
        return 0.0
    return math.exp(sum(state[name].size * math.log(square) for name, square in squares.items()) / weights)

"""The filters that LinearConv layers compute with, from the factors that a file holds in their place."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from evocompress.checkpoint.packing import to_numpy
from evocompress.ideas.kernels.shapes import Floats

__all__ = ["with_banks"]

_FACTORS = ("primary", "coefficients", "coefficients_left", "coefficients_right", "is_primary")


def with_banks(state: Mapping[str, object]) -> dict[str, object]:
    """A state dict with `weight` (out, in/groups, h, w) in the place of LinearConv factors, as a plain layer has it.

    `evocompress.ideas.linearconv.LinearConv2d` says what the factors are. What does not fit together is left as it is.

    >>> factors = {"0.primary": np.ones((1, 1, 3, 3)), "0.coefficients": np.array([[2.0], [3.0]])}
    >>> with_banks(factors)["0.weight"][:, 0, 0, 0]
    array([1., 2., 3.])
    """
    made: dict[str, object] = {}
    used: set[str] = set()
    for name, value in state.items():
        path = name.removesuffix("primary")
        if path != name and (not path or path.endswith(".")) and f"{path}weight" not in state:
            factors = {key: to_numpy(name, state[path + key]) for key in _FACTORS if path + key in state}
            bank = _bank(factors)
            if bank is not None:
                made[f"{path}weight"] = bank
                used |= {path + key for key in factors}
                continue
        made[name] = value
    return {name: value for name, value in made.items() if name not in used}


def _bank(factors: Mapping[str, np.ndarray]) -> Floats | None:
    """[W_p; A·W_p] of each group, in the order of the outputs; None for what are no factors."""
    exact = {name: factor.astype(np.float64) for name, factor in factors.items()}
    primary = exact["primary"]
    right = exact.get("coefficients", exact.get("coefficients_right"))
    if right is None or primary.ndim != 4 or right.ndim != 2 or not right.size or len(primary) % right.shape[1]:
        return None
    primaries = right.shape[1]
    groups = len(primary) // primaries
    try:
        others = right.reshape(groups, -1, primaries)
        if "coefficients" not in exact:
            others = exact["coefficients_left"].reshape(groups, -1, others.shape[1]) @ others
        first = np.arange(primaries + others.shape[1]) < primaries
        is_primary = exact.get("is_primary", np.tile(first, groups)).reshape(groups, -1) != 0
        bank = np.empty((*is_primary.shape, primary[0].size))
        bank[is_primary] = primary.reshape(len(primary), -1)
        made = others @ primary.reshape(groups, primaries, -1)
        bank[~is_primary] = made.reshape(-1, primary[0].size)
    except (KeyError, ValueError):  # a factor is missing, or is of another layer
        return None
    return bank.reshape(-1, *primary.shape[1:])

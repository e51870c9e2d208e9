"""Weight errors of a file against the weights that it was made of: relative errors, and zeros that were none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from evocompress.checkpoint.packing import to_numpy
from evocompress.codecs.dtypes import is_float, name_of
from evocompress.support.wording import listed, shortened

__all__ = ["TensorError", "WeightErrors", "weight_errors"]

_SHOWN, _NAMED = 3, 12
_MUCH, _HALF = 0.1, 0.5  # error of all weights, share of a tensor that has become zero


class TensorError(NamedTuple):
    """Of one tensor: ‖decoded - w‖ / ‖w‖, and the share of its elements that are zero now and were not."""

    name: str
    relative: float
    zeroed: float


class WeightErrors(NamedTuple):
    """The same of all weights together, and of each tensor, the worst first.

    >>> line = WeightErrors(0.05, (TensorError("a", 0.1, 0.0), TensorError("b", 0.01, 0.0))).sentence
    >>> line
    'weights changed by 5.0 %, most in a (10 %), b (1 %)'
    """

    relative: float
    tensors: tuple[TensorError, ...]

    @property
    def sentence(self) -> str:
        """One line for people."""
        worst = [f"{shortened(t.name)} ({_percent(t.relative)})" for t in self.tensors[:_SHOWN] if t.relative > 0]
        zero = [shortened(tensor.name) for tensor in self.tensors if tensor.zeroed and tensor.relative == 1]
        return (
            f"weights changed by {100 * self.relative:.1f} %{', most in ' + ', '.join(worst) if worst else ''}"
            f"{'; all zero now: ' + listed(zero, _NAMED) if zero else ''}"
        )

    @property
    def warning(self) -> str:
        """What somebody should look at who has no measurement of the network; empty if there is nothing."""
        half = [shortened(tensor.name) for tensor in self.tensors if _HALF <= tensor.zeroed < 1]  # `pack` tells of 1
        reasons = [f"half of {listed(half)} became zero"] if half else []
        if self.relative > _MUCH:
            reasons.append(f"more than {100 * _MUCH:.0f} % is much for a network that is not trained on")
        return f"{'; '.join(reasons)}: judge it on data, or give a smaller λ or more bytes" if reasons else ""


def _percent(share: float) -> str:
    """Two digits, or all that stand before the point.

    >>> _percent(0.0123), _percent(0.999), _percent(13.1)
    ('1.2 %', '100 %', '1310 %')
    """
    percents = 100 * share
    return f"{percents:.0f} %" if percents >= 99.5 else f"{percents:.2g} %"


def weight_errors(state: Mapping[str, Any], decoded: Iterable[tuple[str, npt.NDArray[Any]]]) -> WeightErrors:
    """Compare a state dict with the decoded arrays that have its names and shapes; integers and others do not count.

    Args:
        state: Tensors (or arrays) by name.
        decoded: Name and array of each tensor of the file, such as `codecs.container.iterate` gives.
    """
    tensors, error, size = [], 0.0, 0.0
    for name, array in decoded:
        if name not in state:
            continue
        value = state[name]
        before = value if isinstance(value, np.ndarray) else to_numpy(name, value)
        if before.shape != array.shape or not is_float(name_of(before.dtype)) or not before.size:
            continue
        old, new = before.astype(np.float64), array.astype(np.float64)
        finite = np.isfinite(old) & np.isfinite(new)
        apart, square = float(np.square(new[finite] - old[finite]).sum()), float(np.square(old[finite]).sum())
        relative = math.sqrt(apart / square) if square else float(apart > 0)
        tensors.append(TensorError(name, relative, float(((new == 0) & (old != 0)).mean())))
        error, size = error + apart, size + square
    tensors.sort(key=lambda tensor: -tensor.relative)
    return WeightErrors(math.sqrt(error / size) if size else 0.0, tuple(tensors))

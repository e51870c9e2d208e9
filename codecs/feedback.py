"""Second-order quantisation: each error is made good, as far as it can be, by the weights that come after it.

With H the inputs' second moment and U the upper triangular factor of its inverse (H⁻¹ = UᵀU), an error e in column j
costs (e / U_jj)², provided that the later columns move by -e·U_j/U_jj (optimal brain surgeon: Hassibi and Stork, 1993;
in this order: GPTQ, Frantar et al., 2023). So a row's cost is a sum over its columns; its symbols are searched along
the machine of dependent quantisation, each of the eight survivors with the weights that its own errors have moved. Bits
are part of the cost (as in CERWU: Conzelmann and Bamler, 2025), at the rates of the symbols of the pass before.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.linalg

from evocompress.codecs.codec import Floats
from evocompress.codecs.compiled import compiled
from evocompress.codecs.dependent import NEXT, STATES, quantisers
from evocompress.codecs.entropy import Symbols

__all__ = ["inverse_factor", "quantise_rows"]

#: A whole number in a compiled loop: int or np.int64, which NumPy's stubs keep apart.
Int: TypeAlias = Any

_CLASSES = 14
_MAGNITUDES = 20  # larger ones cost as much as the largest, and two bits an octave
_PRIOR = 40.0
_FAR = 1e300

#: How far a state's survivor may look around the nearest symbol; zero is tried besides.
_CANDIDATES = 3


class _Path(NamedTuple):
    """What the search of a row works with: survivors' weights twice (8, K), and the way back (K, 8)."""

    weights: Floats
    spare: Floats
    previous: npt.NDArray[np.int8]
    symbols: Symbols


def inverse_factor(H: Floats, damping: float) -> Floats:
    """Upper triangular U (K, K) with (H + d·I)⁻¹ = UᵀU, where d is `damping` times the mean of H's diagonal.

    A matrix of zeros (an input that is always dead) counts as the identity.
    """
    size = len(H)
    mean = float(np.trace(H)) / size
    damped = H / mean + damping * np.eye(size) if mean > 0 else np.eye(size)
    lower = scipy.linalg.cholesky(damped[::-1, ::-1], lower=True, check_finite=False)
    factor = scipy.linalg.solve_triangular(lower[::-1, ::-1], np.eye(size), lower=False, check_finite=False)
    return np.asarray(factor) / math.sqrt(mean if mean > 0 else 1.0)


def quantise_rows(x: Floats, factor: Floats, weight: Floats, price: float, passes: int) -> Symbols:
    """Symbols of kind "trellis" (O, K) for weights x (O, K) in units of the step.

    Args:
        x: Weights over step, magnitudes up to 2^30.
        factor: `inverse_factor` of their inputs' second moment, (K, K).
        weight: What errors in each row cost, (O,), positive.
        price: What a bit is worth in the same unit.
        passes: How often to search, each time under the rates of the symbols of the time before.
    """
    inverse = 1 / np.diag(factor)
    rows = np.ascontiguousarray(factor * inverse[:, None])  # what later columns move by, for an error of 1
    cost = weight[:, None] * inverse**2 / price  # of a squared error of one step, in bits
    magnitudes = np.abs(np.rint(np.where(np.abs(x) < 1, 0.0, x) / 2))
    quantiser = np.full(x.shape, -1, np.int64)
    symbols = np.zeros(x.shape, np.int32)
    for _ in range(max(passes, 1)):
        classes = _classes(magnitudes)
        rates = _rates(magnitudes.astype(np.int64), classes, quantiser)
        _search(x, rows, cost, classes, rates, NEXT, symbols)
        magnitudes, quantiser = np.abs(symbols).astype(np.float64), quantisers(symbols, NEXT)
    return symbols


def _classes(magnitudes: Floats) -> npt.NDArray[np.int64]:
    """Classes (O, K) of the expected magnitude: column's mean times row's, drawn to the four neighbours'."""
    rows, columns = magnitudes.shape
    mean = magnitudes.mean() + 1e-3
    row = (magnitudes.sum(axis=1) + 16 * mean) / (columns + 16)
    column = (magnitudes.sum(axis=0) + 4 * mean) / (rows + 4)
    around = np.pad(magnitudes, 1, mode="edge")
    near = (around[1:-1, :-2] + around[1:-1, 2:] + around[:-2, 1:-1] + around[2:, 1:-1]) / 4
    estimate = 0.75 * np.outer(row, column) / mean + 0.25 * near
    classes: npt.NDArray[np.int64] = np.floor(2 * np.log2(estimate + 1e-9) + 8).astype(np.int64)
    return np.minimum(np.maximum(classes, 0), _CLASSES - 1)


def _rates(
    magnitudes: npt.NDArray[np.int64], classes: npt.NDArray[np.int64], quantiser: npt.NDArray[np.int64]
) -> Floats:
    """Bits (classes, quantisers, magnitudes) of a symbol; a quantiser of -1 counts for both."""
    k = np.arange(_MAGNITUDES)
    mean = 2.0 ** ((np.arange(_CLASSES) - 7.5) / 2)
    ratio = (np.sqrt(1 + mean**2) - 1) / mean  # of a two-sided geometric distribution
    prior = np.where(k > 0, 2.0, 1.0) * ratio[:, None] ** k
    counts = np.repeat((_PRIOR * prior / prior.sum(axis=1, keepdims=True))[:, None], 2, axis=1)
    for q in (0, 1):
        mine = (quantiser == q) | (quantiser < 0)
        places = classes[mine] * _MAGNITUDES + np.minimum(magnitudes[mine], _MAGNITUDES - 1)
        counts[:, q] += np.bincount(places, minlength=_CLASSES * _MAGNITUDES).reshape(_CLASSES, _MAGNITUDES)
    bits: Floats = np.log2(counts.sum(axis=2, keepdims=True)) - np.log2(counts)
    bits[:, :, 1:] += 1  # the sign
    return bits


@compiled
def _search(
    x: Floats,
    rows: Floats,
    cost: Floats,
    classes: npt.NDArray[np.int64],
    rates: Floats,
    following: npt.NDArray[np.int64],
    symbols: Symbols,
) -> None:
    """Fill in the symbols (O, K) of least cost, row by row, by the Viterbi algorithm with eight survivors."""
    height, width = x.shape
    path = _Path(
        np.empty((STATES, width)),
        np.empty((STATES, width)),
        np.zeros((width, STATES), np.int8),
        np.zeros((width, STATES), np.int32),
    )
    for row in range(height):
        _search_row(x[row], rows, cost[row], classes[row], rates, following, path, symbols[row])


@compiled
def _search_row(
    x: Floats,
    rows: Floats,
    cost: Floats,
    classes: npt.NDArray[np.int64],
    rates: Floats,
    following: npt.NDArray[np.int64],
    path: _Path,
    symbols: Symbols,
) -> None:
    width = x.size
    weights, spare = path.weights, path.spare
    total, extended = np.full(STATES, _FAR), np.full(STATES, _FAR)
    moved = np.zeros(STATES)
    total[0] = 0.0
    weights[0] = x
    for j in range(width):
        extended[:] = _FAR
        for state in range(STATES):
            if total[state] < _FAR:
                _extend(
                    weights[state, j],
                    state,
                    total[state],
                    cost[j],
                    rates[classes[j]],
                    following,
                    j,
                    extended,
                    path,
                    moved,
                )
        for state in range(STATES):
            if extended[state] < _FAR:
                before, error = path.previous[j, state], moved[state]
                for i in range(j, width):
                    spare[state, i] = weights[before, i] - error * rows[j, i]
        weights, spare = spare, weights
        total, extended = extended, total
    end: Int = np.int64(np.argmin(total))
    for j in range(width - 1, -1, -1):
        symbols[j] = path.symbols[j, end]
        end = np.int64(path.previous[j, end])


@compiled
def _extend(
    weight: Any,
    state: Int,
    total: Any,
    cost: Any,
    rates: Floats,
    following: npt.NDArray[np.int64],
    j: int,
    extended: Floats,
    path: _Path,
    moved: Floats,
) -> None:
    """Try the symbols near a survivor's weight, and zero; keep what is best for the state that it leads to."""
    quantiser = state & 1
    nearest: Int = np.int64(np.rint((abs(weight) + quantiser) / 2))
    for candidate in range(_CANDIDATES + 1):
        magnitude = max(nearest + candidate - 1, 0) if candidate < _CANDIDATES else 0
        level = float(2 * magnitude - quantiser) if magnitude > 0 else 0.0
        error = abs(weight) - level
        bits = rates[quantiser, min(magnitude, _MAGNITUDES - 1)]
        if magnitude >= _MAGNITUDES:
            bits += 2 * np.log2(magnitude / (_MAGNITUDES - 1))
        score = total + cost * error * error + bits
        target = following[state, magnitude & 1]
        if score < extended[target]:
            extended[target] = score
            sign = 1 if weight >= 0 else -1
            moved[target] = sign * error
            path.previous[j, target] = state
            path.symbols[j, target] = sign * magnitude

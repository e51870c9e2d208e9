"""Second-order quantisation: each error is made good, as far as it can be, by the weights that come after it.

With H the inputs' second moment and U the upper triangular factor of its inverse (H⁻¹ = UᵀU), an error e in column j
costs (e / U_jj)², provided that the later columns move by -e·U_j/U_jj (optimal brain surgeon: Hassibi and Stork, 1993;
in this order: GPTQ, Frantar et al., 2023). So a row's cost is a sum over its columns; its symbols are searched along
the machine of dependent quantisation, each state's survivor with the weights that its own errors have moved. Bits
are part of the cost (as in CERWU: Conzelmann and Bamler, 2025), at the rates of the symbols of the pass before.

Columns are searched in blocks, for many rows at a time. After each block a row is *settled* as far back as its
survivors have one path: errors there move all that follows once and not for each survivor, by one matrix product a
block. The few columns since then are each survivor's own.

Rates are estimates: a class of the expected magnitude for each place, and under each class the code lengths of the
symbols of the search before. They stand in for the entropy coders' contexts, and do not hang on the order of coding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used, which takes half a second

from evocompress.codecs.codec import Floats
from evocompress.codecs.compiled import compiled
from evocompress.codecs.dependent import MACHINES, Machine
from evocompress.codecs.entropy import Symbols

__all__ = ["MAGNITUDES", "classes_of", "inverse_factor", "quantise_rows", "rates_of"]

#: A whole number in a compiled loop: int or np.int64, which NumPy's stubs keep apart.
Int: TypeAlias = Any

_FAR = 1e300
_COLUMNS = 64  # of a block
_SURVIVORS = 1 << 20  # weights times states that are searched at a time, in whole rows
_WINDOW = 384  # columns that survivors may differ in when a block begins; one that goes its own way for longer ends

#: How far a state's survivor may look around the nearest symbol; zero is tried besides.
_CANDIDATES = 3

#: Larger magnitudes cost as much as the largest, and two bits an octave.
MAGNITUDES = 20

_CLASSES = 14
_PRIOR = 40.0
#: Class c begins at an expected magnitude of 2^((c - 8) / 2).
_THRESHOLDS: Floats = 2.0 ** ((np.arange(1, _CLASSES) - 8) / 2)


def inverse_factor(H: Floats, damping: float) -> Floats:
    """Upper triangular U (K, K) with (H + d·I)⁻¹ = UᵀU, where d is `damping` times the mean of H's diagonal.

    A matrix of zeros (an input that is always dead) counts as the identity.
    """
    size = len(H)
    mean = float(np.trace(H)) / size
    damped = np.divide(H, mean, dtype=np.float64) if mean > 0 else np.zeros((size, size))
    damped[np.diag_indices(size)] += damping if mean > 0 else 1.0
    lower = scipy.linalg.cholesky(damped[::-1, ::-1], lower=True, check_finite=False)
    del damped
    factor, _ = scipy.linalg.lapack.dtrtri(np.asfortranarray(lower[::-1, ::-1]), lower=0, overwrite_c=1)
    factor /= math.sqrt(mean if mean > 0 else 1.0)
    return np.asarray(factor)


def quantise_rows(
    x: npt.NDArray[np.floating],
    factors: Sequence[Floats],
    weight: Floats,
    price: float,
    passes: int,
    *,
    step: float = 1.0,
    states: int = 8,
) -> Symbols:
    """Symbols of a trellis (O, K) for weights x (O, K).

    Args:
        x: Weights, magnitudes over step up to 2^30.
        factors: `inverse_factor` of their inputs' second moment: (K, K), or one for each block along its diagonal, of
            as many columns each but for the last one, a multiple of 64 where there are several.
        weight: What errors in each row cost, (O,), positive.
        price: What a bit is worth in the same unit.
        passes: How often to search, each time under the rates of the symbols of the time before.
        step: What x is in units of; weight and price are in units of steps.
        states: Of the machine of the last search. Those before it only show how often symbols are, so eight will do.
    """
    inverses = [1 / np.diag(factor) for factor in factors]
    # What later columns move by, for an error of 1; across blocks there is nothing.
    moves = [np.ascontiguousarray(factor * inverse[:, None]) for factor, inverse in zip(factors, inverses, strict=True)]
    column = np.concatenate(inverses) ** 2
    symbols = np.empty(x.shape, np.int32)
    height = max(_SURVIVORS // (states * max(x.shape[1], 1)), 1)
    parts = [slice(first, first + height) for first in range(0, len(x), height)]
    for block in parts:
        scaled = x[block] / np.float64(step)
        symbols[block] = np.rint(np.where(np.abs(scaled) < 1, 0.0, scaled) / 2)
    machine, searched = MACHINES[8], False
    for left in range(max(passes, 1) - 1, -1, -1):
        classes = classes_of(symbols)
        rates = rates_of(symbols, classes, machine, searched)
        machine = MACHINES[8 if left else states]
        for block in parts:
            cost = weight[block, None] * column / price  # of a squared error of one step, in bits
            _search(x[block] / np.float64(step), moves, _Prices(cost, classes[block], rates), machine, symbols[block])
        searched = True
    return symbols


class _Prices(NamedTuple):
    """Of squared errors, in bits, (R, K); classes (R, K), and the bits (classes, quantisers, magnitudes) of symbols."""

    cost: Floats
    classes: npt.NDArray[np.uint8]
    rates: Floats


class _Paths(NamedTuple):
    """The survivors of R rows, one for each of S states, and which columns are settled.

    State before, symbol and error of column j by the state after it, (R, K, S); costs so far (R, S); the errors of
    settled columns, zero elsewhere, (R, K); the columns up to which a row is settled (R,).
    """

    previous: npt.NDArray[np.int8]
    symbols: Symbols
    errors: Floats
    total: Floats
    settled: Floats
    until: npt.NDArray[np.int64]


def _search(x: Floats, moves: Sequence[Floats], prices: _Prices, following: Machine, symbols: Symbols) -> None:
    """Fill in the symbols (R, K) of least cost, by the Viterbi algorithm with a survivor for each row and state."""
    (height, width), states = x.shape, len(following)
    shape = (height, width, states)
    paths = _Paths(
        np.zeros(shape, np.int8), np.zeros(shape, np.int32), np.zeros(shape),
        np.full((height, states), _FAR), np.zeros((height, width)), np.zeros(height, np.int64),
    )  # fmt: skip
    paths.total[:, 0] = 0.0
    open_errors = np.zeros((height, min(_WINDOW, width), states))  # survivors' errors in columns that are not settled
    for first in range(0, width, _COLUMNS):
        block = slice(first, min(first + _COLUMNS, width))
        start = first // len(moves[0]) * len(moves[0])  # where the block of H begins that these columns lie in
        rows = moves[first // len(moves[0])][: block.stop - start, first - start : block.stop - start]
        weights = x[:, block] - paths.settled[:, start:first] @ rows[: first - start]
        if start:
            rows = np.concatenate([np.zeros((start, rows.shape[1])), rows])
        _search_block(weights, rows.copy(), prices, following, first, open_errors, paths)
        _settle_columns(block.stop, open_errors, symbols, paths)
    _finish(symbols, paths)


@compiled
def _search_block(
    weights: Floats,
    rows: Floats,
    prices: _Prices,
    following: Machine,
    first: int,
    open_errors: Floats,
    paths: _Paths,
) -> None:
    """Extend the survivors of all rows by the columns of `weights` (R, B), which begin at column `first`."""
    width, states = weights.shape[1], len(following)
    row_weights, buffer = np.empty((states, width)), np.empty((states, width))
    for row in range(weights.shape[0]):
        for state in range(states):
            row_weights[state] = weights[row]
        for j in range(paths.until[row], first):
            for state in range(states):
                error = open_errors[row, j - paths.until[row], state]
                moving = row_weights[state]
                for i in range(width):
                    moving[i] -= error * rows[j, i]
        _search_row(row, first, row_weights, buffer, rows[first:], prices, following, paths)


@compiled
def _search_row(
    row: Int,
    first: Int,
    row_weights: Floats,
    buffer: Floats,
    rows: Floats,
    prices: _Prices,
    following: Machine,
    paths: _Paths,
) -> None:
    """Extend a row's survivors, whose weights in the block are `row_weights` (S, B); `rows` are those of the block."""
    states, width = row_weights.shape
    total, extended = paths.total[row], np.empty(states)
    for j in range(width):
        extended[:] = _FAR
        previous, symbols, errors = (
            paths.previous[row, first + j], paths.symbols[row, first + j], paths.errors[row, first + j],
        )  # fmt: skip
        cost, rates = prices.cost[row, first + j], prices.rates[prices.classes[row, first + j]]
        for state in range(states):
            if total[state] < _FAR:
                _extend(
                    row_weights[state, j],
                    state,
                    total[state],
                    cost,
                    rates,
                    following,
                    extended,
                    previous,
                    symbols,
                    errors,
                )
        for state in range(states):
            total[state] = extended[state]
            source, target, error = row_weights[previous[state]], buffer[state], errors[state]
            for i in range(j + 1, width):
                target[i] = source[i] - error * rows[j, i]
        row_weights, buffer = buffer, row_weights


@compiled
def _extend(
    weight: Any,
    state: Int,
    total: Any,
    cost: Any,
    rates: Floats,
    following: Machine,
    extended: Floats,
    previous: npt.NDArray[np.int8],
    symbols: Symbols,
    errors: Floats,
) -> None:
    """Try the symbols near a survivor's weight, and zero; keep what is best for the state that it leads to."""
    quantiser = state & 1
    size = abs(weight)
    sign = 1 if weight >= 0 else -1
    nearest: Int = np.int64(np.rint((size + quantiser) / 2))
    for candidate in range(_CANDIDATES + 1):
        magnitude = max(nearest + candidate - 1, 0) if candidate < _CANDIDATES else 0
        error = size - float(2 * magnitude - quantiser * np.int64(magnitude > 0))
        bits = rates[quantiser, min(magnitude, MAGNITUDES - 1)]
        if magnitude >= MAGNITUDES:
            bits += 2 * np.log2(magnitude / (MAGNITUDES - 1))
        score = total + cost * error * error + bits
        target = following[state, magnitude & 1]
        if score < extended[target]:
            extended[target] = score
            errors[target] = sign * error
            previous[target] = state
            symbols[target] = sign * magnitude


@compiled
def _settle_columns(end: int, open_errors: Floats, symbols: Symbols, paths: _Paths) -> None:
    """Settle rows as far back from column `end` as their survivors agree; `open_errors`: of the columns since."""
    window, count = open_errors.shape[1:]
    states = np.empty(count, np.int64)
    for row in range(symbols.shape[0]):
        best: Int = np.argmin(paths.total[row])
        for state in range(count):  # one that is nowhere yet goes with the best
            states[state] = state if paths.total[row, state] < _FAR else best
        start, j = paths.until[row], np.int64(end)
        while j > start and (states != states[0]).any():
            if j == end - window:
                for state in range(count):
                    if states[state] != states[best]:
                        paths.total[row, state] = _FAR
                        states[state] = states[best]
                break
            j -= 1
            _step_back(row, j, j - (end - window), states, open_errors, paths)
        paths.until[row] = j
        for place in range(end - j):
            open_errors[row, place] = open_errors[row, place + window - (end - j)]
        _write(row, start, j, states[0], symbols, paths)


@compiled
def _step_back(row: Int, j: Int, place: Int, states: npt.NDArray[np.int64], open_errors: Floats, paths: _Paths) -> None:
    """From the states after column j to those before it, noting the errors between."""
    for state in range(len(states)):
        open_errors[row, place, state] = paths.errors[row, j, states[state]]
        states[state] = paths.previous[row, j, states[state]]


@compiled
def _write(row: Int, start: Int, end: Int, state: Int, symbols: Symbols, paths: _Paths) -> None:
    """Settle columns `start` to `end` of a row, by the path to `state` after them."""
    for j in range(end - 1, start - 1, -1):
        symbols[row, j], paths.settled[row, j] = paths.symbols[row, j, state], paths.errors[row, j, state]
        state = np.int64(paths.previous[row, j, state])


@compiled
def _finish(symbols: Symbols, paths: _Paths) -> None:
    """Settle the rest of all rows by their best survivors."""
    for row in range(symbols.shape[0]):
        _write(row, paths.until[row], symbols.shape[1], np.int64(np.argmin(paths.total[row])), symbols, paths)


def classes_of(symbols: Symbols) -> npt.NDArray[np.uint8]:
    """Classes (O, K) of the expected magnitude: column's mean times row's, drawn to the four neighbours'."""
    classes = np.empty(symbols.shape, np.uint8)
    if symbols.size:
        _classify(symbols, _THRESHOLDS, classes)
    return classes


@compiled
def _classify(symbols: Symbols, thresholds: Floats, classes: npt.NDArray[np.uint8]) -> None:
    rows, columns = symbols.shape
    row_sums, column_sums = np.zeros(rows), np.zeros(columns)
    for r in range(rows):
        for c in range(columns):
            magnitude = float(abs(symbols[r, c]))
            row_sums[r] += magnitude
            column_sums[c] += magnitude
    mean = row_sums.sum() / (rows * columns) + 1e-3
    factors = 0.75 * (column_sums + 4 * mean) / ((rows + 4) * mean)
    for r in range(rows):
        row = (row_sums[r] + 16 * mean) / (columns + 16)
        above, below = symbols[max(r - 1, 0)], symbols[min(r + 1, rows - 1)]
        for c in range(columns):
            left, right = symbols[r, max(c - 1, 0)], symbols[r, min(c + 1, columns - 1)]
            near = float(abs(left)) + float(abs(right)) + float(abs(above[c])) + float(abs(below[c]))
            estimate = row * factors[c] + 0.0625 * near
            number = 0
            while number < thresholds.size and estimate >= thresholds[number]:
                number += 1
            classes[r, c] = number


def rates_of(symbols: Symbols, classes: npt.NDArray[np.uint8], following: Machine, searched: bool) -> Floats:
    """Bits (classes, quantisers, magnitudes) of a symbol of either sign.

    Args:
        symbols: (O, K) of kind "trellis".
        classes: Their `classes_of`.
        following: their machine.
        searched: Whether the symbols went through the states; else they count for both quantisers.
    """
    k = np.arange(MAGNITUDES)
    mean = 2.0 ** ((np.arange(_CLASSES) - 7.5) / 2)
    ratio = (np.sqrt(1 + mean**2) - 1) / mean  # of a two-sided geometric distribution
    prior = np.where(k > 0, 2.0, 1.0) * ratio[:, None] ** k
    counts = np.repeat((_PRIOR * prior / prior.sum(axis=1, keepdims=True))[:, None], 2, axis=1)
    _count(symbols, classes, following, searched, counts)
    bits: Floats = np.log2(counts.sum(axis=2, keepdims=True)) - np.log2(counts)
    bits[:, :, 1:] += 1  # the sign
    return bits


@compiled
def _count(
    symbols: Symbols,
    classes: npt.NDArray[np.uint8],
    following: Machine,
    searched: bool,
    counts: Floats,
) -> None:
    for r in range(symbols.shape[0]):
        state = np.int64(0)
        for c in range(symbols.shape[1]):
            symbol = np.int64(symbols[r, c])
            magnitude = min(abs(symbol), np.int64(MAGNITUDES - 1))
            if searched:
                counts[classes[r, c], state & 1, magnitude] += 1
                state = following[state, symbol & 1]
            else:
                counts[classes[r, c], 0, magnitude] += 1
                counts[classes[r, c], 1, magnitude] += 1

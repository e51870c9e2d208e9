"""Dependent quantisation by search: the path through the states with the least squared error + price·bits.

A Viterbi search (1967) over each row of a plane, in the machine of dependent.py. What a symbol costs in bits is taken
from the tables of the fast coder (entropy-constrained trellis-coded quantisation: Fischer and Wang, 1992), under the
context class that plain rounding leads to one to expect; the true one hangs on the path.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from evocompress.codecs.compiled import compiled
from evocompress.codecs.dependent import KINDS, MACHINES, Machine
from evocompress.codecs.rans import BitCounter, State, Symbols
from evocompress.codecs.rans_coder import LANES
from evocompress.codecs.rans_model import (
    CLASS_OF,
    CLASSES,
    DIRECT,
    EARLIER,
    ESCAPE,
    MAX_ESTIMATE,
    MAX_LEVEL,
    PRECISION,
    RECENT,
    SEPARABLE,
    UNIT,
    Int,
    Tables,
    prepare_group,
)
from evocompress.errors import CodecError

__all__ = ["dequantise", "trellis_quantise"]

Floats: TypeAlias = npt.NDArray[np.float64]
_Real: TypeAlias = Any  # float or np.float64

_MAX_LEVEL = 2.0**31
_SAMPLE = 1 << 16  # weights that the first pass quantises, so that the second knows better what symbols cost
_FAR = 1e300
_ESCAPE_BITS = 6.0  # about what follows an escape; all large symbols count as equally dear


def trellis_quantise(
    x: npt.NDArray[np.floating], price: float, state: State | None = None, *, step: float = 1.0, states: int = 8
) -> Symbols:
    """Symbols of a trellis (rows, columns) for weights x (rows, columns).

    Args:
        x: Weights, finite, magnitudes over step up to 2^31; float32 and float64 are taken as they are, without a copy.
        price: What a bit is worth, in squared steps. Best on Laplace weights: 0.4 at 3.3 bits a weight, 0.3 at 2.3,
            0.25 at 1.7, 0.2 at 1, 0.15 at 0.5.
        state: The coder's statistics at this point of the file; by default those of a file that begins.
        step: What x is in units of.
        states: Of the machine.

    Raises:
        CodecError: A weight that is not finite or too large.

    >>> trellis_quantise(np.array([[0.1, 4.2, -7.9, 2.2, 0.0]]), 0.1).tolist()
    [[0, 2, -4, 1, 0]]
    """
    low, high = (float(x.min()) / step, float(x.max()) / step) if x.size else (0.0, 0.0)
    if not -_MAX_LEVEL <= low <= high <= _MAX_LEVEL:
        raise CodecError(f"Weights over step run from {low} to {high}; they must be finite and below 2^31.")
    x = np.require(x, np.float32 if x.dtype == np.float32 else np.float64, ["C", "W"])
    counter = BitCounter(State() if state is None else state)
    sample = np.ascontiguousarray(x[:: max(x.size // _SAMPLE, 1)])
    counter.plane(_search(sample, step, _rates(counter.state.tables) * price, states), KINDS[states])
    return _search(x, step, _rates(counter.state.tables) * price, states)


def _search(x: npt.NDArray[np.floating], step: float, rates: Floats, states: int) -> Symbols:
    symbols = np.empty(x.shape, np.int32)
    if x.size and states == 8:
        _search_rows(x, step, _classes(x, step), rates, symbols)
    elif x.size:
        _search_machine(x, step, _classes(x, step), rates, _sources(MACHINES[states]), symbols)
    return symbols


def _sources(following: Machine) -> Machine:
    """The state before each state, by the parity of the symbol between: a machine (states, 2) run backwards."""
    sources = np.empty_like(following)
    sources[following, [0, 1]] = np.arange(len(following))[:, None]
    return sources


def _rates(tables: Tables) -> Floats:
    """Bits (classes, quantisers, magnitudes 0 … DIRECT) of a symbol of either sign; the last is for all larger ones."""
    widths = np.diff(tables.edges[: 2 * CLASSES, : ESCAPE + 2].astype(np.float64), axis=1)
    bits = PRECISION - np.log2(np.maximum(widths, 2.0**-20))
    escape = bits[:, ESCAPE:] + _ESCAPE_BITS
    direct = np.minimum((bits[:, 1:ESCAPE:2] + bits[:, 2:ESCAPE:2]) / 2, escape)
    table = np.concatenate([bits[:, :1], direct, escape], axis=1)
    return np.ascontiguousarray(table.reshape(2, CLASSES, DIRECT + 1).transpose(1, 0, 2))


@compiled
def _classes(x: npt.NDArray[np.floating], step: _Real) -> npt.NDArray[np.uint8]:
    """The classes (rows, columns) that weights x would have if each were rounded on its own."""
    rows, columns = x.shape
    classes = np.empty((rows, columns), np.uint8)
    sums, factors = np.zeros(columns, np.int64), np.empty(columns, np.int64)
    total, mean = 0.0, np.int64(1)
    for row in range(rows):
        for column in range(columns):
            total += min(abs(x[row, column] / step), np.float64(MAX_LEVEL))
    expected = np.int64(UNIT * total / (rows * columns))
    for row in range(rows):
        if row % LANES == 0:
            mean = prepare_group(sums, row, max(expected, 1), factors)
        row_sum, recent, earlier = 16 * mean, mean, mean
        for column in range(columns):
            estimate = SEPARABLE * (row_sum * factors[column] >> 36) + RECENT * recent + EARLIER * earlier
            classes[row, column] = CLASS_OF[min(estimate >> 5, MAX_ESTIMATE)]
            level = np.int64(min(abs(x[row, column] / step) + 0.4, np.float64(MAX_LEVEL)))
            earlier, recent = recent, UNIT * level
            row_sum += UNIT * level
            sums[column] += level
    return classes


@compiled
def _best(a: _Real, k: Int, quantiser: Int, rates: Floats) -> tuple[_Real, Int]:
    """Cost and symbol: the one that costs least for magnitude a, of k, k + 2 and, if k is even, 0."""
    last = rates.size - 1
    error = a - np.float64(2 * k - quantiser * np.int64(k > 0))
    cost = error * error + rates[min(k, last)]
    error = a - np.float64(2 * k + 4 - quantiser)
    other = error * error + rates[min(k + 2, last)]
    best = k
    if other < cost:
        cost, best = other, k + 2
    if k & 1 == 0:
        other = a * a + rates[0]
        if other < cost:
            cost, best = other, np.int64(0)
    return cost, best


@compiled
def _search_rows(
    x: npt.NDArray[np.floating], step: _Real, classes: npt.NDArray[np.uint8], rates: Floats, symbols: Symbols
) -> None:
    """Fill in the symbols (rows, columns) of least cost; `rates` (classes, quantisers, magnitudes) in squared steps.

    This is `_search_machine` for eight states, all of them in registers, which is twice as fast.

    c0 … c7 are the least costs of the paths that end in each state, b… the least costs of going on by quantiser and
    parity. States 4 and above are reached by the odd quantiser, and state n from two states that differ by 4.
    """
    rows, columns = x.shape
    choices = np.empty((columns, 4), np.int32)
    decisions = np.empty(columns, np.int64)
    for row in range(rows):
        c0 = 0.0
        c1 = c2 = c3 = c4 = c5 = c6 = c7 = _FAR
        for i in range(columns):
            a = abs(x[row, i] / step)
            level_class = classes[row, i]
            even, odd = rates[level_class, 0], rates[level_class, 1]
            b00, choices[i, 0] = _best(a, 2 * np.int64(a * 0.25), 0, even)
            b01, choices[i, 1] = _best(a, max(2 * np.int64((a + 2.0) * 0.25) - 1, 1), 0, even)
            b10, choices[i, 2] = _best(a, 2 * np.int64((a + 1.0) * 0.25), 1, odd)
            b11, choices[i, 3] = _best(a, max(2 * np.int64((a + 3.0) * 0.25) - 1, 1), 1, odd)
            u0, v0, u1, v1 = c0 + b00, c4 + b01, c2 + b00, c6 + b01
            u2, v2, u3, v3 = c0 + b01, c4 + b00, c2 + b01, c6 + b00
            u4, v4, u5, v5 = c3 + b10, c7 + b11, c1 + b10, c5 + b11
            u6, v6, u7, v7 = c3 + b11, c7 + b10, c1 + b11, c5 + b10
            decisions[i] = (
                (v0 < u0) | (v1 < u1) << 1 | (v2 < u2) << 2 | (v3 < u3) << 3
                | (v4 < u4) << 4 | (v5 < u5) << 5 | (v6 < u6) << 6 | (v7 < u7) << 7
            )  # fmt: skip
            c0, c1, c2, c3 = min(u0, v0), min(u1, v1), min(u2, v2), min(u3, v3)
            c4, c5, c6, c7 = min(u4, v4), min(u5, v5), min(u6, v6), min(u7, v7)
        ends = (c0, c1, c2, c3, c4, c5, c6, c7)
        state = np.int64(0)
        for end in range(1, 8):
            if ends[end] < ends[state]:
                state = np.int64(end)
        _trace(x[row], decisions, choices, state, symbols[row])


@compiled
def _trace(
    x: npt.NDArray[np.floating], decisions: npt.NDArray[np.int64], choices: Symbols, state: Int, symbols: Symbols
) -> None:
    """Follow the decisions back from the last state, and write down the symbols."""
    for i in range(x.size - 1, -1, -1):
        upper = decisions[i] >> state & 1
        quantiser = state >> 2
        magnitude = choices[i, 2 * quantiser + (state >> 1 & 1 ^ upper)]
        symbols[i] = magnitude if x[i] >= 0 else -magnitude
        state = quantiser | (state & 1 ^ quantiser) << 1 | upper << 2


@compiled
def _search_machine(
    x: npt.NDArray[np.floating],
    step: _Real,
    classes: npt.NDArray[np.uint8],
    rates: Floats,
    sources: Machine,
    symbols: Symbols,
) -> None:
    """The same on a machine of any size: the states of its upper half are those that the odd quantiser leads to.

    `choices` are the best symbols of each quantiser and parity, `decisions` the parity on the best path to each state.
    """
    (rows, columns), states = x.shape, len(sources)
    half, even_source, odd_source = states // 2, sources[:, 0].copy(), sources[:, 1].copy()
    choices, decisions = np.empty((columns, 4), np.int32), np.empty((columns, states), np.uint8)
    before, after = np.empty(states), np.empty(states)
    for row in range(rows):
        before[:] = _FAR
        before[0] = 0.0
        for i in range(columns):
            a, level_class = abs(x[row, i] / step), classes[row, i]
            even, odd = rates[level_class, 0], rates[level_class, 1]
            b00, choices[i, 0] = _best(a, 2 * np.int64(a * 0.25), 0, even)
            b01, choices[i, 1] = _best(a, max(2 * np.int64((a + 2.0) * 0.25) - 1, 1), 0, even)
            b10, choices[i, 2] = _best(a, 2 * np.int64((a + 1.0) * 0.25), 1, odd)
            b11, choices[i, 3] = _best(a, max(2 * np.int64((a + 3.0) * 0.25) - 1, 1), 1, odd)
            for end in range(half):
                u, v = before[even_source[end]] + b00, before[odd_source[end]] + b01
                decisions[i, end] = v < u
                after[end] = min(u, v)
            for end in range(half, states):
                u, v = before[even_source[end]] + b10, before[odd_source[end]] + b11
                decisions[i, end] = v < u
                after[end] = min(u, v)
            before, after = after, before
        state: Int = np.argmin(before)
        for i in range(columns - 1, -1, -1):
            parity = np.int64(decisions[i, state])
            magnitude = choices[i, 2 * np.int64(state >= half) + parity]
            symbols[row, i] = magnitude if x[row, i] >= 0 else -magnitude
            state = sources[state, parity]


@compiled
def _weights(symbols: Symbols, following: Machine, step: _Real, largest: _Real) -> npt.NDArray[np.float32]:
    rows, columns = symbols.shape
    weights = np.empty((rows, columns), np.float32)
    for row in range(rows):
        state = np.int64(0)
        for column in range(columns):
            symbol = np.int64(symbols[row, column])
            level = 2 * symbol - (state & 1) * (np.int64(symbol > 0) - np.int64(symbol < 0))
            weights[row, column] = np.float32(min(max(np.float64(level) * step, -largest), largest))
            state = following[state, symbol & 1]
    return weights


def dequantise(symbols: Symbols, step: float, states: int = 8) -> npt.NDArray[np.float32]:
    """Weights (rows, columns) of symbols (rows, columns) of a trellis: `levels` times step, in one pass.

    >>> dequantise(np.array([[1, 1, -1, 0, 2]], np.int32), 0.5).tolist()
    [[1.0, 1.0, -0.5, 0.0, 1.5]]
    """
    return _weights(np.require(symbols, np.int32, ["C", "W"]), MACHINES[states], step, float(np.finfo(np.float32).max))

"""Constants and tables of the mixing coder: each a rounded value of an elementary function, the same on any machine.

Units: log-odds in 1/256 nat, probabilities in 1/65536, logarithms in 1/64 octave. The tables are computed with decimal
arithmetic of many more digits than they keep, so that the library's rounding never shows.
"""

from __future__ import annotations

import functools
import math
from decimal import Context, Decimal
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "LOG",
    "POWER",
    "PRIORS",
    "RATES",
    "SQUASH",
    "STEPS",
    "STRETCH",
    "Bytes",
    "Int",
    "Ints",
    "Small",
    "Symbols",
    "tables",
]

#: An integer of 64 bits: numpy's where Python runs the loops, else the compiler's.
Int: TypeAlias = Any
Ints: TypeAlias = npt.NDArray[np.int64]
Small: TypeAlias = npt.NDArray[np.int32]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Symbols: TypeAlias = npt.NDArray[np.int32]

#: Log-odds are kept within ± LIMIT, in 1/256 nat: probabilities down to 1/65536.
_LIMIT = 2816
#: Counters slow down to this many observations; mixers reach their final rate after as many.
_COUNTS = 256
_STEPS = 1024
_PRIOR_OCTAVES = 24  # of the mean magnitude, from 2^-10 symbols on


#: Where each table begins in the array that `tables` returns.
#: Probability, in 1/65536, of log-odds -2816 … 2816, which are counted from here.
SQUASH = _LIMIT
#: Log-odds of a probability in 1/4096.
STRETCH = SQUASH + _LIMIT + 1
#: Logarithm of an integer below 4096; 0 for 0.
LOG = STRETCH + 4096
#: 65536 times 2^(i/64), i below 64.
POWER = LOG + 4096
#: 65536 / (n + 1.5): a counter's rate at its n-th observation.
RATES = POWER + 64
#: A mixer's rate, in 2^-20, at its n-th decision.
STEPS = RATES + _COUNTS
#: Log-odds of "not zero", then of "more than this", where the mean magnitude is 2^(i/16 - 10) steps, i below 384.
PRIORS = STEPS + _STEPS


_CONTEXT = Context(prec=40)


def _round(x: Decimal) -> int:
    return int(x.to_integral_value(context=_CONTEXT))


def _squash() -> Ints:
    step, power, half = _CONTEXT.exp(Decimal(-1) / 256), Decimal(1), []
    for _ in range(_LIMIT + 1):
        half.append(_round(_CONTEXT.divide(65536 * power, 1 + power)))  # of -i / 256
        power = _CONTEXT.multiply(power, step)
    return np.array([*half[::-1], *(65536 - p for p in half[1:])], np.int64)


def _stretch(squash: Ints) -> Ints:
    return np.searchsorted(squash, 16 * np.arange(4096) + 8).astype(np.int64) - _LIMIT


def _powers(fraction: int, count: int, scale: int) -> list[int]:
    """`scale` times 2^(i / fraction) for i below `count`."""
    root = _CONTEXT.exp(_CONTEXT.divide(_CONTEXT.ln(Decimal(2)), fraction))
    return [_round(_CONTEXT.multiply(scale, _CONTEXT.power(root, i))) for i in range(count)]


def _log() -> Ints:
    # 64·log2(x) rounds to k where x lies between 2^((2k - 1) / 128) and 2^((2k + 1) / 128).
    edges = np.array(_powers(128, 2 * 64 * 12, 1 << 40)[1::2], np.int64)
    logs = np.searchsorted(edges, np.arange(4096, dtype=np.int64) << 40, side="right")
    return logs.astype(np.int64)


def _priors() -> Ints:
    odds: list[list[int]] = [[], []]
    for i in range(16 * _PRIOR_OCTAVES):
        mean = _CONTEXT.power(Decimal(2), Decimal(i) / 16 - 10)
        # E|q| = 2θ/(1-θ²) is the mean of a two-sided geometric distribution; P(not zero) = 2θ/(1+θ).
        theta = _CONTEXT.divide(_CONTEXT.sqrt(1 + mean * mean) - 1, mean)
        for row, ratio in zip(odds, (2 * theta, theta), strict=True):
            log = 256 * _CONTEXT.ln(_CONTEXT.divide(ratio, 1 - theta))
            row.append(min(max(_round(log), -2047), 2047))
    return np.array([*odds[0], *odds[1]], np.int64)


@functools.cache
def tables() -> Ints:
    """All tables, one after the other, in an int64 array that cannot be written to."""
    squash = _squash()
    rates = (2 << 16) // (2 * np.arange(_COUNTS, dtype=np.int64) + 3)
    steps = [1573 + math.isqrt(31457 * 31457 // (n + 1)) for n in range(_STEPS)]
    parts = [squash, _stretch(squash), _log(), _powers(64, 64, 1 << 16), rates, steps, _priors()]
    joined = np.concatenate([np.asarray(part, np.int64) for part in parts])
    joined.setflags(write=False)
    return joined

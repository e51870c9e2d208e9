"""Single weights of the mixing coder, decision by decision.

A weight is coded as: not zero?; if so, its sign; then more than 1?, more than 2?, … up to 18, then what is left as a
number. The sign's odds are known first: how far the weights around lean to one side says something about zeros too.
"""

from __future__ import annotations

import numpy as np

from evocompress.codecs.compiled import compiled
from evocompress.codecs.mixing_coder import (
    INPUTS,
    MIXED,
    SETS,
    SLOTS,
    STRIDE,
    X,
    code_bit,
    code_number,
    decide,
)
from evocompress.codecs.mixing_contexts import (
    CLAMP,
    CONTEXTS,
    KERNEL_TILT,
    NORMAL,
    PREDICTED,
    ROW_TILT,
    SCALE,
    SIGNS,
    TILT,
    WHOLE,
    Y,
)
from evocompress.codecs.mixing_tables import PRIORS, SQUASH, Bytes, Int, Ints, Small

__all__ = ["COUNTERS", "HINTS", "MEMORY", "OFFSET", "code_symbol", "fresh_memory", "sign_odds"]


#: Decisions with a mixer of their own: zero, more than 1 … more than 6, more than any above; each for three quantisers.
_NODES = 8
_PLACES = 3 * _NODES
#: Counters of all sets.
COUNTERS = SETS * CONTEXTS * _PLACES
_UNARY = 18

#: Where the weights of the sign's inputs begin (without and within kernels), and single counters: two trees of 64 for
#: hints, an offset's flag, sign and 66 of its size, then 66 for what is left of large magnitudes at each of 32 scales.
_SIGN_WEIGHTS = MIXED + _PLACES * STRIDE
HINTS = _SIGN_WEIGHTS + 2 * SIGNS
OFFSET = HINTS + 128
_REST = OFFSET + 2 + 66
MEMORY = _REST + 32 * 66


@compiled
def sign_odds(
    memory: Ints, lines: Ints, factor: Ints, errors: Ints, row: Int, column: Int, place: Int, width: Int
) -> Int:
    """Log-odds of "positive", from how the weights around lean; fills the sign's inputs in."""
    period, line = len(errors), NORMAL + (row & 1)
    for i in range(SIGNS):
        memory[Y + i] = 0
    if period > 1:
        across, down = place % width, place // width
        predicted: Int = np.int64(0)
        for q in range(place):
            predicted += factor[place, q] * errors[q]
        predicted = min(max(predicted >> 16, -CLAMP), CLAMP)
        memory[PREDICTED] = predicted
        memory[Y] = predicted
        if across >= 1:
            memory[Y + 1] = lines[line, column - 1]
        if across >= 2:
            memory[Y + 3] = lines[line, column - 2]
        if down >= 1:
            memory[Y + 2] = lines[line, column - width]
            if across >= 1:
                memory[Y + 5] = lines[line, column - width - 1]
            if across + 1 < width:
                memory[Y + 6] = lines[line, column - width + 1]
        if down >= 2:
            memory[Y + 4] = lines[line, column - 2 * width]
        memory[Y + 7] = memory[KERNEL_TILT] // max(place, 1)
    else:
        if column >= 1:
            memory[Y + 1] = lines[line, column - 1]
        if row >= 1:
            memory[Y + 2] = lines[NORMAL + ((row + 1) & 1), column]
        if column >= 2:
            memory[Y + 3] = lines[line, column - 2]
    memory[Y + 8] = lines[TILT, column]
    memory[Y + 9] = 3 * memory[ROW_TILT] // (column + 16)
    weights = _SIGN_WEIGHTS + SIGNS * (period > 1)
    odds = np.int64(0)
    for i in range(SIGNS):
        odds += memory[weights + i] * memory[Y + i]
    return min(max(odds >> 16, -2047), 2047)


@compiled
def _code_sign(memory: Ints, buffer: Bytes, tables: Ints, odds: Int, kernel: Int, positive: Int) -> Int:
    """Code a sign, and let the weights of its inputs learn: slowly outside kernels, where there is little to learn."""
    probability = tables[SQUASH + odds]
    positive = code_bit(memory, buffer, positive, probability)
    error, weights, shift = (positive << 16) - probability, _SIGN_WEIGHTS + SIGNS * kernel, 16 - 2 * kernel
    for i in range(SIGNS):
        memory[weights + i] += (error * memory[Y + i] + (1 << (shift - 1))) >> shift
    return positive


@compiled
def code_symbol(
    memory: Ints, buffer: Bytes, tables: Ints, counters: Small, odds: Int, quantiser: Int, kernel: Int, symbol: Int
) -> Int:
    """Code one symbol; `odds` are those of its sign, positive ones for "positive"."""
    scale: Int = memory[SCALE] - WHOLE
    expected = min(max((scale + 640) >> 2, 0), 383)
    count: Int = np.int64(0)
    magnitude, positive = abs(symbol), np.int64(1)
    memory[X + 1] = 102
    memory[X + 9] = abs(odds) - 77
    memory[X + 10] = max(abs(odds) - 256, 0)
    for i in range(SETS):
        memory[SLOTS + i] = (CONTEXTS * i + memory[SLOTS + i]) * _PLACES + quantiser
    mixer = MIXED + quantiser * STRIDE
    while count < _UNARY:
        prior = tables[PRIORS + 384 * min(count, 1) + expected]
        memory[X] = prior
        if not decide(memory, buffer, tables, counters, mixer, prior, np.int64(magnitude > count)):
            break
        if count == 0:
            positive = _code_sign(memory, buffer, tables, odds, kernel, np.int64(symbol > 0))
            lean = odds if positive else -odds
            memory[X + 9] = lean
            memory[X + 10] = max(lean, 0)
        count += 1
        if count < _NODES:
            mixer += 3 * STRIDE
            for i in range(SETS):
                memory[SLOTS + i] += 3
    if count == _UNARY:
        octave: Int = min(max(scale >> 6, 0), 31)
        lengths = _REST + 66 * octave
        count += code_number(memory, buffer, tables, magnitude - _UNARY, lengths)
    return count if positive else -count


def fresh_memory(squash: Ints) -> Ints:
    """Memory (MEMORY,) that has learned nothing; `squash` is the table of probabilities of log-odds from -2816 on.

    The weights start at about what they came to on networks of several kinds; they matter in small files.
    """
    memory = np.zeros(MEMORY, np.int64)
    zero = [29491, 0, 6554, 0, 0, 0, 0, 13107, 6554, 0, 6554, 13107, 13107, 13107]
    more = [29491, -6554, 0, 0, 0, 0, 0, 6554, 0, 6554, 0, 13107, 13107, 13107]
    for place in range(_PLACES):
        mixer = MIXED + place * STRIDE
        memory[mixer : mixer + INPUTS] = zero if place < 3 else more
        cells = memory[mixer + INPUTS + 1 : mixer + STRIDE]
        cells[:] = 16 * squash[np.minimum(128 * np.arange(len(cells)), len(squash) - 1)]
    kernel = _SIGN_WEIGHTS + SIGNS
    memory[kernel : kernel + SIGNS] = [65536, 32768, 32768, 6554, 6554, 0, 19661, 6554, 19661, 0]
    return memory

"""Planes of weights for the mixing coder: each weight's decisions, the walk from row to row, and what each teaches.

A weight is coded as: not zero?; if so, its sign; then more than 1?, more than 2?, … up to 18, then what is left as a
number. The sign's odds are known first: how far the weights around lean to one side says something about zeros too.
"""

from __future__ import annotations

import numpy as np

from evocompress.codecs.compiled import compiled
from evocompress.codecs.dependent import Machine
from evocompress.codecs.mixing_coder import (
    DECODE,
    ENCODE,
    INPUTS,
    MARGIN,
    MIXED,
    MODE,
    POSITION,
    SETS,
    SLOTS,
    STRIDE,
    X,
    adaptive_bit,
    code_bit,
    code_number,
    decide,
    grown,
)
from evocompress.codecs.mixing_contexts import (
    CLAMP,
    CONTEXTS,
    HINT,
    INVERSE,
    KERNEL,
    KERNEL_TILT,
    LINES,
    MAX_HALF,
    NORMAL,
    PREDICTED,
    RECENT,
    ROW,
    ROW_TILT,
    SCALE,
    SIGNS,
    SUMS,
    TILT,
    TILTS,
    TOTAL,
    WHOLE,
    Y,
    begin_row,
    describe,
    log,
    solve,
)
from evocompress.codecs.mixing_tables import POWER, PRIORS, SQUASH, Bytes, Int, Ints, Small, Symbols

__all__ = ["COUNTERS", "MEMORY", "code_weights", "fresh_memory"]

#: Decisions with a mixer of their own: zero, more than 1 … more than 6, more than any above; each for three quantisers.
_NODES = 8
_PLACES = 3 * _NODES
#: Counters of all sets.
COUNTERS = SETS * CONTEXTS * _PLACES
_UNARY = 18
_LARGEST = (1 << 31) - 1
_ZEROS = 63  # the hint of a plane of zeros

#: Where the weights of the sign's inputs begin (without and within kernels), and single counters: two trees of 64 for
#: hints, an offset's flag, sign and 66 of its size, then 66 for what is left of large magnitudes at each of 32 scales.
_SIGN_WEIGHTS = MIXED + _PLACES * STRIDE
_HINTS = _SIGN_WEIGHTS + 2 * SIGNS
_OFFSET = _HINTS + 128
_REST = _OFFSET + 2 + 66
MEMORY = _REST + 32 * 66


@compiled
def _sign_odds(
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
def _code_symbol(
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


@compiled
def _learn_kernel(memory: Ints, lines: Ints, moments: Ints, normal: Int, start: Int) -> None:
    """Add a whole kernel, from column `start` on, to the second moments."""
    memory[KERNEL], memory[KERNEL_TILT] = 0, 0
    period = moments.shape[1]
    for i in range(period):
        value = lines[normal, start + i]
        for j in range(i + 1):
            moments[i, j] += value * lines[normal, start + j]
    moments[period, 0] += 1


@compiled
def _learn(
    memory: Ints, lines: Ints, errors: Ints, row: Int, column: Int, place: Int, half: Int, positive: Int
) -> None:
    """Add a weight that is known now to the statistics of its row, column and kernel."""
    line = row % 3
    value = min((half * memory[INVERSE]) >> 20, CLAMP)
    if not positive:
        value = -value
    lines[line, column] = half
    lines[NORMAL + (row & 1), column] = value
    lines[SUMS, column] += half
    lines[TILTS, column] += value
    memory[TOTAL] += half
    memory[ROW] += half
    memory[ROW_TILT] += value
    memory[RECENT] += half
    if column >= 8:
        memory[RECENT] -= lines[line, column - 8]
    memory[KERNEL] += half
    memory[KERNEL_TILT] += value
    errors[place] = value - memory[PREDICTED]


@compiled
def _fade(moments: Ints, most: Int) -> None:
    """Scale moments down to those of `most` kernels."""
    n = moments.shape[1]
    count = moments[n, 0]
    if count > most:
        for i in range(n):
            for j in range(i + 1):
                moments[i, j] = moments[i, j] * most // count
        moments[n, 0] = most


@compiled
def _total(symbols: Symbols, offset: Int) -> Int:
    """Sum of magnitudes after an offset has been taken off."""
    total = np.int64(0)
    for row in range(symbols.shape[0]):
        for column in range(symbols.shape[1]):
            total += abs(np.int64(symbols[row, column]) - offset)
    return total


@compiled
def _best_offset(symbols: Symbols, tables: Ints) -> Int:
    """The mean of all symbols if taking it off saves more than it costs, else 0."""
    total = np.int64(0)
    for row in range(symbols.shape[0]):
        for column in range(symbols.shape[1]):
            total += np.int64(symbols[row, column])
    offset = total // symbols.size
    if offset == 0:
        return offset
    before, after = _total(symbols, 0), _total(symbols, offset) + symbols.size // 4
    saved = symbols.size * (log(before + 1, tables) - log(after + 1, tables))
    return offset if saved > 64 * 8 + 2 * log(abs(offset), tables) else offset * 0


@compiled
def _code_head(memory: Ints, buffer: Bytes, tables: Ints, symbols: Symbols, trellis: bool) -> Int:
    """Code what is taken off every symbol (unless they are a trellis's), and the mean magnitude of what is left.

    Returns the former; the latter goes to `memory[HINT]`, rounded to half an octave, or 0 if nothing is left.
    """
    offset: Int = np.int64(0)
    hint: Int = np.int64(0)
    if memory[MODE] != DECODE:
        if not trellis:
            offset = _best_offset(symbols, tables)
        total = min(_total(symbols, offset), 1 << 50)
        hint = min((log((512 * total) // symbols.size + 1, tables) + 16) >> 5, _ZEROS - 1) if total else _ZEROS
    if not trellis and adaptive_bit(memory, buffer, tables, np.int64(offset != 0), _OFFSET):
        negative = adaptive_bit(memory, buffer, tables, np.int64(offset < 0), _OFFSET + 1)
        offset = code_number(memory, buffer, tables, abs(offset) - 1, _OFFSET + 2) + 1
        if negative:
            offset = -offset
    node, tree = np.int64(1), _HINTS + 64 * (symbols.shape[0] == 1)
    for shift in range(5, -1, -1):
        node = 2 * node + adaptive_bit(memory, buffer, tables, (hint >> shift) & 1, tree + node)
    memory[TOTAL], memory[HINT] = 0, 0
    if node - 64 != _ZEROS:
        memory[HINT] = (tables[POWER + 32 * (node & 1)] << ((node - 64) >> 1)) >> 16
    return offset


@compiled
def code_weights(
    memory: Ints,
    buffer: Bytes,
    tables: Ints,
    counters: Small,
    moments: Ints,
    symbols: Symbols,
    following: Machine,
    width: Int,
) -> Bytes:
    """Code a plane of weights or of a trellis's symbols (rows, columns); a decoder fills it in.

    `moments` (period + 1, period): what kernels of this period have shown so far, `width`: the length of their rows.
    Returns the buffer, which an encoder may have replaced by a larger one.
    """
    rows, columns = symbols.shape
    trellis = following.shape[0] > 1
    period, decoding, encoding = moments.shape[1], memory[MODE] == DECODE, memory[MODE] == ENCODE
    lines, groups = np.zeros((LINES, columns), np.int64), np.zeros((2, columns // period), np.int64)
    factor = np.zeros((period, period), np.int64)
    positions, errors = np.zeros(period, np.int64), np.zeros(period, np.int64)
    if encoding and memory[POSITION] + MARGIN > len(buffer):
        buffer = grown(buffer)
    offset = _code_head(memory, buffer, tables, symbols, trellis)
    if memory[HINT] == 0:
        symbols[:] = min(max(offset, -_LARGEST), _LARGEST)
        return buffer
    _fade(moments, 100)
    for row in range(rows):
        begin_row(memory, tables, lines, groups, positions, row)
        if period > 1:
            solve(moments, factor)
        state, place, group = np.int64(0), np.int64(0), np.int64(0)
        for column in range(columns):
            if encoding and memory[POSITION] + MARGIN > len(buffer):
                buffer = grown(buffer)
            describe(memory, tables, lines, groups, period, row, column, group, place)
            odds = _sign_odds(memory, lines, factor, errors, row, column, place, width)
            quantiser = state & 1 if trellis else np.int64(2)
            symbol = np.int64(symbols[row, column]) - offset
            symbol = _code_symbol(memory, buffer, tables, counters, odds, quantiser, np.int64(period > 1), symbol)
            if decoding:
                symbols[row, column] = min(max(symbol + offset, -_LARGEST), _LARGEST)
            half = min(2 * abs(symbol) - np.int64(quantiser == 1 and symbol != 0), MAX_HALF)
            _learn(memory, lines, errors, row, column, place, half, np.int64(symbol > 0))
            groups[0, group] += half
            positions[place] += half
            if trellis:
                state = following[state, symbol & 1]
            place += 1
            if place == period:
                if period > 1:
                    _learn_kernel(memory, lines, moments, NORMAL + (row & 1), column + 1 - period)
                place = np.int64(0)
                group += 1
        _fade(moments, 1 << 20)
    return buffer

"""Planes of weights for the mixing coder: the head, the walk from row to row, and what is learned from each weight."""

from __future__ import annotations

import numpy as np

from evocompress.codecs.compiled import compiled
from evocompress.codecs.dependent import Machine
from evocompress.codecs.mixing_coder import DECODE, ENCODE, MARGIN, MODE, POSITION, adaptive_bit, code_number, grown
from evocompress.codecs.mixing_contexts import (
    CLAMP,
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
    SUMS,
    TILTS,
    TOTAL,
    begin_row,
    describe,
    log,
    solve,
)
from evocompress.codecs.mixing_symbols import HINTS, OFFSET, code_symbol, sign_odds
from evocompress.codecs.mixing_tables import POWER, Bytes, Int, Ints, Small, Symbols

__all__ = ["code_weights"]


_LARGEST = (1 << 31) - 1
_ZEROS = 63  # the hint of a plane of zeros


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
    if not trellis and adaptive_bit(memory, buffer, tables, np.int64(offset != 0), OFFSET):
        negative = adaptive_bit(memory, buffer, tables, np.int64(offset < 0), OFFSET + 1)
        offset = code_number(memory, buffer, tables, abs(offset) - 1, OFFSET + 2) + 1
        if negative:
            offset = -offset
    node, tree = np.int64(1), HINTS + 64 * (symbols.shape[0] == 1)
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
            odds = sign_odds(memory, lines, factor, errors, row, column, place, width)
            quantiser = state & 1 if trellis else np.int64(2)
            symbol = np.int64(symbols[row, column]) - offset
            symbol = code_symbol(memory, buffer, tables, counters, odds, quantiser, np.int64(period > 1), symbol)
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

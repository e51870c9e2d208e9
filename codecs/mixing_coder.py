"""Binary arithmetic coder, adaptive bits and logistic mixing: what every decision of the mixing coder goes through.

The coder is a range coder of 40 bits (after Martin, 1979) with probabilities of 16 bits. Encoding, decoding and
counting share every line but the last step, so they cannot drift apart. A decision's predictions are added up in the
domain of log-odds with weights that learn online (Mahoney, 2005), and refined by a table of what such predictions came
to.

Everything lives in flat arrays with named places: compiled code then counts no references, which is thrice as fast as
with structures of arrays. `memory` is int64: registers, room for the decision at hand, and what has been learned.

Invariant: integers only, none beyond 62 bits; shifts of negative numbers round down, in Python as compiled.
"""

from __future__ import annotations

import numpy as np

from evocompress.codecs.compiled import compiled
from evocompress.codecs.mixing_tables import RATES, SQUASH, STEPS, STRETCH, Bytes, Int, Ints, Small

__all__ = [
    "COUNT",
    "DECODE",
    "ENCODE",
    "INPUTS",
    "LOW",
    "MARGIN",
    "MIXED",
    "MODE",
    "POSITION",
    "ROOM",
    "SETS",
    "SLOTS",
    "STRIDE",
    "WIDTH",
    "X",
    "adaptive_bit",
    "code_bit",
    "code_number",
    "decide",
    "grown",
]


#: What a coder does, in `memory[MODE]`.
ENCODE, DECODE, COUNT = 0, 1, 2
#: Registers: mode, width of the interval, its lower end (encoding) or the point in it (decoding), bytes so far.
MODE, WIDTH, LOW, POSITION = 0, 1, 2, 3
_TOP = 1 << 40
_BOTTOM = 1 << 32
#: More bytes than any one symbol takes.
MARGIN = 1024

#: A decision's inputs (log-odds in 1/256 nat, or features of like size); the last SETS are the counters'.
INPUTS, SETS = 14, 3
X = 4
#: Which slot of `counters` each set's counter is in.
SLOTS = X + INPUTS
#: Where the caller's own room begins, 32 places, and what is learned: mixers, then single counters.
ROOM = SLOTS + SETS
MIXED = ROOM + 32
_CELLS = 46
_AGE, _REFINED = INPUTS, INPUTS + 1
#: A mixer: weights in 1/65536, age, and probabilities in 2^-20 by what it said.
STRIDE = INPUTS + 1 + _CELLS

#: A counter holds a probability of 20 bits above an observation count of 10; 0 stands for one never used.
_EVEN = 1 << 29


@compiled
def grown(buffer: Bytes) -> Bytes:
    """A copy of a buffer of twice its size and more."""
    larger = np.zeros(2 * len(buffer) + MARGIN, np.uint8)
    larger[: len(buffer)] = buffer
    return larger


@compiled
def _carry(buffer: Bytes, position: Int) -> None:
    """Add one to the number that the bytes before `position` make up."""
    position -= 1
    while buffer[position] == 255:
        buffer[position] = 0
        position -= 1
    buffer[position] += 1


@compiled
def code_bit(memory: Ints, buffer: Bytes, bit: Int, probability: Int) -> Int:
    """Code a bit that is 1 with `probability`, 1 … 65535 of 65536. A decoder ignores `bit` and returns its own."""
    width, low, mode = memory[WIDTH], memory[LOW], memory[MODE]
    bound = (width >> 16) * probability
    if mode == DECODE:
        bit = np.int64(low < bound)
    if bit:
        width = bound
    else:
        width -= bound
        if mode == DECODE:
            low -= bound
        else:
            low += bound
            if low >= _TOP:
                if mode == ENCODE:
                    _carry(buffer, memory[POSITION])
                low -= _TOP
    while width < _BOTTOM:
        width <<= 8
        position = memory[POSITION]
        memory[POSITION] = position + 1
        if mode == DECODE:
            low <<= 8
            if position < len(buffer):
                low |= np.int64(buffer[position])
        else:
            if mode == ENCODE:
                buffer[position] = low >> 32
            low = (low & (_BOTTOM - 1)) << 8
    memory[WIDTH], memory[LOW] = width, low
    return bit


@compiled
def _learned(counter: Int, bit: Int, tables: Ints, limit: Int) -> Int:
    """A counter after it has seen a bit."""
    count = min((counter & 1023) + 1, limit)
    probability = counter >> 10
    probability += (((bit << 20) - probability) * tables[RATES + count]) >> 16
    return (min(max(probability, 64), (1 << 20) - 64) << 10) | count


@compiled
def adaptive_bit(memory: Ints, buffer: Bytes, tables: Ints, bit: Int, place: Int) -> Int:
    """Code a bit under the single counter at a place of `memory`; it starts at one half if that is 0."""
    counter: Int = memory[place]
    if counter == 0:
        counter = np.int64(_EVEN)
    bit = code_bit(memory, buffer, bit, min(max(counter >> 14, 32), 65504))
    memory[place] = _learned(counter, bit, tables, 127)
    return bit


@compiled
def code_number(memory: Ints, buffer: Bytes, tables: Ints, number: Int, lengths: Int) -> Int:
    """Code a number 0 … 2^33 - 2 as number + 1: its length in unary, its second bit, then the rest as it is.

    66 counters from `lengths` on: 33 for the length, then 33, by length, for the second bit.
    """
    number += 1
    length = np.int64(0)
    while length < 32:
        if not adaptive_bit(memory, buffer, tables, np.int64(number >> (length + 1) > 0), lengths + length):
            break
        length += 1
    value = np.int64(1)
    for place in range(length - 1, -1, -1):
        bit = (number >> place) & 1
        if place == length - 1:
            bit = adaptive_bit(memory, buffer, tables, bit, lengths + 33 + length)
        else:
            bit = code_bit(memory, buffer, bit, 32768)
        value = 2 * value + bit
    return value - 1


@compiled
def decide(memory: Ints, buffer: Bytes, tables: Ints, counters: Small, mixer: Int, prior: Int, bit: Int) -> Int:
    """Code a bit under the mixed prediction of all inputs; `prior` (log-odds) is what a fresh counter starts from.

    The mixer begins at that place of `memory`.
    """
    for i in range(SETS):
        slot = memory[SLOTS + i]
        counter = np.int64(counters[slot])
        if counter == 0:
            counter = tables[SQUASH + prior] << 14
            counters[slot] = counter
        memory[X + INPUTS - SETS + i] = tables[STRETCH + (counter >> 18)]
    dot = np.int64(0)
    for i in range(INPUTS):
        dot += memory[mixer + i] * memory[X + i]
    odds: Int = min(max(dot >> 16, -2815), 2815)
    mixed = tables[SQUASH + odds]
    cell, part = mixer + _REFINED + ((odds + 2816) >> 7), (odds + 2816) & 127
    low, high = memory[cell], memory[cell + 1]
    probability = (mixed + ((low * (128 - part) + high * part) >> 11)) >> 1
    bit = code_bit(memory, buffer, bit, min(max(probability, 1), 65535))
    target = bit << 20
    memory[cell] = low + (((target - low) * (128 - part)) >> 14)
    memory[cell + 1] = high + (((target - high) * part) >> 14)
    age = memory[mixer + _AGE]
    memory[mixer + _AGE] = min(age + 1, 1023)
    rate = ((bit << 16) - mixed) * tables[STEPS + age]
    for i in range(INPUTS):
        memory[mixer + i] += (rate * memory[X + i] + (1 << 27)) >> 28
    for i in range(SETS):
        slot = memory[SLOTS + i]
        counters[slot] = _learned(np.int64(counters[slot]), bit, tables, 255)
    return bit

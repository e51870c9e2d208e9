"""Context modelling of symbols: tokens, context classes and their adaptive counts, in integers only.

A plane is a 2-D array of symbols. It is walked in blocks of rows, and a block in three phases of columns (every fourth,
the ones half way between, the odd ones), so that whole blocks are coded at once and yet most symbols see what lies left
and right of them. A symbol's *class* is the expected magnitude at its place: the column's mean so far, times the row's,
and the mean of the two neighbours that earlier phases have coded. Magnitudes of kernels cluster by row (output
channel), by column (input channel and kernel position) and locally, which is worth 3 % on ResNet-20 against one
adaptive table per tensor. Classes are shared by all tensors of a file, so a small tensor starts with what the
large ones taught.

Invariant: encoder and decoder compute the class of a symbol from the same integers, with integer arithmetic alone, so
the result does not depend on the machine, its libraries or its threads. Floats appear nowhere in this file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "ALPHABET",
    "CLASSES",
    "CLASS_OF",
    "DIRECT",
    "THRESHOLDS",
    "Block",
    "Counts",
    "all_classes",
    "extra_bits",
    "magnitude_class",
    "phases",
    "row_blocks",
    "token_base",
    "tokenize",
    "walk",
]

Ints: TypeAlias = npt.NDArray[np.int64]

#: Magnitudes below this have a token of their own for either sign; larger ones share a token within a quarter octave.
DIRECT = 16
_SHARED = 4 * (31 - 4)
#: Number of tokens: zero, ± 1 … ± (DIRECT - 1), then four per octave up to 2^31.
ALPHABET = 2 * DIRECT - 1 + _SHARED

#: Lower ends of the classes, in 1/64 of a quantiser step: two classes per octave.
THRESHOLDS = np.array(
    [1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1024, 1448, 2048, 4096, 8192, 16384]
)
CLASSES = len(THRESHOLDS) + 1
_UNIT = 64
_MAX_ESTIMATE = 1 << 15
CLASS_OF = np.searchsorted(THRESHOLDS, np.arange(_MAX_ESTIMATE), side="right").astype(np.uint8)
_MAX_MAGNITUDE = 1 << 20

#: What one observed symbol adds to a count, and what all of a class's prior adds up to (in the same unit).
_INCREMENT = 32
_PRIOR = 48 * _INCREMENT
#: A class whose counts add up to more has them halved: what was seen last weighs more, and sums stay small.
_LIMIT = 1 << 19
#: A block is grown until it holds about this many symbols: larger blocks are faster, smaller ones adapt sooner.
_BLOCK = 1 << 14
_FEW = 256


def tokenize(symbols: npt.NDArray[np.int32]) -> tuple[Ints, Ints]:
    """Split symbols of any shape into (token, extra): extra holds the bits that the token leaves open.

    >>> [int(t) for t in tokenize(np.array([0, 1, -1, 15, -16, 100], np.int32))[0]]
    [0, 1, 2, 29, 31, 41]
    """
    magnitude = np.abs(symbols.astype(np.int64))
    token = 2 * magnitude - (symbols > 0)
    extra = np.zeros_like(token)
    large = np.flatnonzero(magnitude >= DIRECT)
    if large.size:
        m = magnitude.ravel()[large]
        negative = (symbols.ravel()[large] < 0).astype(np.int64)
        octave = np.frexp(m.astype(np.float64))[1].astype(np.int64) - 1  # exact: m < 2^53
        quarter = (m >> (octave - 2)) & 3
        token.ravel()[large] = 2 * DIRECT - 1 + 4 * (octave - 4) + quarter
        extra.ravel()[large] = ((m & ((1 << (octave - 2)) - 1)) << 1) | negative
    return token, extra


def extra_bits(token: int) -> int:
    """How many raw bits follow a token (0 for the ones that stand for one symbol)."""
    return 0 if token < 2 * DIRECT - 1 else (token - (2 * DIRECT - 1)) // 4 + 4 - 2 + 1


def token_base(token: int) -> int:
    """The smallest magnitude that a shared token stands for."""
    octave, quarter = divmod(token - (2 * DIRECT - 1), 4)
    return (4 + quarter) << (octave + 2)


def magnitude_class(total: int, count: int) -> int:
    """The class of a plane whose `count` symbols have magnitudes that add up to `total`."""
    return int(CLASS_OF[min(_UNIT * total // max(count, 1), _MAX_ESTIMATE - 1)])


def _prior_table() -> Ints:
    """Two-sided geometric distributions, one per class, as integer counts (CLASSES, ALPHABET), in fixed point."""
    one = 1 << 40
    edges = [0, *(int(t) for t in THRESHOLDS), 32768]
    table = np.ones((CLASSES, ALPHABET), np.int64)
    for k in range(CLASSES):
        # E|q| = 2θ/(1-θ²), so θ = (sqrt(1 + μ²) - 1)/μ with μ = the class's mid-point over _UNIT.
        mean = max((edges[k] + edges[k + 1]) * one // (2 * _UNIT), one // 512)
        theta = (math.isqrt(one * one + mean * mean) - one) * one // mean
        mass, magnitude = one, [one]
        for _ in range(DIRECT - 1):
            mass = mass * theta // one
            magnitude.append(mass)
        tail = mass * theta // max(one - theta, 1)
        total = magnitude[0] + 2 * (sum(magnitude[1:]) + tail)
        table[k, 0] += _PRIOR * magnitude[0] // total
        for m in range(1, DIRECT):
            table[k, 2 * m - 1 : 2 * m + 1] += _PRIOR * magnitude[m] // total
        left = 2 * tail
        for octave in range(4, 12):
            share = left // 2
            first = 2 * DIRECT - 1 + 4 * (octave - 4)
            table[k, first : first + 4] += _PRIOR * share // (4 * total)
            left -= share
    return table


_PRIORS = _prior_table()
_PRIORS.setflags(write=False)


class Counts:
    """Adaptive counts of one kind of plane: an int64 array (classes, alphabet) that starts at the prior."""

    def __init__(self, table: Ints | None = None) -> None:
        self.table = _PRIORS.copy() if table is None else table

    @classmethod
    def uniform(cls, classes: int, alphabet: int) -> Counts:
        """Counts for symbols without order (bytes), which start equal."""
        return cls(np.full((classes, alphabet), 2, np.int64))

    def copy(self) -> Counts:
        """An independent copy: what a trial encoding may change."""
        return Counts(self.table.copy())

    def update(self, classes: npt.NDArray[np.uint8], tokens: Ints) -> None:
        """Count a block's tokens (n,) under their classes (n,)."""
        places = classes * np.int64(self.table.shape[1]) + tokens
        if len(places) < _FEW:  # the same, without touching the whole table
            np.add.at(self.table.ravel(), places, _INCREMENT)
            touched = np.unique(classes).astype(np.int64)
        else:
            self.table += _INCREMENT * np.bincount(places, minlength=self.table.size).reshape(self.table.shape)
            touched = np.arange(len(self.table))
        for k in touched[self.table[touched].sum(axis=1) > _LIMIT]:
            self.table[k] = (self.table[k] + 1) >> 1


class Block(NamedTuple):
    """Rows `start:stop` and every column of one phase; `classes` (rows, columns) says how to code them."""

    start: int
    stop: int
    columns: slice
    classes: npt.NDArray[np.uint8]


class _Phase(NamedTuple):
    """Every `stride`-th column from `first`; `reach` columns to either side are known by then (0: none is)."""

    first: int
    stride: int
    reach: int

    def columns(self, width: int) -> slice:
        return slice(self.first, width, self.stride)

    def known(self, width: int) -> int:
        """How many columns the phases before this one have coded."""
        return (0, (width + 3) // 4, (width + 1) // 2)[_PHASES.index(self)]


_PHASES = (_Phase(0, 4, 0), _Phase(2, 4, 2), _Phase(1, 2, 1))


def row_blocks(rows: int, width: int) -> Iterator[tuple[int, int]]:
    """The blocks' rows, start and stop: one row each at first, then a quarter of what has gone before."""
    start = 0
    while start < rows:
        stop = min(rows, start + max(1, min(start // 4, _BLOCK // max(width, 1))))
        yield start, stop
        start = stop


def phases(width: int) -> list[slice]:
    """The columns of each phase that has any, in coding order."""
    return [phase.columns(width) for phase in _PHASES if phase.first < width]


def walk(symbols: npt.NDArray[np.int32], hint: int) -> Iterator[Block]:
    """Yield a plane's blocks in coding order, each with its classes.

    `symbols` (rows, columns) is read as the walk goes on: a decoder fills a block in before it asks for the next one.
    `hint` is the plane's `magnitude_class`, which stands in for statistics until there are some.
    """
    rows, width = symbols.shape
    sums, total = np.zeros(width, np.int64), 0
    for start, stop in row_blocks(rows, width):
        mean, column = _running_means(sums, np.int64(total), np.int64(start), hint)
        magnitudes = np.zeros((stop - start, width + 4), np.int64)  # two columns of margin on either side
        row_sums = np.zeros(stop - start, np.int64)
        for phase in _PHASES:
            columns = phase.columns(width)
            if phase.first < width:
                yield Block(start, stop, columns, _classes(phase, column[columns], mean, row_sums, magnitudes))
                fresh = np.minimum(np.abs(symbols[start:stop, columns].astype(np.int64)), _MAX_MAGNITUDE)
                magnitudes[:, phase.first + 2 : width + 2 : phase.stride] = fresh
                row_sums += fresh.sum(axis=1)
        sums += magnitudes[:, 2:-2].sum(axis=0)
        total += int(row_sums.sum())


def all_classes(symbols: npt.NDArray[np.int32], hint: int) -> npt.NDArray[np.uint8]:
    """The classes (rows, columns) that `walk` gives, all at once, for who knows all symbols already.

    Several times faster than the walk where there are many small blocks; takes some 40 bytes a symbol.
    """
    rows, width = symbols.shape
    blocks = np.array(list(row_blocks(rows, width)), np.int64)
    start = np.repeat(blocks[:, 0], blocks[:, 1] - blocks[:, 0])  # of the block that each row is in
    magnitudes = np.zeros((rows, width + 4), np.int64)
    inner = magnitudes[:, 2:-2]
    np.minimum(np.abs(symbols.astype(np.int64)), _MAX_MAGNITUDE, out=inner)
    sums = np.zeros((rows + 1, width), np.int64)
    np.cumsum(inner, axis=0, out=sums[1:])
    mean, column = _running_means(sums[start], sums.sum(axis=1)[start], start, hint)
    row_sums, classes = np.zeros(rows, np.int64), np.zeros(symbols.shape, np.uint8)
    for phase in _PHASES:
        columns = phase.columns(width)
        if phase.first < width:
            classes[:, columns] = _classes(phase, column[:, columns], mean, row_sums, magnitudes)
            row_sums += inner[:, columns].sum(axis=1)
    return classes


def _running_means(sums: Ints, total: Any, start: Any, hint: int) -> tuple[Any, Ints]:
    """Mean magnitude of all rows before `start`, and of each column, in units of 1/64, drawn towards what is expected.

    `sums` (columns) and scalars for one block, or (rows, columns) and vectors (rows,) for many.
    """
    expected = max(int(THRESHOLDS[hint - 1]) if hint else 0, 1)
    mean = (_UNIT * total + 64 * expected) // (start * sums.shape[-1] + 64)
    column: Ints = (_UNIT * sums + 4 * mean[..., None]) // (start[..., None] + 4)
    return mean, column


def _classes(phase: _Phase, column: Ints, mean: Any, row_sums: Ints, magnitudes: Ints) -> npt.NDArray[np.uint8]:
    """Classes (rows, columns of the phase) from the column's mean, the row's mean and the two nearest known columns.

    `column` is (columns of the phase) or (rows, columns of the phase), `mean` a scalar or (rows,).
    """
    if phase.reach == 0:
        estimate = np.broadcast_to(column, (len(row_sums), column.shape[-1]))
    else:
        width = magnitudes.shape[1] - 4
        row = (_UNIT * row_sums + 16 * mean) // (phase.known(width) + 16)
        separable = column * row[:, None] // np.maximum(mean, 1)[..., None]
        left = magnitudes[:, phase.first + 2 - phase.reach : width + 2 - phase.reach : phase.stride]
        right = magnitudes[:, phase.first + 2 + phase.reach : width + 2 + phase.reach : phase.stride]
        near = (_UNIT // 2) * (left + right[:, : left.shape[1]])
        if phase.first + (left.shape[1] - 1) * phase.stride + phase.reach >= width:  # the last one has one neighbour
            near[:, -1] = (_UNIT // 2) * left[:, -1] + row // 2
        estimate = (3 * separable + near) // 4
    return CLASS_OF[np.minimum(estimate, _MAX_ESTIMATE - 1)]

"""Dependent quantisation: two quantisers, and a state machine that says which one a symbol belongs to.

Quantiser 0 has the even multiples of the step, quantiser 1 the odd ones and zero. The parities of a row's symbols drive
a machine of 8 to 64 states, in the order of the row; a state's lowest bit is the quantiser of the next symbol. A path
through the machine packs space better than a grid does, and through a larger machine better still (trellis-coded
quantisation: Marcellin and Fischer, 1990; with these two quantisers: Schwarz et al., 2019). The machines are those of
Ungerboeck's (1982) codes for amplitude modulation, by their parity-check polynomials.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from evocompress.codecs.compiled import compiled

__all__ = ["KINDS", "MACHINES", "Kind", "Machine", "TrellisKind", "following_of", "levels", "quantisers"]

TrellisKind: TypeAlias = Literal["trellis", "trellis-16", "trellis-32", "trellis-64"]
#: What a plane holds. "weights": signed integers whose magnitude means something; "bytes": values 0 … 255; "trellis…":
#: as weights, of a dependent quantiser.
Kind: TypeAlias = Literal["weights", "bytes"] | TrellisKind
#: The state after a symbol, (states, 2): by the state before it and the symbol's parity. Every row starts in state 0.
Machine: TypeAlias = npt.NDArray[np.int64]

#: The kind of a plane of symbols of each number of states.
KINDS: dict[int, TrellisKind] = {8: "trellis", 16: "trellis-16", 32: "trellis-32", 64: "trellis-64"}
_POLYNOMIALS = {8: (0o13, 0o04), 16: (0o23, 0o04), 32: (0o45, 0o10), 64: (0o103, 0o24)}


def _machine(states: int) -> Machine:
    feedback, parity = (polynomial >> 1 for polynomial in _POLYNOMIALS[states])
    return np.array([[s >> 1 ^ feedback * (s & 1) ^ parity * p for p in (0, 1)] for s in range(states)], np.int64)


#: Machines by their number of states.
MACHINES: dict[int, Machine] = {states: _machine(states) for states in KINDS}
_STILL: Machine = np.zeros((1, 2), np.int64)
_BY_KIND: dict[str, Machine] = {kind: MACHINES[states] for states, kind in KINDS.items()}


def following_of(kind: str) -> Machine:
    """The machine of a plane of this kind; one that has a single state where the kind is not a trellis's."""
    return _BY_KIND.get(kind, _STILL)


@compiled
def levels(symbols: npt.NDArray[np.int32], following: Machine) -> npt.NDArray[np.int64]:
    """Multiples of the step (rows, columns) that symbols (rows, columns) stand for; `following` is their machine.

    >>> levels(np.array([[1, 1, -1, 0, 2]], np.int32), MACHINES[8]).tolist()
    [[2, 2, -1, 0, 3]]
    """
    rows, columns = symbols.shape
    multiples = np.zeros((rows, columns), np.int64)
    for row in range(rows):
        state = np.int64(0)
        for column in range(columns):
            symbol = np.int64(symbols[row, column])
            multiple = 2 * symbol
            if state & 1:
                multiple -= np.int64(symbol > 0) - np.int64(symbol < 0)
            multiples[row, column] = multiple
            state = following[state, symbol & 1]
    return multiples


@compiled
def quantisers(symbols: npt.NDArray[np.int32], following: Machine) -> npt.NDArray[np.int64]:
    """Which quantiser, 0 or 1, each of the symbols (rows, columns) belongs to; `following` is their machine.

    >>> quantisers(np.array([[1, 1, -1, 0, 2]], np.int32), MACHINES[8]).tolist()
    [[0, 0, 1, 0, 1]]
    """
    rows, columns = symbols.shape
    quantiser = np.zeros((rows, columns), np.int64)
    for row in range(rows):
        state = np.int64(0)
        for column in range(columns):
            quantiser[row, column] = state & 1
            state = following[state, np.int64(symbols[row, column]) & 1]
    return quantiser

"""Dependent quantisation: two quantisers, and a state machine that says which one a symbol belongs to.

Quantiser 0 has the even multiples of the step, quantiser 1 the odd ones and zero. The parities of a row's symbols drive
a machine of eight states, in the order of the row; a state's lowest bit is the quantiser of the next symbol. A path
through the machine packs space better than a grid does (trellis-coded quantisation: Marcellin and Fischer, 1990; with
these two quantisers: Schwarz et al., 2019). The machine is Ungerboeck's (1982) code of eight states with parity-check
polynomials 13 and 04 (octal).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evocompress.codecs.compiled import compiled

__all__ = ["NEXT", "STATES", "levels", "quantisers"]

STATES = 8
#: The state after a symbol: NEXT[state, parity of the symbol]. Every row starts in state 0.
NEXT: npt.NDArray[np.int64] = np.array(
    [
        [(state & 1 ^ state >> 1 & 1) | (state >> 2 & 1 ^ parity) << 1 | (state & 1) << 2 for parity in (0, 1)]
        for state in range(STATES)
    ],
    np.int64,
)


@compiled
def levels(symbols: npt.NDArray[np.int32], following: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Multiples of the step (rows, columns) that symbols (rows, columns) stand for; `following` is `NEXT`.

    >>> levels(np.array([[1, 1, -1, 0, 2]], np.int32), NEXT).tolist()
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
def quantisers(symbols: npt.NDArray[np.int32], following: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which quantiser, 0 or 1, each of the symbols (rows, columns) belongs to; `following` is `NEXT`.

    >>> quantisers(np.array([[1, 1, -1, 0, 2]], np.int32), NEXT).tolist()
    [[0, 0, 1, 0, 1]]
    """
    rows, columns = symbols.shape
    found = np.zeros((rows, columns), np.int64)
    for row in range(rows):
        state = np.int64(0)
        for column in range(columns):
            found[row, column] = state & 1
            state = following[state, np.int64(symbols[row, column]) & 1]
    return found

"""Rate-distortion optimised choice of symbols: what every quantiser here has in common.

Each symbol is chosen to minimise squared error + price·bits, the bits taken from the entropy coder's own context
classes (entropy-constrained quantisation: Chou, Lookabaugh and Gray, 1989).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from evocompress.codecs.codec import Floats
from evocompress.codecs.contexts import tokenize
from evocompress.codecs.entropy import Symbols, classes_of, rate_table

__all__ = ["rate_optimised"]


def rate_optimised(
    symbols: Symbols, candidates: npt.NDArray[np.int32], error: Floats, price: float, passes: int
) -> Symbols:
    """A plane (rows, columns) whose non-zero symbols are chosen anew among candidates.

    Args:
        symbols: The plane to start from; its zeros stay.
        candidates: What each non-zero symbol may become, int32 (choices, n), in the order of `np.flatnonzero(symbols)`.
        error: Squared error of each candidate, (choices, n).
        price: Squared error that one bit is worth.
        passes: How often to choose; each time under the rates of the symbols of the time before.
    """
    nonzero = np.flatnonzero(symbols)
    tokens = tokenize(candidates)[0]
    symbols = symbols.copy()
    for _ in range(passes if nonzero.size else 0):
        classes = classes_of(symbols)
        rates = price * rate_table(classes, symbols)
        score = error + rates.ravel()[classes.ravel()[nonzero] * np.int64(rates.shape[1]) + tokens]
        choice = score.argmin(axis=0)
        symbols.ravel()[nonzero] = np.take_along_axis(candidates, choice[None], axis=0)[0]
    return symbols

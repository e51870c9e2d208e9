"""A codec stage in a package of its own: sums and differences of filters that lie side by side."""

import dataclasses
from typing import ClassVar

import numpy as np

from evocompress.codecs.codec import varint


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Filters a, b that lie 2^`level` apart become (a + b)/√2 and (a - b)/√2, so that errors keep their size."""

    id: ClassVar[str] = "pairs"
    number: ClassVar[int] = 48  # any from 48 to 63: the name stands beside it in files
    terminal: ClassVar[bool] = False  # a transform; a quantiser ends the chain: pairs+deadzone

    level: int = 0

    def encode(self, x, cost, rest):
        """Hand the changed array to the rest of the chain; the level goes into the file."""
        coded = rest.encode(butterflies(x, self.level), cost)
        return coded._replace(side=varint(self.level) + coded.side)

    def layout(self, side, shape, rest):
        """What the decoder is about to read: the level, then what the rest says."""
        side.integer(0, 20)
        return rest.layout(side, shape)

    def decode(self, planes, side, shape, rest):
        """Sums and differences once more give the filters back."""
        level = side.integer(0, 20)
        return butterflies(rest.decode_from(planes, side, shape), level)


def butterflies(x, level):
    """Of an array (filters, ...); those at the end that have no partner stay as they are."""
    whole = len(x) >> level + 1 << level + 1 if x.ndim > 1 and x.size else 0
    if not whole:
        return x
    a, b = x[:whole].reshape(-1, 2, 1 << level, *x.shape[1:]).swapaxes(0, 1)
    pairs = np.stack([a + b, a - b], axis=1) / np.sqrt(2)
    return np.concatenate([pairs.reshape(x[:whole].shape), x[whole:]])

"""Thresholding of coefficients: hard keeps what is large, soft also shrinks it (Donoho and Johnstone, 1994)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import ClassVar, Literal, get_args

import numpy as np

from evocompress.codecs.codec import Codec, Coded, Cost, Floats, Layout, Shape, SideReader
from evocompress.codecs.entropy import Symbols
from evocompress.errors import CodecError

__all__ = ["Threshold"]

Mode = Literal["hard", "soft"]


@dataclasses.dataclass(frozen=True)
class Threshold:
    """Sets coefficients below a threshold to zero.

    The threshold is where dropping a coefficient saves as much as it costs if a coefficient that is kept takes `bits`
    bits: sqrt(bits·λ/sensitivity). The decoder has nothing to do.
    """

    id: ClassVar[str] = "threshold"
    number: ClassVar[int] = 17
    terminal: ClassVar[bool] = False

    mode: Mode = "hard"
    bits: float = 3.0

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise CodecError(f"threshold: mode is {self.mode!r}; it must be one of {', '.join(get_args(Mode))}.")
        if not 0 <= self.bits <= 1000:
            raise CodecError(f"threshold: bits is {self.bits}; it must lie in [0, 1000].")

    def encode(self, x: Floats, cost: Cost, rest: Codec) -> Coded:
        """Threshold, then hand on."""
        import pywt  # here alone: a decoder does without it

        threshold = math.sqrt(self.bits * cost.price)
        kept = pywt.threshold(x, threshold, mode=self.mode) if threshold > 0 and x.size else x
        return rest.encode(np.asarray(kept, np.float64), cost)

    def layout(self, side: SideReader, shape: Shape, rest: Codec) -> list[Layout]:
        """That of the rest."""
        return rest.layout(side, shape)

    def decode(self, planes: Iterator[Symbols], side: SideReader, shape: Shape, rest: Codec) -> Floats:
        """That of the rest."""
        return rest.decode_from(planes, side, shape)

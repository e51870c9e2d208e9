"""The choice of a codec for one tensor: every candidate is tried, and the least distortion + λ·bits wins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from evocompress.codecs.codec import Codec, Coded, Cost, Floats
from evocompress.codecs.coders import count_bits
from evocompress.errors import CodecError

__all__ = ["Trial", "best", "choose", "try_codec"]

_LARGEST = 2.0**500


class Trial(NamedTuple):
    """One codec's result: `distortion` is what its error costs, `bits` the ideal code length with side information."""

    codec: Codec
    coded: Coded
    distortion: float
    bits: float
    score: float


def try_codec(codec: Codec, x: Floats, cost: Cost, state: Any) -> Trial:
    """Encode and decode x, and count what its symbols would cost next in a file whose statistics are `state`."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):  # what overflows scores inf, or NaN, and loses
        coded = codec.encode(x, cost)
        counter = count_bits(state)
        for plane in coded.planes:
            counter.plane(plane.symbols, plane.kind)
        bits = counter.bits + 8.0 * len(coded.side)
        distortion = cost.distortion(codec.decode(coded, x.shape) - x)
    return Trial(codec, coded, distortion, bits, distortion + cost.rate_weight * bits)


def best(candidates: Sequence[Codec], x: Floats, cost: Cost, state: Any) -> Trial:
    """The candidate of least score; the first of equals.

    Raises:
        CodecError: There is no candidate, or a weight's square overflows.
    """
    _check(candidates, x)
    trials = [try_codec(codec, x, cost, state) for codec in candidates]
    return min(trials, key=lambda trial: math.inf if math.isnan(trial.score) else trial.score)


def choose(candidates: Sequence[Codec], x: Floats, cost: Cost, state: Any) -> tuple[Codec, Coded]:
    """The `best` candidate and what it made of x; one that is alone is not tried, only used.

    Raises:
        CodecError: There is no candidate, or a weight's square overflows.
    """
    _check(candidates, x)
    if len(candidates) == 1:
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            return candidates[0], candidates[0].encode(x, cost)
    trial = best(candidates, x, cost, state)
    return trial.codec, trial.coded


def _check(candidates: Sequence[Codec], x: Floats) -> None:
    if not candidates:
        raise CodecError("A tensor has no candidate codecs; name at least one in its rule.")
    largest = float(np.abs(x).max(initial=0.0))
    if largest > _LARGEST:
        raise CodecError(
            f"A weight of magnitude {largest:.3g} is beyond {_LARGEST:.3g}, where squared errors overflow."
        )

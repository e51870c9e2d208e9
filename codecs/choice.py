"""The choice of a codec for one tensor: every candidate is tried, and the least distortion + λ·bits wins."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from evocompress.codecs.codec import Codec, Coded, Cost, Floats
from evocompress.codecs.coders import count_bits
from evocompress.codecs.planes import kernel_places
from evocompress.codecs.simple_tensors import simple_codecs
from evocompress.errors import CodecError

__all__ = ["Trial", "best", "choose", "try_codec"]

_LARGEST = 2.0**500
_SAMPLE = 1 << 18  # weights that candidates are tried on: of larger tensors, rows at even distances


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
            counter.plane(plane.symbols, plane.kind, kernel_places(x.shape))
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

    Of tensors of more than 2^18 weights a sample decides, so that the work in memory is that on one candidate. Where
    x is much simpler than trained weights, `simple_codecs` are candidates too.

    Raises:
        CodecError: There is no candidate, or a weight's square overflows.
    """
    _check(candidates, x)
    candidates = (*candidates, *simple_codecs(x, cost))
    codec = candidates[0]
    if len(candidates) > 1:
        sample = _sample(x, cost)
        trial = best(candidates, *sample, state)
        if sample[0] is x:
            return trial.codec, trial.coded
        codec = trial.codec
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        return codec, codec.encode(x, cost)


def _sample(x: Floats, cost: Cost) -> tuple[Floats, Cost]:
    """Slices of x along its longest axis, about 2^18 weights, and what their errors cost; a small x itself."""
    stride = -(-x.size // _SAMPLE)
    if stride <= 1 or x.ndim == 0:
        return x, cost
    sensitivity = cost.sensitivity
    if sensitivity is None:
        every = [slice(None)] * x.ndim
        every[int(np.argmax(x.shape))] = slice(None, None, stride)
        return x[tuple(every)], cost
    if sensitivity.groups > 1:
        return x, cost  # rows at even distances need not be as many in each group
    return x[::stride], Cost(cost.rate_weight, cost.scale, dataclasses.replace(sensitivity, g=sensitivity.g[::stride]))


def _check(candidates: Sequence[Codec], x: Floats) -> None:
    if not candidates:
        raise CodecError("A tensor has no candidate codecs; name at least one in its rule.")
    largest = max(float(x.max(initial=0.0)), -float(x.min(initial=0.0)))
    if largest > _LARGEST:
        raise CodecError(
            f"A weight of magnitude {largest:.3g} is beyond {_LARGEST:.3g}, where squared errors overflow."
        )

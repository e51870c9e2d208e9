"""Whole files through `pack` and `unpack`, one preset after the other: bytes, error and speed on one matrix."""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

import numpy as np
import numpy.typing as npt

import evocompress
from evocompress.checkpoint.presets import preset
from evocompress.checkpoint.recipe import Recipe

__all__ = ["PRESETS", "bracket", "files"]

PRESETS = ("fast", "balanced", "best")
_NAME = "weight"


def _error(weights: npt.NDArray[np.float32], rate_weight: float) -> float:
    """Mean squared error of a file. By `fast`: on a matrix all presets quantise alike, and differ in their coders."""
    data = evocompress.pack({_NAME: weights}, preset("fast", rate_weight))
    decoded = evocompress.unpack(data, framework="numpy")[_NAME]
    return float(((decoded.astype(np.float64) - weights) ** 2).mean())


def bracket(weights: npt.NDArray[np.float32], error: float) -> tuple[float, float]:
    """Two λ next to each other, about 2 % apart or less: the error is `error` or less at the first, more at the second.

    Steps are coded coarsely, so the error jumps as λ grows: none need give just `error`.
    """
    low, high = 1e-4, 1e-3
    while _error(weights, low) > error:
        low, high = low / 10, low
    while _error(weights, high) <= error:
        low, high = high, high * 10
    while high / low > 1.02:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _error(weights, middle) <= error else (low, middle)
    return low, high


def files(
    weights: npt.NDArray[np.float32], rate_weights: tuple[float, float], rounds: int, error: float | None
) -> dict[str, dict[str, Any]]:
    """Each preset's file: bytes, squared error, M weights a second (medians) encoding and decoding.

    All of that is at the first λ. `bytes_at_error` is at `error`, which lies between the errors of both λ: log bytes
    interpolated over log error.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name in PRESETS:
        recipes = [preset(name, rate_weight) for rate_weight in rate_weights]
        _timed(weights[:64, :64], recipes[0])  # compiles
        trials = [_timed(weights, recipes[0]) for _ in range(rounds)]
        nbytes, found = trials[-1][:2]
        row: dict[str, Any] = {"bytes": nbytes, "bits_per_weight": round(8 * nbytes / weights.size, 4), "error": found}
        for key, column in (("encode", 2), ("decode", 3)):
            seconds = statistics.median(trial[column] for trial in trials)
            row[f"{key}_mweights_per_s"] = round(weights.size / seconds / 1e6, 2)
        if error is not None:
            more, above = _timed(weights, recipes[1])[:2]
            share = math.log(error / found) / math.log(above / found)
            row["bytes_at_error"] = round(nbytes * (more / nbytes) ** share)
        rows[name] = row
    return rows


def _timed(weights: npt.NDArray[np.float32], recipe: Recipe) -> tuple[int, float, float, float]:
    """Bytes, mean squared error, seconds to encode and to decode."""
    begin = time.perf_counter()
    data = evocompress.pack({_NAME: weights}, recipe)
    middle = time.perf_counter()
    decoded = evocompress.unpack(data, framework="numpy")[_NAME]
    end = time.perf_counter()
    return len(data), float(((decoded.astype(np.float64) - weights) ** 2).mean()), middle - begin, end - middle

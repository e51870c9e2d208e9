"""Rate-distortion curves of codecs and presets on one checkpoint: every point is a file, packed and decoded again."""

from __future__ import annotations

import csv
import dataclasses
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import scipy  # its parts are imported when they are first used, which takes half a second

from evocompress.checkpoint.packing import Array, pack, to_numpy, unpack
from evocompress.checkpoint.presets import preset
from evocompress.checkpoint.recipe import Recipe, Rule
from evocompress.checkpoint.size_prior import size_prior
from evocompress.codecs import LOSSLESS, parse_codec
from evocompress.codecs.dtypes import is_float, name_of
from evocompress.errors import ConfigError, EvocompressError
from evocompress.protocols import Observer, reporting
from evocompress.support.atomic_files import replacing
from evocompress.support.wording import counted

__all__ = [
    "Curve",
    "CurvePoint",
    "Curves",
    "bits_at",
    "by_codec",
    "curve_points",
    "preset_label",
    "rate_weights",
    "write_csv",
]

_HALVINGS = 80  # of the interval in which a rate weight is sought: to the last digit of a float64


@dataclasses.dataclass(frozen=True)
class CurvePoint:
    """One file: its codec (or preset, by its `preset_label`) and λ, its size, and what the weights lost.

    `squared_error` and `snr_db`, 10·log10(Σ weight² / Σ error²), are over the tensors that the codec codes: those of
    two or more dimensions, or all floats where there is none of these. They are of the decoded file. `nbytes` and
    `bits_per_weight` are of the whole file, header and vectors included.
    """

    codec: str
    rate_weight: float
    nbytes: int
    bits_per_weight: float
    squared_error: float
    snr_db: float
    pack_seconds: float


Curve: TypeAlias = Sequence[CurvePoint]
"""The points of one codec, in the order of their rate weights."""
Curves: TypeAlias = Mapping[str, Curve]
"""Curves by the name of their codec."""


def curve_points(
    state_dict: Mapping[str, object],
    codecs: Sequence[str],
    ladder: Sequence[float],
    presets: Sequence[str] = (),
    *,
    observer: Observer | None = None,
) -> Iterator[CurvePoint]:
    """Pack the whole state dict with every codec and preset at every rate weight, decode each file and measure it.

    A codec codes the tensors of two or more dimensions; the others follow the default rule, whatever the codec. A
    preset makes the file that the command `pack` makes from the weights alone: with the preset's entropy coder, and
    with rates that `size_prior` shares out among the tensors.

    Args:
        state_dict: Names to torch tensors or numpy arrays, as for `pack`.
        codecs: Names in `CODECS`, or stages written out.
        ladder: Rate weights λ, squared error per bit.
        presets: Names in `PRESETS`.
        observer: Hears how far all files together are, as `protocols.reporting` says it.

    Raises:
        ConfigError: A codec is lossless: it has one point, without an error, and no curve.
        CodecError: An unknown codec or preset, a bad λ, or a tensor that cannot be packed.
        EvocompressError: The state dict has no weights of a floating dtype.

    >>> state = {"w": np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)}
    >>> fine, rough = curve_points(state, ["deadzone"], [1e-4, 1e-1])
    >>> fine.nbytes > 2 * rough.nbytes and fine.snr_db > rough.snr_db + 20
    True
    """
    arrays = {name: to_numpy(name, value) for name, value in state_dict.items()}
    prior = size_prior(arrays) if presets else {}
    trials = [_Trial(codec, _recipe(codec, arrays, weight), {}) for codec in codecs for weight in ladder]
    trials += [_Trial(preset_label(name), preset(name, weight), prior) for name in presets for weight in ladder]
    measured, warm = _measured(arrays), set[str]()
    tell, what = observer or (lambda event: None), f"packing {counted(len(trials), 'file')}"
    with reporting(tell, what) as done:
        for number, trial in enumerate(trials, 1):
            if trial.label not in warm:  # a codec's first call may compile: that is not the checkpoint's time
                warm.add(trial.label)
                pack({"w": np.eye(8)}, dataclasses.replace(trial.recipe, rate_weight=1e-3))
            point = _point(trial, arrays, measured)
            if number < len(trials):
                done(number / len(trials))
            yield point


def preset_label(name: str) -> str:
    """What a preset's curve is called, so that it is not taken for a codec's.

    >>> preset_label("best")
    'preset best'
    """
    return f"preset {name}"


def rate_weights(
    state_dict: Mapping[str, object], *, bits: tuple[float, float] = (8.0, 0.5), count: int = 8
) -> tuple[float, ...]:
    """A geometric ladder of `count` rate weights λ that takes this state dict from about `bits[0]` to `bits[1]`.

    A tensor of mean square σ² at the rate weight λ takes max(0, log2(2·ln2·σ²/λ)/2) bits per weight, as a Gaussian
    source does where a bit buys squared error λ (reverse water-filling: Cover and Thomas, 2006, section 10.3.3). The
    two ends of the ladder are where the mean over all weights is `bits`; so it follows the scale of the weights.

    >>> state = {"w": np.full((16, 16), 10.0)}
    >>> [round(weight, 3) for weight in rate_weights(state, bits=(2.0, 1.0), count=2)]
    [8.664, 34.657]
    """
    arrays = {name: to_numpy(name, value) for name, value in state_dict.items()}
    recipe = _recipe("deadzone", arrays, 1.0)
    sizes, powers = [], []
    for name in _measured(arrays):
        array = arrays[name]
        with np.errstate(over="ignore", invalid="ignore"):
            power = float(np.mean(np.square(array, dtype=np.float64))) if array.size else 0.0
        if 0 < power < math.inf:  # of what is left out, NaN is for `pack` to refuse, and zeros cost next to nothing
            sizes.append(array.size)
            powers.append(2 * math.log(2) * power / recipe.rule(name, array.ndim).rate_factor)
    if not sizes:
        sizes, powers = [1], [1.0]
    low, high = (_log_rate_weight(rate, np.array(sizes), np.log2(powers)) for rate in bits)
    return tuple(float(weight) for weight in np.exp2(np.linspace(low, high, count)))


def write_csv(points: Iterable[CurvePoint], path: Path) -> None:
    """Write points as rows of a CSV file, whole or not at all; the columns are the fields, `nbytes` as `bytes`."""
    names = [field.name.replace("nbytes", "bytes") for field in dataclasses.fields(CurvePoint)]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(names)
        rows.writerows(dataclasses.astuple(point) for point in points)


def by_codec(points: Iterable[CurvePoint]) -> dict[str, list[CurvePoint]]:
    """Points sorted into one curve for each codec, codecs in the order of their first point."""
    curves: dict[str, list[CurvePoint]] = {}
    for point in points:
        curves.setdefault(point.codec, []).append(point)
    return curves


def bits_at(curve: Curve, snr_db: Sequence[float]) -> list[float]:
    """Bits per weight that a codec needs for these signal-to-noise ratios (dB); NaN beyond what was measured.

    Their logarithm is interpolated over the ratio by a monotone cubic (PCHIP: Fritsch and Carlson, 1980).
    """
    kept: list[CurvePoint] = []  # so that the curve is a function and rises
    for point in sorted(curve, key=lambda point: (point.nbytes, -point.snr_db)):
        if math.isfinite(point.snr_db) and point.snr_db > (kept[-1].snr_db if kept else -math.inf):
            kept.append(point)
    if len(kept) < 2:
        return [math.nan] * len(snr_db)
    logs = np.log([point.bits_per_weight for point in kept])
    between = scipy.interpolate.PchipInterpolator([point.snr_db for point in kept], logs, extrapolate=False)
    values: list[float] = np.exp(between(snr_db)).tolist()
    return values


class _Trial(NamedTuple):
    """A file that is to be made: what its curve is called, and what `pack` is given besides the tensors."""

    label: str
    recipe: Recipe
    sensitivities: Mapping[str, float]


def _recipe(codec: str, arrays: Mapping[str, Array], weight: float) -> Recipe:
    """This codec for what has two or more dimensions; a recipe refuses rules that no tensor meets."""
    if parse_codec(codec) == LOSSLESS:
        raise ConfigError(f"Codec {codec!r} has no curve: it makes no error at any rate weight; leave it out.")
    matrices = any(array.ndim >= 2 for array in arrays.values())
    return Recipe(weight, (Rule(codecs=(codec,), dims="matrix"),) if matrices else ())


def _measured(arrays: Mapping[str, Array]) -> list[str]:
    """Names of the tensors whose error counts."""
    floats = [name for name, array in arrays.items() if is_float(name_of(array.dtype)) and array.size]
    if not floats:
        raise EvocompressError("There are no weights of a floating dtype, so there is no error to draw a curve of.")
    return [name for name in floats if arrays[name].ndim >= 2] or floats


def _point(trial: _Trial, arrays: Mapping[str, Array], measured: Sequence[str]) -> CurvePoint:
    began = time.perf_counter()
    data = pack(arrays, trial.recipe, sensitivities=trial.sensitivities)
    seconds = time.perf_counter() - began
    decoded = unpack(data, framework="numpy")
    signal = error = 0.0
    for name in measured:
        exact = arrays[name].astype(np.float64)
        signal += float(np.square(exact).sum())
        error += float(np.square(exact - decoded[name]).sum())
    snr = 10 * math.log10(signal / error) if signal and error else math.inf
    weights = sum(array.size for array in arrays.values())
    bits = 8 * len(data) / weights
    return CurvePoint(trial.label, trial.recipe.rate_weight, len(data), bits, error, snr, seconds)


def _log_rate_weight(rate: float, sizes: Array, log_powers: Array) -> float:
    """log2 of the λ at which the tensors take `rate` bits per weight in the mean, by bisection."""
    low, high = float(log_powers.min()) - 2 * rate, float(log_powers.max())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        bits = np.average(np.maximum(0.0, (log_powers - middle) / 2), weights=sizes)
        low, high = (middle, high) if bits > rate else (low, middle)
    return (low + high) / 2

"""Running statistics of normalisations: what they may be off by is told by the variances, not by their own size.

A mean counts in standard deviations of its channel, a variance relative to itself. One tensor may hold channels of very
different units, whose errors a common step, chosen for the largest, would make fatal for the smallest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from evocompress.codecs import LOSSLESS, Record

__all__ = ["kept_in_proportion"]

_MOST = 0.25  # standard deviations of a mean; share of a variance
_EPSILON = 1e-5  # torch's, which is added to variances
_FINER = (0.1, 1e-2, 1e-3, 1e-4, 0.0)  # of λ, tried in this order


def kept_in_proportion(
    name: str,
    array: npt.NDArray[np.generic],
    arrays: Mapping[str, npt.NDArray[np.generic]],
    encode: Callable[[float], Record],
) -> Record:
    """A tensor's record; of a running mean or variance a finer one where the first is out of proportion.

    Args:
        name: The tensor's. It is such a statistic where the state dict has both, under torch's names.
        array: What is coded of it: all, or a corner.
        arrays: The state dict.
        encode: Gives the record at λ times a factor; for 0 one without loss.
    """
    coarse = encode(1.0)
    stem, _, leaf = name.rpartition("running_")
    variance = arrays.get(f"{stem}running_var")
    if leaf not in ("mean", "var") or variance is None or coarse.codec == LOSSLESS:
        return coarse
    if variance.shape != arrays[name].shape or variance.ndim != 1 or not array.size:
        return coarse
    spread = np.maximum(variance[: len(array)].astype(np.float64), 0.0)
    unit = np.sqrt(spread) if leaf == "mean" else spread + _EPSILON
    if not np.isfinite(unit).all():
        return coarse
    values = array.astype(np.float64)
    return next((record for record in _finer(coarse, encode) if _fits(record, values, unit)), coarse)


def _finer(coarse: Record, encode: Callable[[float], Record]) -> Iterator[Record]:
    yield coarse
    yield from map(encode, _FINER)


def _fits(record: Record, values: npt.NDArray[np.float64], unit: npt.NDArray[np.float64]) -> bool:
    """Whether no channel is off by too much; those whose unit is 0 never varied, and do not count."""
    if record.codec == LOSSLESS:
        return True
    decoded = record.codec.decode(record.coded, record.shape)
    return bool((np.abs(decoded - values)[unit > 0] <= _MOST * unit[unit > 0]).all())

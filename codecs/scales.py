"""Positive scales in few bits: powers of 2^(1/8), named by an integer, the same float64 on every machine."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from evocompress.codecs.codec import Floats

__all__ = ["MAX_CODE", "MIN_CODE", "scale_code", "scale_codes", "scale_value", "scale_values"]

# 2^(i/8), written out: a machine's pow() need not be correctly rounded, a literal and ldexp() are.
_EIGHTHS = (
    1.0,
    1.0905077326652577,
    1.189207115002721,
    1.2968395546510096,
    1.4142135623730951,
    1.5422108254079407,
    1.681792830507429,
    1.8340080864093424,
)
MIN_CODE, MAX_CODE = -8 * 1000, 8 * 1000


def scale_code(value: float) -> int:
    """The code whose scale is nearest to a positive value (on a log axis), clipped to the codes that there are.

    >>> scale_code(1.0), scale_code(2.0), scale_code(0.0)
    (0, 8, -8000)
    """
    if value <= 0:
        return MIN_CODE
    return min(max(round(8 * math.log2(value)), MIN_CODE), MAX_CODE)


def scale_value(code: int) -> float:
    """2^(code/8).

    >>> scale_value(-12)
    0.3535533905932738
    """
    return math.ldexp(_EIGHTHS[code % 8], code // 8)


def scale_codes(values: Floats) -> npt.NDArray[np.int32]:
    """`scale_code` of every element."""
    with np.errstate(divide="ignore"):
        codes = np.rint(8 * np.log2(values))
    clipped: npt.NDArray[np.int32] = np.clip(codes, MIN_CODE, MAX_CODE).astype(np.int32)
    return clipped


def scale_values(codes: npt.NDArray[np.integer]) -> Floats:
    """`scale_value` of every element; codes out of range are clipped."""
    clipped = np.clip(codes.astype(np.int64), MIN_CODE, MAX_CODE)
    return np.asarray(np.ldexp(np.array(_EIGHTHS)[clipped % 8], clipped // 8), np.float64)

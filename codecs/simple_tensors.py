"""Cheap coding of tensors much simpler than trained weights: constants, masks, few different values, repeated rows.

A quantiser with a fixed step makes rough and, where the entropy coder has little to learn from, dear work of them. So
codecs that see what they are become candidates beside those of a tensor's rule, and the score decides. Files hold them
as stages 2 (`codebook`) and 25 (`coordinates`): no decoder knows of this page.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from evocompress.codecs.codebook import Codebook
from evocompress.codecs.codec import Codec, Coded, Cost, Floats, Plane, varint
from evocompress.codecs.coordinates import Coordinates
from evocompress.codecs.deadzone import DeadZone
from evocompress.codecs.planes import to_planes
from evocompress.codecs.scales import scale_code, scale_value

__all__ = ["FewValues", "simple_codecs"]

_MOST = 256  # values of a codebook in a file
_PER_VALUE = 4  # weights; with fewer a codebook cannot pay
_SAMPLE = 1 << 10  # weights that tell most tensors from those of few values
_BLOCK = 1 << 16  # weights that are looked at before the next decision to go on
_CORNER = 4  # weights along each axis that tell most tensors from those that repeat
_REPEATING = range(1 << 10, 1 << 18)  # weights: with fewer there is little to gain, with more it takes too long
_BITS = 29  # of a value in units of a codebook; differences of values take one more


def simple_codecs(x: Floats, cost: Cost) -> tuple[Codec, ...]:
    """Codecs that may suit x better than those for trained weights; none for most tensors, at the price of a glance."""
    values = _few_values(x)
    codecs = () if values is None else _codebooks(values, x.size, cost)
    constant = values is not None and len(values) == 1  # of which a codebook knows all
    if x.size in _REPEATING and not constant and _repeats(x):
        return (*codecs, Codec((Coordinates(), DeadZone())))
    return codecs


def _few_values(x: Floats) -> Floats | None:
    """The different values (k,) of x in ascending order, or None where they are more than a codebook is good for."""
    most = min(_MOST, max(x.size // _PER_VALUE, 1))
    flat = x.reshape(-1)
    values = np.unique(flat[:: max(x.size // _SAMPLE, 1)])
    for start in range(0, x.size, _BLOCK):
        if len(values) > most:
            break
        values = np.union1d(values, flat[start : start + _BLOCK])
    return values.astype(np.float64) if 0 < len(values) <= most else None


def _repeats(x: Floats) -> bool:
    """Whether x has two dimensions or more and does not change along one of them."""
    for axis, length in enumerate(x.shape if x.ndim > 1 and x.size else ()):
        corner = x[tuple(slice(0, _CORNER) for _ in x.shape)]
        if length > 1 and all((part == part.take([0], axis)).all() for part in (corner, x)):
            return True
    return False


def _codebooks(values: Floats, size: int, cost: Cost) -> tuple[Codec, ...]:
    """Codebooks of these values for `size` weights: one as fine as pays, and an exact one if there is one."""
    pays = scale_code(cost.step * math.sqrt(len(values) / size))  # an error in a value is one in all of its weights
    least = scale_code(float(np.abs(values).max()) * 2.0**-_BITS) + 1
    exact = 8 * _last_bit(values)
    codes = {max(pays, least), *([exact] if exact >= least else [])}
    return tuple(Codec((FewValues(known=tuple(values.tolist()), code=code),)) for code in sorted(codes, reverse=True))


def _last_bit(values: Floats) -> int:
    """The largest e such that every value is a multiple of 2^e; 0 if all are zero."""
    ratios = [value.as_integer_ratio() for value in values.tolist() if value]
    return min(((top & -top).bit_length() - bottom.bit_length() for top, bottom in ratios), default=0)


@dataclasses.dataclass(frozen=True)
class FewValues(Codebook):
    """A codebook of the values `known`, ascending, in units of scale `code`; each weight takes the nearest one."""

    known: tuple[float, ...] = (0.0,)
    code: int = 0

    def encode(self, x: Floats, cost: Cost, rest: Codec) -> Coded:
        """Array of any shape to the codebook and an index for each weight, counted from the value nearest to zero."""
        unit = scale_value(self.code)
        levels = np.unique(np.rint(np.array(self.known) / unit)).astype(np.int32)
        zero, flat = int(np.abs(levels).argmin()), x.reshape(-1)
        between, indices = (levels[1:].astype(np.float64) + levels[:-1]) / 2, np.empty(x.size, np.int32)
        for start in range(0, x.size, _BLOCK):  # a large tensor's float64 are never there all at once
            part = slice(start, start + _BLOCK)
            indices[part] = np.searchsorted(between, flat[part].astype(np.float64) / unit) - zero
        side = varint(len(levels)) + varint(zero) + varint(self.code)
        return Coded((Plane(np.diff(levels, prepend=np.int32(0))[None]), *to_planes(indices.reshape(x.shape))), side)

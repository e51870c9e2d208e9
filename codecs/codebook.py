"""A codebook of k values found by k-means, its indices entropy coded (Deep Compression: Han, Mao and Dally, 2016).

The values are kept in order and numbered from the one nearest to zero, so an index has a sign and a magnitude and
shares its contexts with the other quantisers' symbols. Indices are chosen by squared error + λ·bits
(entropy-constrained vector quantisation: Chou, Lookabaugh and Gray, 1989).
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used, which takes half a second

from evocompress.codecs.codec import Codec, Coded, Cost, Floats, Layout, Plane, Shape, SideReader, varint
from evocompress.codecs.entropy import Symbols
from evocompress.codecs.planes import from_planes, plane_layouts, split, to_planes
from evocompress.codecs.rounding import rate_optimised
from evocompress.codecs.scales import MAX_CODE, MIN_CODE, scale_code, scale_value
from evocompress.errors import CodecError

__all__ = ["Codebook"]

_MAX_VALUES = 256
_SAMPLE = 1 << 15  # k-means sees at most this many weights, evenly spaced in order of size
_LEVELS = 127  # values are stored in 8 bits: sign and magnitude relative to the largest
_ZEROS = Coded((), varint(0))


def _levels(values: Floats) -> Symbols:
    """Values in units of the codebook's step as sorted, different integers."""
    return np.unique(np.rint(values)).astype(np.int32)


def _kmeans(x: Floats, k: int) -> Floats:
    """Sorted centroids (k,) of a vector, started from its quantiles, so that the result is reproducible."""
    ordered = np.sort(x)
    if len(ordered) > _SAMPLE:
        ordered = ordered[np.linspace(0, len(ordered) - 1, _SAMPLE).astype(np.int64)]
    start = np.unique(np.quantile(ordered, (np.arange(k) + 0.5) / k))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # an empty cluster keeps its centroid, which is what we want
        centroids, _ = scipy.cluster.vq.kmeans2(ordered[:, None], start[:, None], minit="matrix", iter=12)
    return np.unique(centroids[:, 0])


def _start(x: Floats, step: float, k: int) -> Floats:
    """Values to start from: those of a uniform quantiser with this step if k will do for them, else k-means'."""
    cells = np.rint(x / step)
    used = np.unique(cells)
    if len(used) > k:
        return _kmeans(x, k)
    return np.unique(_means(x, np.searchsorted(used, cells), used * step))


def _means(x: Floats, indices: npt.NDArray[np.integer], values: Floats) -> Floats:
    """The mean of the weights (n,) under each index; an index without weights is dropped, zero stays zero."""
    count = np.bincount(indices, minlength=len(values))
    total = np.bincount(indices, x, minlength=len(values))
    means = np.where(values == 0, 0.0, total / np.maximum(count, 1))
    return np.asarray(means[(count > 0) | (values == 0)], np.float64)


@dataclasses.dataclass(frozen=True)
class Codebook:
    """At most `values` different weights per tensor, fewer where λ says that they do not pay; terminal.

    `passes` is how often values and indices are chosen anew, each for the other.
    """

    id: ClassVar[str] = "codebook"
    number: ClassVar[int] = 2
    terminal: ClassVar[bool] = True

    values: int = 256
    passes: int = 2

    def __post_init__(self) -> None:
        if not 2 <= self.values <= _MAX_VALUES:
            raise CodecError(f"codebook: values is {self.values}; it must lie in [2, {_MAX_VALUES}].")
        if not 0 <= self.passes <= 10:
            raise CodecError(f"codebook: passes is {self.passes}; it must lie in [0, 10].")

    def encode(self, x: Floats, cost: Cost, rest: Codec) -> Coded:
        """Array of any shape to indices; the codebook is a plane of its own, in 8 bits a value."""
        largest = float(np.abs(x).max(initial=0.0))
        if largest == 0.0:
            return _ZEROS._replace(planes=to_planes(np.zeros(x.shape, np.int32)))
        code = min(scale_code(largest / _LEVELS) + 1, MAX_CODE)  # rounded up, so that the largest value is not clipped
        unit = scale_value(code)
        flat = x.ravel() / unit  # from here on in units of the codebook's levels
        price = cost.price_in(unit)
        levels = _levels(_start(flat, max(cost.step / unit, 1.0), self.values))
        for _ in range(self.passes):
            indices = self._assign(flat, levels, x.shape, price)
            levels = _levels(_means(flat, indices.ravel() + int(np.abs(levels).argmin()), levels.astype(np.float64)))
        indices = self._assign(flat, levels, x.shape, price)
        if not indices.any() and not levels[np.abs(levels).argmin()]:
            return _ZEROS._replace(planes=to_planes(indices))
        side = varint(len(levels)) + varint(int(np.abs(levels).argmin())) + varint(code)
        return Coded((Plane(np.diff(levels, prepend=np.int32(0))[None]), *to_planes(indices)), side)

    def _assign(self, flat: Floats, levels: Symbols, shape: Shape, price: float) -> Symbols:
        """An index for every weight, relative to the level nearest to zero, by error² + price·bits."""
        zero = int(np.abs(levels).argmin())
        nearest = (np.searchsorted((levels[1:] + levels[:-1]) / 2, flat) - zero).astype(np.int32).reshape(shape)
        parts, start = [], 0
        for part in split(nearest):
            weights = flat[start : start + part.size]
            start += part.size
            nonzero = np.flatnonzero(part)
            index = part.ravel()[nonzero]
            # One and two levels towards zero, or zero: other indices have both larger errors and longer codes.
            nearer = [np.sign(index) * np.maximum(np.abs(index) - less, 0) for less in (0, 1, 2)]
            candidates = np.stack([*nearer, np.zeros_like(index)]).astype(np.int32)
            error = (levels[candidates + zero] - weights[nonzero]) ** 2
            parts.append(rate_optimised(part, candidates, error, price, 2).ravel())
        return (np.concatenate(parts) if parts else np.zeros(0, np.int32)).reshape(shape)

    def layout(self, side: SideReader, shape: Shape, rest: Codec) -> list[Layout]:
        """The codebook, then one index per element; a codebook of length 0 stands for all zeros."""
        count = side.integer(0, _MAX_VALUES)
        if count:
            side.integer(0, count - 1)
            side.integer(MIN_CODE, MAX_CODE)
        return [Layout(1, count)] * bool(count) + plane_layouts(shape)

    def decode(self, planes: Iterator[Symbols], side: SideReader, shape: Shape, rest: Codec) -> Floats:
        """Look the indices up; an index outside the codebook (a damaged file) takes the value at its end."""
        count = side.integer(0, _MAX_VALUES)
        if count == 0:
            return from_planes(planes, shape).astype(np.float64) * 0.0
        zero, code = side.integer(0, count - 1), side.integer(MIN_CODE, MAX_CODE)
        values = np.cumsum(next(planes).ravel().astype(np.int64)).astype(np.float64) * scale_value(code)
        return values[np.clip(from_planes(planes, shape), -zero, count - 1 - zero) + zero]

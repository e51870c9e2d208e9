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
import scipy.cluster.vq

from evocompress.codecs.arrange import from_planes, plane_layouts, to_planes
from evocompress.codecs.codec import Codec, Coded, Cost, Floats, Layout, Plane, Shape, SideReader, varint
from evocompress.codecs.contexts import tokenize
from evocompress.codecs.entropy import Symbols, classes_of, rate_table
from evocompress.codecs.steps import MAX_CODE, MIN_CODE, scale_code, scale_value
from evocompress.errors import CodecError

__all__ = ["Codebook"]

_MAX_VALUES = 256
_SAMPLE = 1 << 15  # k-means sees at most this many weights, evenly spaced in order of size
_LEVELS = 127  # values are stored in 8 bits: sign and magnitude relative to the largest


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


@dataclasses.dataclass(frozen=True)
class Codebook:
    """At most `values` different weights per tensor; terminal."""

    id: ClassVar[str] = "codebook"
    number: ClassVar[int] = 2
    terminal: ClassVar[bool] = True

    values: int = 16
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
            return Coded(to_planes(np.zeros(x.shape, np.int32)), varint(0))
        code = scale_code(largest / _LEVELS) + 1  # rounded up, so that the largest value is not clipped
        levels = np.unique(np.rint(_kmeans(x.ravel(), self.values) / scale_value(code)).astype(np.int32))
        values = levels * scale_value(code)
        zero = int(np.abs(values).argmin())
        nearest = np.searchsorted((values[1:] + values[:-1]) / 2, x) - zero
        planes = to_planes(self._assign(x, nearest.astype(np.int32), values, zero, cost))
        side = varint(len(levels)) + varint(zero) + varint(code)
        return Coded((Plane(np.diff(levels, prepend=np.int32(0))[None]), *planes), side)

    def _assign(self, x: Floats, indices: Symbols, values: Floats, zero: int, cost: Cost) -> Symbols:
        """Re-assign indices by error² + price·bits, among the value itself and its neighbour nearer to index 0."""
        matrix = indices.reshape(plane_layouts(x.shape)[0][:2]) if len(plane_layouts(x.shape)) == 1 else None
        for _ in range(self.passes if matrix is not None else 0):
            assert matrix is not None
            classes = classes_of(matrix)
            rates = rate_table(classes, matrix)
            per_index = rates[:, tokenize(np.arange(len(values), dtype=np.int32) - zero)[0]]
            target = x.reshape(matrix.shape)
            best = np.full(matrix.shape, np.inf)
            for index, value in enumerate(values):
                score = (target - value) ** 2 + cost.price * per_index[:, index][classes]
                better = score < best
                best[better] = score[better]
                matrix = np.where(better, np.int32(index - zero), matrix)
        return indices if matrix is None else matrix.reshape(x.shape)

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
            return from_planes(planes, shape) * 0.0
        zero, code = side.integer(0, count - 1), side.integer(MIN_CODE, MAX_CODE)
        values = np.cumsum(next(planes).ravel().astype(np.int64)) * scale_value(code)
        return values[np.clip(from_planes(planes, shape).astype(np.int64) + zero, 0, count - 1)]

"""Kernels snapped to symmetries: each kernel is coded by the free numbers of the cheapest symmetry that pays.

For every kernel and every symmetry (symmetry_groups.py) the score is that of all codecs here, error + λ·bits: the error
of the projection, plus what quantising the coefficients costs and takes, plus the bits of saying which symmetry it is.
A geometric law with the kernel's own mean magnitude stands in for the entropy coder (Sullivan, 1996).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from evocompress.codecs.codec import Codec, Coded, Cost, Floats, Layout, Plane, Shape, SideReader, varint
from evocompress.codecs.entropy import Symbols
from evocompress.codecs.symmetry_groups import MAX_PLACES, SYMMETRIES, Group, free_numbers, group, groups
from evocompress.errors import CodecError, FormatError

__all__ = ["Symmetry", "kernel_shape"]

_MAX_LEVEL = 1 << 30  # as in deadzone.py
_ROUNDS = 8  # of choosing symmetries and counting how often each one is chosen
_CONTEXT = 0.017  # of the bits of free kernels: what packing them costs, as columns are no longer inputs (ResNet-20)
_MOST = 1e30  # bits; as good as infinite, and float32
_SIDE_BITS = 48.0  # two numbers and a scale in the side information
_TABLES = 1 << 25  # products that take as long as finding the symmetries of a size of kernels
_NAMES = tuple(SYMMETRIES)  # by their numbers in files

Ints = npt.NDArray[np.int64]


def kernel_shape(shape: Shape) -> tuple[int, int] | None:
    """(height, width) of the kernels of an array, or None if it has none that can be symmetric.

    The first two dimensions count kernels, the last one is the width, what lies between is the height.

    >>> kernel_shape((16, 3, 5, 5)), kernel_shape((16, 3, 7)), kernel_shape((16, 3, 1, 1)), kernel_shape((16, 48))
    ((5, 5), (1, 7), None, None)
    """
    if len(shape) < 3 or not 1 < math.prod(shape[2:]) <= MAX_PLACES or 0 in shape:
        return None
    return math.prod(shape[2:-1]), shape[-1]


def _zigzag(places: Ints) -> Symbols:
    """0, 1, 2, 3, … as 0, 1, -1, 2, …: the coder's statistics take both signs to be alike."""
    return np.where(places & 1, (places + 1) // 2, -(places // 2)).astype(np.int32)


def _unzigzag(symbols: Symbols) -> Ints:
    wide = symbols.astype(np.int64)
    return np.where(wide > 0, 2 * wide - 1, -2 * wide)


class _Scores(NamedTuple):
    """What each symmetry costs each kernel but for naming it, (symmetries, kernels), and the bits in it of "none"."""

    score: npt.NDArray[np.float32]
    free_bits: float


def _magnitudes(levels: Floats, outputs: int) -> Floats:
    """Mean magnitudes (kernels, 1) that the coder's contexts would expect: separable in outputs and inputs."""
    mean = np.abs(np.rint(levels)).mean(axis=1).reshape(outputs, -1)
    expected = mean.mean(axis=1, keepdims=True) * mean.mean(axis=0) / max(float(mean.mean()), 1e-9)
    return np.asarray(np.maximum(expected, 0.01).reshape(-1, 1), np.float64)


def _quantised(levels: Floats, magnitudes: Floats, price: float) -> tuple[Floats, Floats]:
    """Least squared error + price·bits of coefficients in steps (n, f), summed over f; and the bits alone."""
    theta = magnitudes / (np.sqrt(1 + magnitudes**2) + 1)
    of_zero, of_level = -np.log2((1 - theta) / (1 + theta)), -np.log2(theta)
    size = np.abs(levels)
    # Squared error + price·(of_zero + of_level·q) is a parabola in q, whose lowest integer this is.
    chosen = np.maximum(np.rint(size - price * of_level / 2), 0.0)
    bits = of_zero + of_level * chosen
    return ((size - chosen) ** 2 + price * bits).sum(axis=1), bits.sum(axis=1)


def _residual(left: Floats, cost: Cost, outputs: int) -> Floats:
    """What dropping `left` (kernels, places) costs each kernel, in units of `cost.scale`: ½·g·left·H·leftᵀ, (kernels,).

    Of H only the blocks of single kernels are used: what errors of different inputs do to each other is left out.
    """
    sensitivity = cost.sensitivity
    places = left.shape[1]
    if sensitivity is None or not sensitivity.fits(outputs, len(left) // outputs * places):
        return np.asarray((left**2).sum(axis=1), np.float64)
    inputs = len(left) // outputs
    diagonal_blocks = sensitivity.squares(places)
    parts = left.reshape(sensitivity.groups, -1, inputs, places)
    error = np.einsum("goip,gipq,goiq->goi", parts, diagonal_blocks, parts, optimize=True).reshape(outputs, inputs)
    return np.asarray((0.5 * sensitivity.g[:, None] * error / cost.scale).ravel(), np.float64)


def _scores(kernels: Floats, outputs: int, candidates: Sequence[Group], cost: Cost, strength: float) -> _Scores:
    step = max(cost.step, float(np.abs(kernels).max(initial=0.0)) / _MAX_LEVEL)
    price = max(strength * cost.price_in(step), 1 / _MOST)
    levels = kernels / step
    magnitudes = _magnitudes(levels, outputs)
    score, free_bits = np.empty((len(candidates), len(kernels)), np.float32), 0.0
    for row, candidate in zip(score, candidates, strict=True):
        coefficients = candidate.coefficients(levels)
        quantised, bits = _quantised(coefficients, magnitudes, price)
        error = _residual(levels - candidate.kernels(coefficients), cost, outputs)
        row[:] = np.minimum((quantised + error) / price, _MOST)
        if candidate.number == 0:
            free_bits = float(bits.sum())
    return _Scores(score, free_bits)


def _choose(scores: _Scores) -> Ints:
    """The symmetry of each kernel, as a row of the scores (which are in bits); all 0 ("none") where that pays best.

    Rounds: how often each one is chosen says what naming it costs, until nothing changes.
    """
    score = scores.score
    count, n = score.shape
    naming = np.full(count, 1 + math.log2(count), np.float32)
    naming[0] = 1.0
    chosen = np.zeros(n, np.int64)
    for _ in range(_ROUNDS):
        before, chosen = chosen, np.asarray((score + naming[:, None]).argmin(axis=0), np.int64)
        if np.array_equal(before, chosen):
            break
        naming = -np.log2((np.bincount(chosen, minlength=count) + 0.25) / (n + 0.25 * count)).astype(np.float32)
    used = np.bincount(chosen, minlength=count)
    total = float((score[chosen, np.arange(n)] + naming[chosen]).sum(dtype=np.float64))
    total += _SIDE_BITS + 8.0 * np.count_nonzero(used) + _CONTEXT * scores.free_bits * used[0] / n
    return chosen if total < float(score[0].sum(dtype=np.float64)) else np.zeros(n, np.int64)


class _Head(NamedTuple):
    """What the side information says: the symmetries used, the most frequent first, and how much of each kind."""

    used: dict[str, int]  # names, and free coefficients of a kernel
    full: int  # kernels without symmetry
    free: int  # coefficients of all others


def _read_head(side: SideReader, shape: Shape) -> _Head:
    size = kernel_shape(shape)
    count = side.integer(0, len(_NAMES) if size else 0)
    if not count or not size:
        return _Head({}, 0, 0)
    if side.budget is not None:
        side.budget.charge_once(("kernels", size), "products", _TABLES)
    free_counts, used = free_numbers(*size), dict[str, int]()
    for _ in range(count):
        number = side.integer(0, len(_NAMES) - 1)
        name = _NAMES[number]
        if name not in free_counts or name in used:
            raise FormatError(f"Kernels of shape {size} name symmetry {number}, twice or in vain: the file is damaged.")
        used[name] = free_counts[name]
    kernels = shape[0] * shape[1]
    full = side.integer(0, kernels if "none" in used else 0)
    most = max((n_free for name, n_free in used.items() if name != "none"), default=0)
    return _Head(used, full, side.integer(0, (kernels - full) * most))


def _full_shape(shape: Shape, full: int) -> Shape:
    """Kernels without symmetry, packed: as many to a row as the array has, the last row filled up with zeros."""
    return (-(-full // shape[1]), *shape[1:])


@dataclasses.dataclass(frozen=True)
class Symmetry:
    """Each kernel of a convolution keeps the free coefficients of one symmetry, or all of its weights.

    Coefficients are orthonormal, so squared errors stay what they are. `strength` is how many times λ a bit saved is
    worth in the choice: above 1 more kernels are snapped than pay (for training that goes on from them), at 0 none.
    Arrays without kernels, or whose kernels do not pay, go to the rest of the chain as they are, for one byte of side
    information.
    """

    id: ClassVar[str] = "symmetry"
    number: ClassVar[int] = 24
    terminal: ClassVar[bool] = False
    second_order: ClassVar[bool] = True

    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1000:
            raise CodecError(f"symmetry: strength is {self.strength}; it must lie in [0, 1000].")

    def encode(self, x: Floats, cost: Cost, rest: Codec) -> Coded:
        """Array of any shape to the plane of symmetries, kernels without one, and the coefficients of the others."""
        size = kernel_shape(x.shape)
        if size is None or not self.strength:
            return self._encode_plain(x, cost, rest)
        kernels = x.reshape(-1, size[0] * size[1])
        candidates = list(groups(*size).values())
        chosen = _choose(_scores(kernels, len(x), candidates, cost, self.strength))
        if not chosen.any():
            return self._encode_plain(x, cost, rest)
        counts = np.bincount(chosen, minlength=len(candidates))
        order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
        place = np.empty(len(candidates), np.int64)
        place[order] = np.arange(len(order))
        names = [Plane(_zigzag(place[chosen]).reshape(x.shape[:2]))] if len(order) > 1 else []
        full = kernels[chosen == 0]
        snapped = [candidates[i].coefficients(kernels[chosen == i]).ravel() for i in np.sort(order) if i]
        free = np.concatenate(snapped)
        parts = [_packed(full, x.shape)] * bool(len(full)) + [free] * bool(len(free))
        coded = [rest.encode(part, cost.flat) for part in parts]
        numbers = [len(order), *(candidates[i].number for i in order), len(full), len(free)]
        side = b"".join(map(varint, numbers)) + b"".join(c.side for c in coded)
        return Coded((*names, *(plane for c in coded for plane in c.planes)), side)

    @staticmethod
    def _encode_plain(x: Floats, cost: Cost, rest: Codec) -> Coded:
        coded = rest.encode(x, cost.flat)
        return Coded(coded.planes, varint(0) + coded.side)

    def layout(self, side: SideReader, shape: Shape, rest: Codec) -> list[Layout]:
        """Symmetries, kernels without one, coefficients of the others; each only where there is something to say."""
        head = _read_head(side, shape)
        if not head.used:
            return rest.layout(side, shape)
        names = [Layout(shape[0], shape[1])] if len(head.used) > 1 else []
        full = rest.layout(side, _full_shape(shape, head.full)) if head.full else []
        return names + full + (rest.layout(side, (head.free,)) if head.free else [])

    def decode(self, planes: Iterator[Symbols], side: SideReader, shape: Shape, rest: Codec) -> Floats:
        """Free coefficients to their places."""
        head = _read_head(side, shape)
        if not head.used:
            return rest.decode_from(planes, side, shape)
        count = shape[0] * shape[1]
        chosen = _unzigzag(next(planes)).ravel() if len(head.used) > 1 else np.zeros(count, np.int64)
        _check(chosen, head)
        places = math.prod(shape[2:])
        kernels = np.empty((count, places))
        full = rest.decode_from(planes, side, _full_shape(shape, head.full)) if head.full else np.empty(0)
        free = rest.decode_from(planes, side, (head.free,)) if head.free else np.empty(0)
        start, height = 0, places // shape[-1]
        for place, name in sorted(enumerate(head.used), key=lambda each: _NAMES.index(each[1])):
            members = chosen == place
            n, n_free = int(members.sum()), head.used[name]
            if name == "none":
                kernels[members] = full.reshape(-1, places)[: head.full]
            elif n:
                symmetry = group(name, height, shape[-1])
                kernels[members] = symmetry.kernels(free[start : start + n * n_free].reshape(n, n_free))
                start += n * n_free
        return kernels.reshape(shape)


def _packed(full: Floats, shape: Shape) -> Floats:
    """Kernels (n, places) in the shape that the rest of the chain codes."""
    packed = np.zeros(_full_shape(shape, len(full)))
    packed.reshape(-1, full.shape[1])[: len(full)] = full
    return packed


def _check(chosen: Ints, head: _Head) -> None:
    """That the symmetries named need just what the side information announced."""
    if chosen.max() < len(head.used):
        counts = dict(zip(head.used, np.bincount(chosen, minlength=len(head.used)).tolist(), strict=True))
        full = counts.pop("none", 0)
        free = sum(n * head.used[name] for name, n in counts.items())
        if (full, free) == (head.full, head.free):
            return
    raise FormatError("The kernels' symmetries do not fit the number of coefficients: the file is damaged.")

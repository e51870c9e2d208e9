"""The symmetries that a kernel can have, each one an orthogonal projection with a basis of signed orbits.

A symmetry is a set of rules "the kernel is ± itself after this permutation of its places". The permutations cut the
places into orbits; a kernel of the symmetry has one free number per orbit, and at each place ± that number. An orbit
that must equal its own opposite is zero. So a projection is a mean over each orbit, and nothing is approximate.
(Projections on the symmetric subspaces of a finite group: Serre, "Linear Representations of Finite Groups", 1977.)

Orbits are found for all places at a time. Each place stands twice, as itself and as its opposite, and a rule that
changes the sign goes to the other one. Then an orbit in which signs clash is one that meets its own opposite, and all
that is left is to find what hangs together.

`SYMMETRIES` has one row each. Its order is that of the numbers in files: new ones are added at its end.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from evocompress.errors import CodecError

__all__ = [
    "MAX_PLACES",
    "SYMMETRIES",
    "Group",
    "bank_nearness",
    "free_numbers",
    "group",
    "groups",
    "nearest",
    "nearness",
    "needs_square",
    "orbits",
    "separable_nearness",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Kernels with more places than this (32 × 32) have no symmetries but "none": its tables would outgrow the tensor.
MAX_PLACES = 1024

#: The rules of each symmetry: a permutation, and whether the kernel keeps (1) or changes (-1) its sign under it.
SYMMETRIES: dict[str, tuple[tuple[str, int], ...]] = {
    "none": (),
    "zero": (("stay", -1),),
    "constant": (("next column", 1), ("next row", 1)),
    "radial": (("ring", 1),),
    "identical-columns": (("next column", 1),),
    "identical-rows": (("next row", 1),),
    "identical-columns-odd": (("next column", 1), ("up-down", -1)),
    "identical-rows-odd": (("next row", 1), ("left-right", -1)),
    "left-right": (("left-right", 1),),
    "up-down": (("up-down", 1),),
    "left-right-odd": (("left-right", -1),),
    "up-down-odd": (("up-down", -1),),
    "both-mirrors": (("left-right", 1), ("up-down", 1)),
    "both-mirrors-odd": (("left-right", -1), ("up-down", -1)),
    "left-right-odd-up-down": (("left-right", -1), ("up-down", 1)),
    "up-down-odd-left-right": (("left-right", 1), ("up-down", -1)),
    "half-turn": (("half turn", 1),),
    "half-turn-odd": (("half turn", -1),),
    "quarter-turn": (("quarter turn", 1),),
    "quarter-turn-odd": (("quarter turn", -1),),
    "transpose": (("transpose", 1),),
    "transpose-odd": (("transpose", -1),),
    "anti-transpose": (("anti-transpose", 1),),
    "anti-transpose-odd": (("anti-transpose", -1),),
}

_SQUARE_ONLY = ("quarter turn", "transpose", "anti-transpose")


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """One symmetry of h·w places. Place p of a kernel of it is `sign[p]` · free number `index[p]`.

    `index` and `sign` have shape (h·w,). Orbits are numbered in the order of their first places, whose signs are 1.
    Where the sign is 0 the kernel is zero, and `index` is `n_free`. `size` (n_free,) is how many places an orbit has.
    """

    name: str
    number: int
    index: Ints
    sign: Ints
    size: Ints

    @property
    def n_free(self) -> int:
        """How many numbers say what a kernel of this symmetry is."""
        return len(self.size)

    @property
    def basis(self) -> Floats:
        """Orthonormal rows (n_free, h·w) that span the kernels of this symmetry."""
        membership = self.index == np.arange(self.n_free)[:, None]
        return np.asarray(membership * self.sign / np.sqrt(self.size)[:, None], np.float64)

    def coefficients(self, kernels: Floats) -> Floats:
        """Kernels (n, h·w) in the orthonormal basis, (n, n_free): √size times the mean over each orbit."""
        return kernels @ self.basis.T

    def kernels(self, coefficients: Floats) -> Floats:
        """The kernels (n, h·w) of coefficients (n, n_free).

        Each number is divided by a square root, copied, and perhaps negated: IEEE 754 has one result for that, on any
        machine.
        """
        values = np.zeros((len(coefficients), self.n_free + 1))
        values[:, :-1] = coefficients / np.sqrt(self.size)
        return np.asarray(values[:, self.index] * self.sign + 0.0, np.float64)  # adding 0 makes -0 a 0

    def project(self, kernels: Floats) -> Floats:
        """The kernels (n, h·w) of this symmetry that are nearest to these."""
        return self.kernels(self.coefficients(kernels))


@functools.lru_cache(maxsize=512)
def _group(name: str, height: int, width: int) -> Group:
    rules = [(_permutation(rule, height, width), sign) for rule, sign in SYMMETRIES[name]]
    return Group(name, list(SYMMETRIES).index(name), *orbits(rules, height * width))


@functools.lru_cache(maxsize=64)
def groups(height: int, width: int) -> dict[str, Group]:
    """The symmetries that kernels (height, width) can have, by name, in the order of `SYMMETRIES`.

    Of those that are the same for this shape the first stays; quarter turns and transposes need square kernels.

    >>> {name: group.n_free for name, group in groups(1, 3).items()}
    {'none': 3, 'zero': 0, 'constant': 1, 'radial': 2, 'identical-rows-odd': 1}
    >>> groups(3, 3)["left-right-odd-up-down"].basis.round(2)[:, :6]
    array([[ 0.5 ,  0.  , -0.5 ,  0.  ,  0.  ,  0.  ],
           [ 0.  ,  0.  ,  0.  ,  0.71,  0.  , -0.71]])

    Raises:
        CodecError: A length below 1.
    """
    if height < 1 or width < 1:
        raise CodecError(f"A kernel of {height} × {width} places has no symmetries; give both lengths at least 1.")
    by_name, seen = dict[str, Group](), set[bytes]()
    for name in SYMMETRIES:
        if not _has_shape(name, height, width):
            continue
        candidate = _group(name, height, width)
        key = candidate.index.tobytes() + candidate.sign.tobytes()
        if key not in seen:
            seen.add(key)
            by_name[name] = candidate
    return by_name


@functools.lru_cache(maxsize=1 << 13)  # all 7 262 sizes: however many tensors a file has, it pays for each size once
def free_numbers(height: int, width: int) -> dict[str, int]:
    """How many free numbers each of `groups` leaves; kept for every size, as it is small and hard to come by.

    >>> free_numbers(1, 3)
    {'none': 3, 'zero': 0, 'constant': 1, 'radial': 2, 'identical-rows-odd': 1}

    Raises:
        CodecError: A length below 1.
    """
    return {name: symmetry.n_free for name, symmetry in groups(height, width).items()}


def group(name: str, height: int, width: int) -> Group:
    """The symmetry of this name, also where another one is the same for kernels (height, width).

    >>> group("quarter-turn", 3, 3).n_free == group("radial", 3, 3).n_free
    True

    Raises:
        CodecError: No such symmetry, or kernels of this shape cannot have it.
    """
    if name not in SYMMETRIES:
        close = difflib.get_close_matches(name, SYMMETRIES, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise CodecError(f"There is no symmetry {name!r}; there are {', '.join(SYMMETRIES)}.{hint}")
    if not _has_shape(name, height, width):
        large = height * width > MAX_PLACES
        rule = f"at most {MAX_PLACES} places may have symmetries" if large else "only square kernels have it"
        raise CodecError(f"Kernels of {height} × {width} places cannot have the symmetry {name!r}: {rule}.")
    return _group(name, height, width)


def needs_square(name: str) -> bool:
    """Whether only square kernels can have a symmetry.

    >>> needs_square("transpose"), needs_square("half-turn")
    (True, False)
    """
    return any(rule in _SQUARE_ONLY for rule, _ in SYMMETRIES[name])


def _has_shape(name: str, height: int, width: int) -> bool:
    if height * width > MAX_PLACES:
        return name == "none"
    return height == width or not needs_square(name)


def _relative(left: Floats, norm: Floats) -> Floats:
    """left/norm of squared norms as a ratio of norms; a zero kernel has every symmetry exactly."""
    ratio = np.divide(left, norm, out=np.zeros_like(left), where=norm > 0)
    return np.asarray(np.sqrt(np.clip(ratio, 0.0, 1.0)), np.float64)


def _scaled(kernels: npt.NDArray[np.floating]) -> Floats:
    """Kernels in units of their bank's largest weight: squares of denormal weights would be zero."""
    if kernels.ndim < 2:
        raise CodecError(f"Kernels of shape {kernels.shape}; they must be an array (…, height, width).")
    x = np.asarray(kernels, np.float64)
    if not np.isfinite(x).all():
        raise CodecError(f"Kernels of shape {x.shape} hold NaN or infinity; only finite numbers have a symmetry.")
    return np.asarray(x / (np.abs(x).max(initial=0.0) or 1.0), np.float64)


def _energies(kernels: npt.NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Squared residuals (…, symmetries) and squared norms (…, 1), in units of the bank's largest weight."""
    x = _scaled(kernels)
    flat = x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])
    residuals = [((flat - flat @ g.basis.T @ g.basis) ** 2).sum(axis=-1) for g in groups(*x.shape[-2:]).values()]
    return np.stack(residuals, axis=-1), (flat**2).sum(axis=-1)[..., None]


def nearness(kernels: npt.NDArray[np.floating]) -> Floats:
    """How far kernels (…, h, w) are from each symmetry: residual norm / norm in [0, 1], (…, symmetries).

    Columns are those of `groups(h, w)`. 0 is exactly symmetric; a zero kernel is so in every way.

    >>> sobel = np.outer([1.0, 2.0, 1.0], [-1.0, 0.0, 1.0])
    >>> [name for name, far in zip(groups(3, 3), nearness(sobel)) if far < 1e-6]
    ['none', 'up-down', 'left-right-odd', 'left-right-odd-up-down', 'half-turn-odd']

    Raises:
        CodecError: Fewer than two dimensions, NaN or infinity.
    """
    left, norm = _energies(kernels)
    return _relative(left, np.broadcast_to(norm, left.shape))


def nearest(kernels: npt.NDArray[np.floating], price: float = 0.5) -> Ints:
    """The symmetry of each kernel (…, h, w), as its place in `groups(h, w)`, (…).

    That of least squared residual / squared norm + `price` · free numbers / places. At a price of 0 it would be "none".
    At 1 white noise is as near to any as to "none". A zero kernel has the symmetry "zero".

    >>> sobel = np.outer([1.0, 2.0, 1.0], [-1.0, 0.0, 1.0])
    >>> list(groups(3, 3))[nearest(sobel)]
    'left-right-odd-up-down'

    Raises:
        CodecError: Fewer than two dimensions, NaN or infinity, or a price that is not in [0, 1].
    """
    if not 0 <= price <= 1:
        raise CodecError(f"price is {price!r}; it must be in [0, 1].")
    residuals = nearness(kernels) ** 2
    height, width = kernels.shape[-2:]
    shares = [symmetry.n_free / max(height * width, 1) for symmetry in groups(height, width).values()]
    return np.asarray((residuals + price * np.asarray(shares)).argmin(axis=-1), np.int64)


def bank_nearness(kernels: npt.NDArray[np.floating]) -> Floats:
    """How far whole filters are from each symmetry: kernels (O, I, h, w) to (O, symmetries), pooled over inputs.

    Raises:
        CodecError: Other than four dimensions, NaN or infinity.
    """
    if kernels.ndim != 4:
        raise CodecError(f"A filter bank of shape {kernels.shape}; it must be (outputs, inputs, height, width).")
    left, norm = (energy.sum(axis=1) for energy in _energies(kernels))
    return _relative(left, np.broadcast_to(norm, left.shape))


def separable_nearness(kernels: npt.NDArray[np.floating]) -> Floats:
    """How far kernels (…, h, w) are from rank one (a column times a row): residual norm / norm, (…).

    Not a linear space, so not in `SYMMETRIES`; the nearest one is by singular values (Eckart and Young, 1936).

    >>> float(separable_nearness(np.eye(2)).round(3)), float(separable_nearness(np.ones((2, 2))).round(3))
    (0.707, 0.0)

    Raises:
        CodecError: Fewer than two dimensions, NaN or infinity.
    """
    energy = np.linalg.svd(_scaled(kernels), compute_uv=False) ** 2
    return _relative(np.asarray(energy[..., 1:].sum(axis=-1)), np.asarray(energy.sum(axis=-1)))


def _permutation(name: str, height: int, width: int) -> Ints:
    """Where a rule of symmetry_groups.py takes each place of a kernel, (h·w,).

    >>> _permutation("left-right", 1, 3)
    array([2, 1, 0])
    """
    grid = np.arange(height * width).reshape(height, width)
    if name == "ring":
        return _ring(height, width)
    moved = {
        "stay": grid,
        "next column": np.roll(grid, 1, axis=1),
        "next row": np.roll(grid, 1, axis=0),
        "left-right": grid[:, ::-1],
        "up-down": grid[::-1],
        "half turn": grid[::-1, ::-1],
        "quarter turn": np.rot90(grid),
        "transpose": grid.T,
        "anti-transpose": grid[::-1, ::-1].T,
    }
    return np.asarray(moved[name].ravel(), np.int64)


def _ring(height: int, width: int) -> Ints:
    """The places at one distance from the centre go round: each to the next one, the last one to the first."""
    rows, columns = (2 * np.arange(n) - (n - 1) for n in (height, width))  # in half places, so that they are integers
    distance = (rows[:, None] ** 2 + columns**2).ravel()
    order = np.argsort(distance, kind="stable")
    first = np.flatnonzero(np.diff(distance[order], prepend=-1))
    following = np.roll(order, -1)
    following[np.append(first[1:], len(order)) - 1] = order[first]
    target = np.empty_like(order)
    target[order] = following
    return target


def orbits(rules: Sequence[tuple[Ints, int]], places: int) -> tuple[Ints, Ints, Ints]:
    """What rules "± itself after this permutation" leave free: `index`, `sign`, `size` of `symmetry_groups.Group`.

    Args:
        rules: Permutations (places,), each with 1 or -1.
        places: How many.

    >>> [found.tolist() for found in orbits([(_permutation("left-right", 1, 3), -1)], 3)]
    [[0, 1, 0], [1, 0, -1], [2]]
    """
    turns = [np.concatenate([to, to + places] if sign > 0 else [to + places, to]) for to, sign in rules]
    label, before = np.arange(2 * places), np.empty(0, np.int64)
    while not np.array_equal(before, label):
        before = label
        for turn in turns:
            label = _least(label, turn)
    first, live = np.minimum(label[:places], label[places:]), label[:places] != label[places:]
    begins = live & (first == np.arange(places))
    number = np.cumsum(begins) - 1
    n_free = int(begins.sum())
    index = np.where(live, number[first], n_free)
    sign = np.where(live, np.where(label[:places] == first, 1, -1), 0)
    return index, sign, np.bincount(index[live], minlength=n_free)


def _least(label: Ints, turn: Ints) -> Ints:
    """The least label of each one's cycle; twice as far round it at each step."""
    while not np.array_equal(lower := np.minimum(label, label[turn]), label):
        label, turn = lower, turn[turn]
    return label

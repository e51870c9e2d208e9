"""Families of shapes, one for each structure that a kernel may have, sampled on grids of angles, widths and centres."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from evocompress.ideas.kernels.shapes import Floats, Shape, orthonormal, pixels, sampled

__all__ = [
    "FAMILIES",
    "GABOR_EXTENT",
    "Family",
    "FamilyName",
    "families",
    "gabor_family",
]

FamilyName: TypeAlias = Literal[
    "point", "gaussian", "bar", "surround", "laplacian", "sharpen", "alternating", "first", "second", "saddle", "gabor"
]
FAMILIES: tuple[FamilyName, ...] = get_args(FamilyName)
"""One pixel; a round and an elongated Gaussian; two round Gaussians about one centre, weighted freely; the Laplacians
of 3×3, alone and with the pixel added that makes them sharpen; a Gaussian
whose sign alternates from pixel to pixel; the derivatives of a Gaussian: first, second along one
direction, mixed; a Gabor function."""

_BLOCK = 2**20  # numbers of a grid made at a time
_POINT = np.array([[0.0, 0, 0], [0, 1, 0], [0, 0, 0]])
_CROSS, _DIAGONAL = np.array([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]]), np.array([[1.0, 0, 1], [0, 0, 0], [1, 0, 1]])
_LAPLACIANS = tuple(4 * (edge + corner) * _POINT - edge * _CROSS - corner * _DIAGONAL
                    for edge, corner in ((1, 0), (8, 1), (4, 1), (3, 1), (2, 1), (1.4, 1), (1, 1)))  # fmt: skip

GABOR_EXTENT = 5
"""The least height or width for which `gabor` is a class: three pixels cannot hold a period and what is beside it."""

_WIDE = 50.0
"""A Gaussian so wide, in pixels, is a constant on every kernel that we meet."""

# Bounds on the grids of large kernels; up to 13 pixels there are no more.
_PLACES = 3  # on each side of the middle
_WIDTHS = 10
_TURNS = 16

_NARROW_CYCLES = (0.28, 0.36, 0.47, 0.65)  # frequency times σ_u: bandwidths of 2.4, 1.7, 1.2 and 0.8 octaves
_WIDE_CYCLES = 0.8  # the least of those with a wide window
_WINDOWS = (0.5, 0.29, 0.17, 0.1)  # σ of wide windows, in sides of the kernel
_CUT = 0.37  # a window wider than that, in sides, is cut by the kernel to about the same
_FINEST = 0.49  # at 1/2 the sine vanishes on all pixels, and a fit that begins there has no slope
_APART = 0.13  # frequencies over 1/σ: half of their distance each way leaves 85 % of the energy, enough to begin with


def _turns(height: int, width: int) -> tuple[float, ...]:
    """Angles in radians; a row or a column of pixels has one."""
    if min(height, width) == 1:
        return (0.0 if height == 1 else math.pi / 2,)
    return tuple(math.pi * step / _TURNS for step in range(_TURNS))


def _widths(height: int, width: int) -> list[float]:
    """Widths in pixels, a quarter apart or a little more on large kernels, and one that is constant on the kernel."""
    sigma, widest, sigmas = 0.45, 0.4 * max(height, width), []
    ratio = max(1.28, (widest / sigma) ** (1 / _WIDTHS))
    while sigma < widest:
        sigmas.append(sigma)
        sigma *= ratio
    return [*sigmas, sigma, 1.6 * sigma, _WIDE]


def _offsets(extent: int, sigma: float) -> list[float]:
    """Centres along one axis: half a pixel or half a width apart, in the middle of the kernel, seven at most."""
    if extent < 3:
        return [0.0]
    spacing = max(0.5, 0.5 * sigma) if extent < 5 else max(0.5, 0.75 * sigma)
    count = min(_PLACES, int(max(0.5, 0.15 * extent) / spacing))
    return [spacing * step for step in range(-count, count + 1)]


def _gabor_rows(height: int, width: int) -> list[list[float]]:
    """Parameters of Gabor functions, a row each as `shapes.sampled` has them.

    Narrow windows, of less than a period, have frequencies a fifth apart from one period in the kernel up, at every
    angle, in two elongations. Wide ones are sharp in frequency and direction, so theirs lie on a square lattice.
    """
    return _narrow(height, width) + _wide(height, width)


def _narrow(height: int, width: int) -> list[list[float]]:
    extent, rows = max(height, width), []
    frequency = (1 if extent >= GABOR_EXTENT else 0.5) / extent  # a fit to three pixels may begin at half a period
    while frequency < 0.46:
        for cycles, ratio in itertools.product(_NARROW_CYCLES, (1.0, 2.0)):
            sigma = cycles / frequency
            if sigma > 0.6 * extent and extent >= GABOR_EXTENT:
                continue
            centres = [_offsets(side, 1.6 * sigma) for side in (height, width)]
            for theta, y0, x0 in itertools.product(_turns(height, width), *centres):
                rows.append([theta, math.log(sigma), math.log(ratio * sigma), x0, y0, frequency])
        frequency *= 1.19
    return rows


def _wide(height: int, width: int) -> list[list[float]]:
    extent, rows = max(height, width), []
    # A row has few numbers, where a misfit counts, and few waves.
    spacing = _APART if min(height, width) > 1 else _APART / 4
    for sigma in (window * extent for window in _WINDOWS):
        up, along = (_lattice(side, sigma, spacing) for side in (height, width))
        for fy, fx in itertools.product(up, along):
            frequency = math.hypot(fx, fy)
            half_plane = fy > 0 or (fy == 0 and fx > 0)
            if half_plane and _WIDE_CYCLES / sigma < frequency <= 0.5:
                rows.append([math.atan2(fy, fx), math.log(sigma), math.log(sigma), 0.0, 0.0, frequency])
    return rows


def _lattice(side: int, sigma: float, spacing: float) -> list[float]:
    """Frequencies along one axis, of both signs."""
    if side == 1:
        return [0.0]
    count = math.ceil(_FINEST * min(sigma, _CUT * side) / spacing)
    return [_FINEST * step / count for step in range(-count, count + 1)]


@dataclasses.dataclass(frozen=True)
class Family:
    """A grid of T members, each the span of d shapes.

    `basis` (T, d, n) is orthonormal, float32 where the grid is large, `parameters` (T, 6) are those of `shapes.sampled`
    (of the narrower Gaussian, for "surround"), `log_prior` (T,) are logarithms of probabilities. `shape` says what can
    refine a member, if anything. `corner` (T, 2) is the first row and column of a member that is a 3×3 operator in a
    larger kernel, else -1.
    """

    name: FamilyName
    shape: Shape | None
    basis: NDArray[np.floating]
    parameters: Floats
    log_prior: Floats
    corner: NDArray[np.int64]


@functools.lru_cache(maxsize=4)
def families(height: int, width: int) -> tuple[Family, ...]:
    """Every family for kernels of this size.

    >>> [family.name for family in families(1, 3)]
    ['point', 'gaussian', 'surround', 'alternating', 'first', 'second']
    """
    made = [_point(height, width), _oriented("gaussian", "gaussian", height, width, ratios=(1.0,), angles=(0.0,))]
    flat = min(height, width) == 1
    angles = _turns(height, width)
    if not flat:
        made.append(_oriented("bar", "gaussian", height, width, ratios=(2.0, 4.0, math.inf), angles=angles))
    made.append(_surround(height, width))
    if min(height, width) >= 3:
        made.append(_textbook("laplacian", _LAPLACIANS, height, width))
        made.append(_textbook("sharpen", [laplacian + _POINT for laplacian in _LAPLACIANS], height, width))
    ratios = (1.0,) if flat else (1.0, 2.0, math.inf)
    quarter = angles[: len(angles) // 2] if max(height, width) >= 3 else (0.0,)  # a quarter turn changes the sign only
    if max(height, width) >= 3:
        made.append(_alternating(height, width))
    names: tuple[Literal["first", "second"], ...] = ("first", "second") if max(height, width) >= 3 else ("first",)
    for name in names:
        made.append(_with_operators(_oriented(name, name, height, width, ratios=ratios, angles=angles), height, width))
    if not flat:
        made.append(_oriented("saddle", "saddle", height, width, ratios=(1.0,), angles=quarter))
    if max(height, width) >= GABOR_EXTENT:
        made.append(gabor_family(height, width))
    return tuple(made)


@functools.lru_cache(maxsize=4)
def gabor_family(height: int, width: int) -> Family:
    """The Gabor functions of any size: below `GABOR_EXTENT`, starting points of a fit and no class."""
    return _family("gabor", "gabor", _gabor_rows(height, width), (height, width))


def _family(name: FamilyName, shape: Shape | None, rows: Sequence[Sequence[float]], size: tuple[int, int]) -> Family:
    parameters = np.array(rows, dtype=np.float64)
    assert shape is not None
    x, y = pixels(*size)
    block = max(1, _BLOCK // x.size)
    parts = [
        orthonormal(sampled(shape, parameters[start : start + block], x, y)).astype(np.float32)
        for start in range(0, len(parameters), block)
    ]
    basis = np.concatenate(parts)
    alive = np.linalg.norm(basis[:, 0], axis=1) > 0.5
    if alive.all():
        return _finished(name, shape, basis, parameters, size)
    return _finished(name, shape, basis[alive], parameters[alive], size)


def _finished(
    name: FamilyName,
    shape: Shape | None,
    basis: NDArray[np.floating],
    parameters: Floats,
    size: tuple[int, int],
    spread: float = 0.12,
    corner: NDArray[np.int64] | None = None,
    rarely: float = 0.0,
) -> Family:
    """With a prior that falls with the distance from the middle: most of what a network learns sits there.

    `rarely` is the logarithm of how many times less likely than other families it is.
    """
    distance = np.hypot(parameters[:, 3], parameters[:, 4])
    log_prior = -0.5 * (distance / (0.25 + spread * max(size))) ** 2
    log_prior -= np.log(np.exp(log_prior).sum()) + rarely
    whole = np.full((len(basis), 2), -1)
    return Family(name, shape, basis, parameters, log_prior, whole if corner is None else corner)


def _oriented(
    name: FamilyName, shape: Shape, height: int, width: int, *, ratios: Sequence[float], angles: Sequence[float]
) -> Family:
    """Gaussians or their derivatives, over widths, elongations, angles and centres."""
    rows = []
    for sigma, ratio in itertools.product(_widths(height, width), ratios):
        if sigma == _WIDE and ratio != 1.0:
            continue
        along = min(_WIDE, sigma * ratio)
        moves = name != "second" or max(height, width) >= GABOR_EXTENT  # three lobes fill three pixels
        centres = [_offsets(side, sigma) if moves else [0.0] for side in (height, width)]
        if name == "bar" and sigma > 0.35 * max(height, width):
            continue
        for theta, y0, x0 in itertools.product(angles, *centres):
            rows.append([theta, math.log(sigma), math.log(along), x0, y0, 0.0])
    return _family(name, shape, rows, (height, width))


def _with_operators(family: Family, height: int, width: int) -> Family:
    """With the shapes of 3×3 operators (Sobel's, Prewitt's, Scharr's) put into a larger kernel at and about its middle.

    They end abruptly, which no Gaussian on the larger kernel does.
    """
    if min(height, width) < 4:
        return family
    assert family.shape is not None
    sigmas = [*np.geomspace(0.45, 1.8, 12), _WIDE]
    rows = [
        [theta, math.log(sigma), math.log(along), 0.0, 0.0, 0.0]
        for sigma, theta in itertools.product(sigmas, _turns(3, 3))
        for along in sorted({sigma, _WIDE})
    ]
    small = _family(family.name, family.shape, rows, (3, 3))
    tiles = small.basis.reshape(-1, 3, 3)
    top, left = (height - 3) // 2, (width - 3) // 2
    bases, parameters, corners = [family.basis], [family.parameters], [family.corner]
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1), (0, -1), (-1, 0)):
        if not (0 <= top + row <= height - 3 and 0 <= left + column <= width - 3):
            continue
        wide = np.zeros((len(tiles), height, width), np.float32)
        wide[:, top + row : top + row + 3, left + column : left + column + 3] = tiles
        moved = small.parameters.copy()
        moved[:, 3] += left + column + 1 - (width - 1) / 2
        moved[:, 4] += top + row + 1 - (height - 1) / 2
        bases.append(wide.reshape(len(tiles), 1, -1))
        parameters.append(moved)
        corners.append(np.tile([top + row, left + column], (len(tiles), 1)))
    return _finished(
        family.name, family.shape, np.concatenate(bases), np.concatenate(parameters), (height, width),
        corner=np.concatenate(corners),
    )  # fmt: skip


def _textbook(name: FamilyName, operators: Sequence[Floats], height: int, width: int) -> Family:
    """Operators of 3×3 put into the middle of a kernel."""
    wide = []
    tops, lefts = ({(side - 3) // 2, (side - 2) // 2} for side in (height, width))
    for operator, (row, column) in itertools.product(operators, list(itertools.product(tops, lefts))):
        wide.append(np.zeros((height, width)))
        wide[-1][row : row + 3, column : column + 3] = operator / np.linalg.norm(operator)
    basis = np.stack(wide).reshape(len(wide), 1, -1)
    rarely = math.log(4) if name == "sharpen" else 0.0  # from the Laplacian it differs by 1/100 of its energy or less
    return _finished(name, None, basis, np.zeros((len(wide), 6)), (height, width), rarely=rarely)


def _alternating(height: int, width: int) -> Family:
    """Gaussians about the middle times (-1)^x, (-1)^y or both: the highest frequencies that there are.

    Without stripes that are second derivatives, whose share of the prior no other gets.
    """
    x, y = pixels(height, width)
    rows, signs = [], []
    directions = [(column, row) for column, row in ((1, 0), (0, 1), (1, 1)) if column < width and row < height]
    grid = list(itertools.product(_widths(height, width)[1:], directions))
    for sigma, (column, row) in grid:
        if column + row == 1 and _is_second(sigma, width if column else height):
            continue
        rows.append([math.atan2(row, column), math.log(sigma), math.log(sigma), 0.0, 0.0, 0.5])
        signs.append(np.where(np.floor(column * x + row * y) % 2 == 0, 1.0, -1.0))
    parameters = np.array(rows)
    basis = sampled("gaussian", parameters, x, y) * np.stack(signs)[:, None, :]
    rarely = math.log(len(grid) / len(rows))
    return _finished("alternating", None, orthonormal(basis), parameters, (height, width), rarely=rarely)


def _is_second(sigma: float, side: int) -> bool:
    """Whether (-1)^x in a Gaussian has three lobes: it has no mean, and its response rises about as ω² or [1 -2 1]."""
    if side % 2 == 0:
        return False
    u = np.arange(side) - side // 2
    profile = np.exp(-0.5 * (u / sigma) ** 2) * (-1.0) ** u
    zero, quarter, half = (abs(float(profile @ np.cos(2 * np.pi * frequency * u))) for frequency in (0, 0.25, 0.5))
    return zero < 0.15 * half and 0.25 * half < quarter < 0.6 * half


def _point(height: int, width: int) -> Family:
    x, y = pixels(height, width)
    parameters = np.zeros((x.size, 6))
    parameters[:, 3], parameters[:, 4] = x, y
    return _finished("point", None, np.eye(x.size)[:, None, :], parameters, (height, width), spread=0.06)


def _surround(height: int, width: int) -> Family:
    """Pairs of round Gaussians; the narrowest is one pixel where the centre is on one."""
    x, y = pixels(height, width)
    sigmas = [0.05, *_widths(height, width)] if height % 2 and width % 2 else _widths(height, width)
    bases, rows = [], []
    tops, lefts = ([0.0] if side % 2 else [-0.5, 0.0, 0.5] for side in (height, width))
    pairs, centres = itertools.combinations(sigmas, 2), list(itertools.product(tops, lefts))
    for (inner, outer), (y0, x0) in itertools.product(pairs, centres):
        rows.append([0.0, math.log(inner), math.log(inner), x0, y0, 0.0])
        pair = np.array([rows[-1], [0.0, math.log(outer), math.log(outer), x0, y0, 0.0]])
        bases.append(sampled("gaussian", pair, x, y)[:, 0])
    return _finished("surround", None, orthonormal(np.stack(bases)), np.array(rows), (height, width))

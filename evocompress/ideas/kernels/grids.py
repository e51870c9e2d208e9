"""The parameters that families of shapes are sampled at: angles, widths and centres, and those of Gabor functions."""

from __future__ import annotations

import itertools
import math

__all__ = ["GABOR_EXTENT", "WIDE", "gabor_rows", "offsets", "turns", "widths"]

GABOR_EXTENT = 5
"""The least height or width for which `gabor` is a class: three pixels cannot hold a period and what is beside it."""

WIDE = 50.0
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


def turns(height: int, width: int) -> tuple[float, ...]:
    """Angles in radians; a row or a column of pixels has one."""
    if min(height, width) == 1:
        return (0.0 if height == 1 else math.pi / 2,)
    return tuple(math.pi * step / _TURNS for step in range(_TURNS))


def widths(height: int, width: int) -> list[float]:
    """Widths in pixels, a quarter apart or a little more on large kernels, and one that is constant on the kernel."""
    sigma, widest, sigmas = 0.45, 0.4 * max(height, width), []
    ratio = max(1.28, (widest / sigma) ** (1 / _WIDTHS))
    while sigma < widest:
        sigmas.append(sigma)
        sigma *= ratio
    return [*sigmas, sigma, 1.6 * sigma, WIDE]


def offsets(extent: int, sigma: float) -> list[float]:
    """Centres along one axis: half a pixel or half a width apart, in the middle of the kernel, seven at most."""
    if extent < 3:
        return [0.0]
    spacing = max(0.5, 0.5 * sigma) if extent < 5 else max(0.5, 0.75 * sigma)
    count = min(_PLACES, int(max(0.5, 0.15 * extent) / spacing))
    return [spacing * step for step in range(-count, count + 1)]


def gabor_rows(height: int, width: int) -> list[list[float]]:
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
            centres = [offsets(side, 1.6 * sigma) for side in (height, width)]
            for theta, y0, x0 in itertools.product(turns(height, width), *centres):
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

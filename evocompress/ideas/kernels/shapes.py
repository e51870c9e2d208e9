"""The parametric shapes that kernels are compared with, sampled at the pixels of a kernel.

Coordinates are in pixels from the middle of the kernel: x along columns to the right, y along rows downwards. An
oriented shape varies along u, at the angle θ to x, and is a Gaussian across it, along v:

    u = (x - x0)·cos θ + (y - y0)·sin θ,  v = -(x - x0)·sin θ + (y - y0)·cos θ
    G = exp(-u²/(2·σ_u²) - v²/(2·σ_v²))
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CENTRE_X",
    "CENTRE_Y",
    "FREQUENCY",
    "LOG_SIGMA_U",
    "LOG_SIGMA_V",
    "THETA",
    "Floats",
    "Shape",
    "orthonormal",
    "pixels",
    "sampled",
]

Floats: TypeAlias = NDArray[np.float64]
Shape: TypeAlias = Literal["gaussian", "first", "second", "saddle", "gabor"]
"""G itself; its first and second derivative along u; its mixed derivative; G times a cosine along u."""

THETA, LOG_SIGMA_U, LOG_SIGMA_V, CENTRE_X, CENTRE_Y, FREQUENCY = range(6)
"""Columns of an array of parameters; the angle in radians, widths as logarithms of pixels, cycles per pixel."""

_TINY = 1e-12


def pixels(height: int, width: int) -> tuple[Floats, Floats]:
    """Coordinates x and y of a kernel's pixels in row-major order, each (height·width,).

    >>> pixels(1, 4)[0]
    array([-1.5, -0.5,  0.5,  1.5])
    """
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return x.ravel() - (width - 1) / 2, y.ravel() - (height - 1) / 2


def sampled(shape: Shape, parameters: Floats, x: Floats, y: Floats) -> Floats:
    """Sample shapes whose weighted sums are the family's members.

    Args:
        shape: Which family.
        parameters: (T, 6), a row for each shape; the columns are named in this module.
        x: (n,) and `y`: the pixels.

    Returns:
        (T, d, n), d = 2 for "gabor" (cosine and sine, which make any phase) and 1 for the others. The second
        derivative has no mean, as texts make it for a kernel that is cut off (a multiple of G is taken away).
    """
    p = parameters[:, :, None]
    cos, sin = np.cos(p[:, THETA]), np.sin(p[:, THETA])
    dx, dy = x - p[:, CENTRE_X], y - p[:, CENTRE_Y]
    u, v = dx * cos + dy * sin, dy * cos - dx * sin
    across, along = np.exp(-2 * p[:, LOG_SIGMA_U]), np.exp(-2 * p[:, LOG_SIGMA_V])
    exponent = -0.5 * (u**2 * across + v**2 * along)
    gauss = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    if shape == "gabor":
        angle = 2 * np.pi * p[:, FREQUENCY] * u
        return np.stack([gauss * np.cos(angle), gauss * np.sin(angle)], axis=1)
    if shape == "first":
        gauss = u * gauss
    elif shape == "saddle":
        gauss = u * v * gauss
    elif shape == "second":
        curved = (u**2 * across - 1) * gauss
        gauss = curved - gauss * (curved.sum(axis=1) / gauss.sum(axis=1))[:, None]
    shapes: Floats = gauss[:, None, :]
    return shapes


def orthonormal(basis: Floats) -> Floats:
    """Orthonormal bases of the same spans, (T, d, n) from (T, d, n); zeros stand for what is dependent.

    >>> orthonormal(np.array([[[3.0, 0, 0], [1, 2, 0]]])).tolist()
    [[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]
    """
    done: list[Floats] = []
    for member in np.moveaxis(basis, 1, 0):
        before = np.linalg.norm(member, axis=1, keepdims=True)
        rest = member
        for other in done:
            rest = rest - (rest * other).sum(axis=1, keepdims=True) * other
        norm = np.linalg.norm(rest, axis=1, keepdims=True)
        kept = norm > 1e-6 * before + _TINY
        done.append(np.where(kept, rest / np.where(kept, norm, 1.0), 0.0))
    return np.stack(done, axis=1)

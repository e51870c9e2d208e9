"""Kernels whose class is known by construction, at random angles, of several sizes, with noise."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["KINDS", "ORIENTED", "ROW_KINDS", "Floats", "draws", "row_draws"]

Floats: TypeAlias = npt.NDArray[np.float64]

#: Kinds of kernels, and the class and order that each has.
KINDS: dict[str, tuple[str, int | None]] = {
    "Sobel": ("derivative", 1),
    "Prewitt": ("derivative", 1),
    "Scharr": ("derivative", 1),
    "difference of two pixels": ("derivative", 1),
    "[1 -2 1] in one row": ("derivative", 2),
    "Laplacian, 4 neighbours": ("derivative", 2),
    "Laplacian, 8 neighbours": ("derivative", 2),
    "second derivative of a Gaussian": ("derivative", 2),
    "Gaussian": ("low-pass", None),
    "box": ("low-pass", None),
    "elongated Gaussian": ("low-pass", None),
    "difference of Gaussians": ("band-pass", None),
    "Gabor function": ("gabor", None),
    "Gabor function, wide window": ("gabor", None),
    "second Sobel": ("derivative", 2),
    "one pixel": ("identity", None),
}
#: The same of kernels of one row.
ROW_KINDS: dict[str, tuple[str, int | None]] = {
    "first derivative of a Gaussian": ("derivative", 1),
    "second derivative of a Gaussian": ("derivative", 2),
    "Gaussian": ("low-pass", None),
    "cosine": ("gabor", None),
}
_OPERATORS = {
    "Sobel": np.outer([1, 2, 1], [-1, 0, 1]),
    "Prewitt": np.outer([1, 1, 1], [-1, 0, 1]),
    "Scharr": np.outer([3, 10, 3], [-1, 0, 1]),
    "second Sobel": np.outer([1, 2, 1], [1, -2, 1]),
    "Laplacian, 4 neighbours": np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]),
    "Laplacian, 8 neighbours": np.array([[1, 1, 1], [1, -8, 1], [1, 1, 1]]),
}
#: Of three pixels in one row, before they are turned by a multiple of 45°.
_ROWS = {"difference of two pixels": (0, -1, 1), "[1 -2 1] in one row": (1, -2, 1)}
#: What lies along x or y, up to so many degrees.
_ALONG_AXES = {"second Sobel": 0, "Gabor function, wide window": 6}
#: Those whose direction is known.
ORIENTED = (
    "Sobel",
    "Prewitt",
    "Scharr",
    *_ROWS,
    "second derivative of a Gaussian",
    "elongated Gaussian",
    "Gabor function",
    "Gabor function, wide window",
    "second Sobel",
)


def _kernel(size: int, kind: str, rng: np.random.Generator) -> tuple[Floats, float]:
    """One kernel (size, size) of a kind at a random angle, and the angle in radians."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    angle = rng.integers(8) * np.pi / 4 if kind in _ROWS else rng.uniform(0, np.pi)
    if kind in _ALONG_AXES:
        angle = rng.integers(4) * np.pi / 2 + np.radians(_ALONG_AXES[kind]) * rng.uniform(-1, 1)
    r2 = x * x + y * y
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)

    def gaussian(sigma: float) -> Floats:
        window: Floats = np.exp(-r2 / 2 / sigma**2)
        return window / window.sum()

    made: Floats
    if kind in _OPERATORS:
        operator, made, first = _OPERATORS[kind], np.zeros((size, size)), (size - 3) // 2
        turned = operator if "Laplacian" in kind else np.cos(angle) * operator + np.sin(angle) * operator.T
        made[first : first + 3, first : first + 3] = turned
    elif kind in _ROWS:
        made, row, column = np.zeros((size, size)), round(np.sin(angle)), round(np.cos(angle))
        for step, value in zip((-1, 0, 1), _ROWS[kind], strict=True):
            made[size // 2 + step * row, size // 2 + step * column] = value
    elif kind == "second derivative of a Gaussian":
        made = ((u * 6 / size) ** 2 - 1) * gaussian(size / 6)
        made = made - gaussian(size / 6) * made.sum()
    elif kind == "Gaussian":
        made = gaussian(size / rng.uniform(4, 6))
    elif kind == "box":
        made = np.ones((size, size))
    elif kind == "elongated Gaussian":
        sigma = 0.7 * size / 6
        made = np.exp(-(u**2) / 2 / sigma**2 - v**2 / 2 / (3 * sigma) ** 2)
    elif kind == "difference of Gaussians":
        sigma = size / 8 * rng.uniform(0.8, 1.1)
        made = gaussian(sigma) - gaussian(1.6 * sigma)
    elif kind == "Gabor function":
        period = rng.uniform(3, max(3.2, size / 1.6))
        sigma = min(period * rng.uniform(0.4, 0.6), size / 3)
        made = np.exp(-r2 / 2 / sigma**2) * np.cos(2 * np.pi * u / period + rng.uniform(0, 2 * np.pi))
    elif kind == "Gabor function, wide window":
        sigma, frequency = size * rng.uniform(0.33, 0.5), rng.uniform(0.36, 0.42)
        made = np.exp(-r2 / 2 / sigma**2) * np.cos(2 * np.pi * frequency * u + rng.uniform(0, 2 * np.pi))
    else:
        made = np.zeros((size, size))
        made[size // 2, size // 2] = 1
    return made, angle


def _row(length: int, kind: str, rng: np.random.Generator) -> Floats:
    """One kernel (1, length) of a kind."""
    x = np.arange(length) - (length - 1) / 2
    sigma = length * rng.uniform(0.1, 0.2)
    gauss = np.exp(-(x**2) / 2 / sigma**2)
    curved = (x**2 / sigma**2 - 1) * gauss
    made: dict[str, npt.NDArray[np.floating]] = {
        "first derivative of a Gaussian": x * gauss,
        "second derivative of a Gaussian": curved - gauss * curved.sum() / gauss.sum(),
        "Gaussian": gauss,
        "cosine": np.cos(2 * np.pi * rng.uniform(0.2, 0.4) * x + rng.uniform(0, 2 * np.pi)),
    }
    return made[kind][None].astype(np.float64)


def row_draws(length: int, kind: str, noise: float, count: int, seed: int) -> Floats:
    """Kernels (count, 1, length) of random sign, with noise of that share of their norms."""
    rng, made = np.random.default_rng(seed), []
    for _ in range(count):
        kernel = _row(length, kind, rng)
        kernel *= rng.choice([-1, 1]) / np.linalg.norm(kernel)
        made.append(kernel + noise / np.sqrt(length) * rng.standard_normal(kernel.shape))
    return np.array(made)


def draws(size: int, kind: str, noise: float, count: int, seed: int) -> tuple[Floats, Floats]:
    """Kernels (count, size, size) of random angle, sign and scale, with noise of that share of their norms.

    The second array has the angles in degrees, (count,), which mean something for kinds that are oriented.
    """
    rng, made, angles = np.random.default_rng(seed), [], []
    for _ in range(count):
        kernel, angle = _kernel(size, kind, rng)
        angles.append(np.degrees(angle))
        kernel = kernel / np.linalg.norm(kernel) * rng.choice([-1, 1]) * 10 ** rng.uniform(-4, 2)
        made.append(kernel + noise * np.linalg.norm(kernel) / size * rng.standard_normal(kernel.shape))
    return np.array(made), np.array(angles)

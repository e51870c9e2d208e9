"""How right `evocompress kernels` is about kernels whose class is known: the tables of docs/kernels.md.

    python -m benchmarks.kernels right [--draws 200]
    python -m benchmarks.kernels confidence [--draws 60]
    python -m benchmarks.kernels noise [--draws 2000]
    python -m benchmarks.kernels time [--draws 1000]

`right`: per cent of the kernels of each kind that get their class and order, by size and by noise, which is in norms of
the kernel; random angles, signs, scales. Of 11×11, 60 are drawn at most. `confidence`: of all kernels with a class, by
confidence, how many are right (3×3 to 7×7, noise of .2 to 1, `--draws` of each kind, size and noise). `noise`: per cent
of kernels of white Gaussian and of Laplace noise that get a class. `time`: seconds for so many kernels of Gaussian
noise, on one thread. Prints one JSON line for each size and kind, or size, or range of confidences.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from evocompress.kernels.classify import Kernel, classify

__all__ = ["KINDS", "confidence_rows", "draws", "noise_rows", "right_rows", "time_rows"]

Floats: TypeAlias = npt.NDArray[np.float64]

#: Kinds of kernels, and the class and order that each has.
KINDS: dict[str, tuple[str, int | None]] = {
    "Sobel": ("derivative", 1),
    "Prewitt": ("derivative", 1),
    "Scharr": ("derivative", 1),
    "Laplacian, 4 neighbours": ("derivative", 2),
    "Laplacian, 8 neighbours": ("derivative", 2),
    "second derivative of a Gaussian": ("derivative", 2),
    "Gaussian": ("low-pass", None),
    "box": ("low-pass", None),
    "elongated Gaussian": ("low-pass", None),
    "difference of Gaussians": ("band-pass", None),
    "Gabor function": ("gabor", None),
    "one pixel": ("identity", None),
}
_OPERATORS = {
    "Sobel": np.outer([1, 2, 1], [-1, 0, 1]),
    "Prewitt": np.outer([1, 1, 1], [-1, 0, 1]),
    "Scharr": np.outer([3, 10, 3], [-1, 0, 1]),
    "Laplacian, 4 neighbours": np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]]),
    "Laplacian, 8 neighbours": np.array([[1, 1, 1], [1, -8, 1], [1, 1, 1]]),
}
_SIZES = (3, 5, 7, 11)
_NOISE = (0.0, 0.2, 0.4)
#: What sizes have no room for: not counted among the right or wrong.
_UNCLEAR = {
    3: ("second derivative of a Gaussian", "elongated Gaussian", "difference of Gaussians", "Gabor function"),
    5: ("difference of Gaussians",),
}
_EDGES = (0.0, 0.5, 0.7, 0.9, 0.99, 1.01)
_ODD_SIZES = ((1, 2), (1, 3), (1, 5), (2, 2), (3, 3), (4, 4), (5, 5), (7, 7), (11, 11))


def _kernel(size: int, kind: str, rng: np.random.Generator) -> Floats:
    """One kernel (size, size) of a kind, at a random angle."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    angle, r2 = rng.uniform(0, np.pi), x * x + y * y
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)

    def gaussian(sigma: float) -> Floats:
        window: Floats = np.exp(-r2 / 2 / sigma**2)
        return window / window.sum()

    made: Floats
    if kind in _OPERATORS:
        operator, made, first = _OPERATORS[kind], np.zeros((size, size)), (size - 3) // 2
        turned = operator if "Laplacian" in kind else np.cos(angle) * operator + np.sin(angle) * operator.T
        made[first : first + 3, first : first + 3] = turned
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
    else:
        made = np.zeros((size, size))
        made[size // 2, size // 2] = 1
    return made


def draws(size: int, kind: str, noise: float, count: int, seed: int) -> Floats:
    """Kernels (count, size, size) of random angle, sign and scale, with noise of that share of their norms."""
    rng, made = np.random.default_rng(seed), []
    for _ in range(count):
        kernel = _kernel(size, kind, rng)
        kernel = kernel / np.linalg.norm(kernel) * rng.choice([-1, 1]) * 10 ** rng.uniform(-4, 2)
        made.append(kernel + noise * np.linalg.norm(kernel) / size * rng.standard_normal(kernel.shape))
    return np.array(made)


def _is_right(kernel: Kernel, kind: str) -> bool:
    return (kernel.kernel_class, kernel.order) == KINDS[kind]


def right_rows(count: int) -> Iterator[dict[str, Any]]:
    """A row for each kind and size: per cent right at each level of noise."""
    for kind in KINDS:
        for size in _SIZES:
            found = [classify(draws(size, kind, noise, min(count, 60) if size > 7 else count, 9)) for noise in _NOISE]
            right = [round(100 * np.mean([_is_right(kernel, kind) for kernel in some])) for some in found]
            yield {"kind": kind, "size": size, "noise": _NOISE, "right_percent": right}


def confidence_rows(count: int) -> Iterator[dict[str, Any]]:
    """A row for each range of confidences: kernels with a class, mean confidence, share of them that are right."""
    found = [
        (kernel.confidence, _is_right(kernel, kind))
        for size in _SIZES[:3]
        for kind in KINDS
        if kind not in _UNCLEAR.get(size, ())
        for noise in (0.2, 0.4, 0.6, 0.8, 1.0)
        for kernel in classify(draws(size, kind, noise, count, 4))
        if kernel.kernel_class != "none"
    ]
    confidences, right = np.array(found).T
    for low, high in zip(_EDGES, _EDGES[1:], strict=False):
        here = (confidences >= low) & (confidences < high)
        yield {
            "confidence": [low, min(high, 1.0)],
            "kernels": int(here.sum()),
            "mean_confidence": round(float(confidences[here].mean()), 3) if here.any() else None,
            "right": round(float(right[here].mean()), 3) if here.any() else None,
        }


def noise_rows(count: int) -> Iterator[dict[str, Any]]:
    """A row for each size: per cent of kernels of noise that are given a class."""
    rng = np.random.default_rng(77)
    for size in _ODD_SIZES:
        row: dict[str, Any] = {"size": size}
        for name, kernels in (
            ("Gaussian", rng.standard_normal((count, *size))),
            ("Laplace", rng.laplace(size=(count, *size))),
        ):
            row[f"{name}_percent"] = round(100 * np.mean([k.kernel_class != "none" for k in classify(kernels)]), 1)
        yield row


def time_rows(count: int) -> Iterator[dict[str, Any]]:
    """A row for each size: seconds for so many kernels, once what depends on the size alone is there."""
    for size in _SIZES:
        kernels = np.random.default_rng(0).standard_normal((count, size, size))
        classify(kernels[:5])
        start = time.process_time()
        classify(kernels)
        yield {"size": size, "kernels": count, "cpu_seconds": round(time.process_time() - start, 2)}


def main() -> None:
    """Print the lines of one part."""
    parts = {
        "right": (right_rows, 200), "confidence": (confidence_rows, 60), "noise": (noise_rows, 2000),
        "time": (time_rows, 1000),
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=parts)
    parser.add_argument("--draws", type=int, default=None)
    arguments = parser.parse_args()
    rows, count = parts[arguments.part]
    for row in rows(arguments.draws or count):
        print(json.dumps({"benchmark": f"kernels_{arguments.part}", **row}), flush=True)


if __name__ == "__main__":
    main()

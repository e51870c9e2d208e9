"""Classes of kernels of any size, up to the largest."""

from __future__ import annotations

import numpy as np
import pytest

from evocompress.ideas.kernels import CLASSES, classify
from evocompress.ideas.kernels.families import families


@pytest.mark.parametrize("size", [(1, 2), (2, 5), (6, 2), (1, 9), (8, 8), (4, 7), (13, 13)], ids=str)
def test_any_size_gives_finite_results(size: tuple[int, int]) -> None:
    for kernel in classify(np.random.default_rng(5).standard_normal((20, *size))):
        assert kernel.kernel_class in CLASSES and 0 <= kernel.confidence <= 1
        assert kernel.orientation_degrees is None or 0 <= kernel.orientation_degrees < 180
        assert kernel.r2 is None or 0 <= kernel.r2 <= 1
        assert kernel.phase is None or -np.pi <= kernel.phase <= np.pi


@pytest.mark.parametrize("size", [(21, 21), (1, 80)], ids=str)
def test_large_kernels(size: tuple[int, int]) -> None:
    y, x = np.mgrid[: size[0], : size[1]].astype(float)
    x, y = x - (size[1] - 1) / 2, y - (size[0] - 1) / 2
    gauss = np.exp(-(x**2 + y**2) / 2 / (size[1] / 6) ** 2)
    shapes = {
        "low-pass": gauss,
        "derivative": x * gauss,
        "gabor": gauss * np.cos(2 * np.pi * x / 4),
        "identity": (x**2 + y**2 == np.min(x**2 + y**2)) * (x >= 0.0),
        "none": np.random.default_rng(4).standard_normal(size),
    }
    names = [kernel.kernel_class for kernel in classify(np.stack([*shapes.values()]))]
    assert names == [*shapes]
    edge = np.zeros(size)
    edge[size[0] // 2, size[1] // 2 - 1 : size[1] // 2 + 1] = -1, 1
    assert classify(edge[None])[0].orientation_degrees == pytest.approx(0, abs=0.1)


def test_grids_of_large_kernels_are_bounded() -> None:
    assert sum(family.basis.nbytes for family in families(25, 25)) < 300e6

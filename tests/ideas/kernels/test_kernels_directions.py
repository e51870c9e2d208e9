"""Directions of derivatives that are narrower than a pixel, whatever their sign."""

from __future__ import annotations

import numpy as np
import pytest

from evocompress.ideas.kernels.classify import classify


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("row", "order"), [((-1, 0, 1), 1), ((0, -1, 1), 1), ((1, -2, 1), 2)], ids=str)
def test_a_kernel_and_its_opposite_vary_in_one_direction(
    row: tuple[int, ...], order: int, sign: float, size: int
) -> None:
    across = np.zeros((size, size))
    across[size // 2, size // 2 - 1 : size // 2 + 2] = row
    found = classify(sign * np.stack([across, across.T]))
    assert [(each.kernel_class, each.order) for each in found] == [("derivative", order)] * 2
    assert [each.orientation_degrees for each in found] == pytest.approx([0, 90], abs=0.1)

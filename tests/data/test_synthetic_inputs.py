"""Noise stands in for data of three kinds."""

from __future__ import annotations

import pytest
import torch

from evocompress.data.synthetic_inputs import noise_images
from evocompress.errors import DataError


@pytest.mark.parametrize(
    ("shape", "alike"), [("3x16x16", (True, True, True)), ("40x5", (True, False)), ("784", (False,))]
)
def test_noise_varies_slowly_over_places_and_channels_of_images_are_alike(shape: str, alike: tuple[bool, ...]) -> None:
    found = noise_images(shape, 200, seed=1).inputs
    assert found.shape == (200, *map(int, shape.split("x")))
    assert found.mean().abs() < 0.3 and float(found.std()) == pytest.approx(1, rel=1e-3)
    for axis, expected in enumerate(alike, start=1):
        size = found.shape[axis] - 1
        product = float((found.narrow(axis, 0, size) * found.narrow(axis, 1, size)).mean())
        assert product > 0.5 if expected else abs(product) < 0.1


def test_noise_comes_from_its_seed_and_has_no_labels() -> None:
    found, same, other = (noise_images(shape, 9, seed) for shape, seed in (("3x4x4", 1), ("3X4x4", 1), ("3x4x4", 2)))
    assert torch.equal(found.inputs, same.inputs) and not torch.equal(found.inputs, other.inputs)
    assert not found.is_labelled


@pytest.mark.parametrize("shape", ["3x0x4", "axbxc", "3x-1x4", "", "0", "3x3x3x3", "1.5"])
def test_other_shapes_are_refused(shape: str) -> None:
    with pytest.raises(DataError, match="channels x height x width.*steps x features.*length of a vector"):
        noise_images(shape, 1, seed=0)

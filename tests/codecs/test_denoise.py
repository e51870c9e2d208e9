"""The stage that damps spatial frequencies."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft

from evocompress.codecs.codec import Codec, Cost
from evocompress.codecs.deadzone import DeadZone
from evocompress.codecs.denoise import Denoise
from evocompress.errors import CodecError

PLAIN = Codec((DeadZone(step_scale=0.01, passes=0),))


def damped(
    x: np.ndarray[tuple[int, ...], np.dtype[np.float64]], strength: float, cost: Cost
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    codec = Codec((Denoise(strength), *PLAIN.stages))
    return codec.decode(codec.encode(x, cost), x.shape)


def test_each_frequency_is_damped_by_the_wiener_factor() -> None:
    x, cost = np.random.default_rng(0).normal(size=(40, 30, 3, 5)) * np.linspace(0.05, 1, 15).reshape(3, 5), Cost(1e-2)
    level = 2 * cost.step**2 / 12
    before, after = (scipy.fft.dctn(a, axes=(2, 3), norm="ortho") for a in (x, damped(x, 2.0, cost)))
    kept = np.maximum(1 - level / (before**2).mean(axis=(0, 1)), 0)
    assert 0 < kept.min() < kept.max() < 1
    assert np.abs(after - kept * before).max() < cost.step * 0.01 * 3


def test_smooth_kernels_with_noise_come_closer_to_what_they_were() -> None:
    rng = np.random.default_rng(1)
    smooth = rng.normal(size=(30, 20, 1, 1)) * np.outer([1.0, 2, 2, 2, 1], [1.0, 2, 3, 2, 1])
    sigma = 0.5
    noisy = smooth + rng.normal(0, sigma, smooth.shape)
    cost = Cost(1e-3)
    strength = sigma**2 / (cost.step**2 / 12)
    assert ((damped(noisy, strength, cost) - smooth) ** 2).mean() < 0.4 * sigma**2


@pytest.mark.parametrize(
    "shape", [(), (0,), (30,), (4, 5), (3, 2, 1, 1), (2, 0, 3, 3), (4, 2, 5), (2, 2, 2, 2, 2)], ids=str
)
def test_every_shape_keeps_its_layout(shape: tuple[int, ...]) -> None:
    x, cost = np.random.default_rng(2).normal(size=shape), Cost(1e-3)
    coded, plain = (Codec((Denoise(s), *PLAIN.stages)).encode(x, cost) for s in (1.0, 0.0))
    assert coded.side == PLAIN.encode(x, cost).side == plain.side
    assert [p.symbols.shape for p in coded.planes] == [p.symbols.shape for p in plain.planes]
    if len(shape) < 3 or math.prod(shape[2:]) == 1:
        assert np.array_equal(damped(x, 1.0, cost), damped(x, 0.0, cost))


def test_what_lies_below_the_water_level_is_gone() -> None:
    x = np.random.default_rng(3).normal(size=(5, 4, 3, 3))
    assert not damped(x, 1000.0, Cost(1.0)).any() and not damped(np.zeros((5, 4, 3, 3)), 1.0, Cost(1.0)).any()


@pytest.mark.parametrize("strength", [-0.1, 1001.0, math.nan])
def test_a_strength_out_of_range_is_refused(strength: float) -> None:
    with pytest.raises(CodecError, match=r"denoise: strength is .*; it must lie in \[0, 1000\]"):
        Denoise(strength)

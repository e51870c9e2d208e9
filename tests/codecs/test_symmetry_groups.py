"""The symmetries of kernels: projections, bases, nearness."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from laplace_weights import laplace
from symmetric_kernels import ALL, SIZES, Floats

from evocompress.codecs.symmetry_groups import (
    MAX_PLACES,
    SYMMETRIES,
    bank_nearness,
    group,
    groups,
    nearest,
    nearness,
    needs_square,
    separable_nearness,
)
from evocompress.errors import CodecError

#: What each symmetry means, written out independently of the orbits.
MEANING: dict[str, Callable[[Floats], Floats]] = {
    "none": lambda k: k,
    "zero": lambda k: 0 * k,
    "constant": lambda k: np.full_like(k, k.mean()),
    "identical-columns": lambda k: np.repeat(k.mean(1, keepdims=True), k.shape[1], 1),
    "identical-rows": lambda k: np.repeat(k.mean(0, keepdims=True), k.shape[0], 0),
    "identical-columns-odd": lambda k: np.repeat((k - k[::-1]).mean(1, keepdims=True) / 2, k.shape[1], 1),
    "identical-rows-odd": lambda k: np.repeat((k - k[:, ::-1]).mean(0, keepdims=True) / 2, k.shape[0], 0),
    "left-right": lambda k: (k + k[:, ::-1]) / 2,
    "up-down": lambda k: (k + k[::-1]) / 2,
    "left-right-odd": lambda k: (k - k[:, ::-1]) / 2,
    "up-down-odd": lambda k: (k - k[::-1]) / 2,
    "both-mirrors": lambda k: (k + k[:, ::-1] + k[::-1] + k[::-1, ::-1]) / 4,
    "both-mirrors-odd": lambda k: (k - k[:, ::-1] - k[::-1] + k[::-1, ::-1]) / 4,
    "left-right-odd-up-down": lambda k: (k - k[:, ::-1] + k[::-1] - k[::-1, ::-1]) / 4,
    "up-down-odd-left-right": lambda k: (k + k[:, ::-1] - k[::-1] - k[::-1, ::-1]) / 4,
    "half-turn": lambda k: (k + k[::-1, ::-1]) / 2,
    "half-turn-odd": lambda k: (k - k[::-1, ::-1]) / 2,
    "quarter-turn": lambda k: (k + k.T[::-1] + k[::-1, ::-1] + k.T[:, ::-1]) / 4,
    "quarter-turn-odd": lambda k: (k - k.T[::-1] + k[::-1, ::-1] - k.T[:, ::-1]) / 4,
    "transpose": lambda k: (k + k.T) / 2,
    "transpose-odd": lambda k: (k - k.T) / 2,
    "anti-transpose": lambda k: (k + k[::-1, ::-1].T) / 2,
    "anti-transpose-odd": lambda k: (k - k[::-1, ::-1].T) / 2,
}


def test_every_symmetry_has_its_meaning_written_out() -> None:
    assert set(MEANING) | {"radial"} == set(SYMMETRIES)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", MEANING)
def test_a_projection_is_what_its_name_says(name: str, size: tuple[int, int]) -> None:
    if needs_square(name) and size[0] != size[1]:
        with pytest.raises(CodecError, match="only square"):
            group(name, *size)
        return
    kernel = laplace(*size)
    found = group(name, *size).project(kernel.reshape(1, -1)).reshape(size)
    assert np.allclose(found, MEANING[name](kernel), atol=1e-15)


@pytest.mark.parametrize(("name", "size"), ALL, ids=str)
def test_a_basis_is_orthonormal_and_a_projection_does_nothing_twice(name: str, size: tuple[int, int]) -> None:
    found = groups(*size)[name]
    assert found.basis.shape == (found.n_free, math.prod(size)) and found.name == name
    assert np.allclose(found.basis @ found.basis.T, np.eye(found.n_free), atol=1e-14)
    once = found.project(laplace(6, math.prod(size)))
    assert np.allclose(found.project(once), once, rtol=1e-14)
    coefficients = laplace(6, found.n_free)
    assert np.allclose(found.kernels(coefficients), coefficients @ found.basis, atol=1e-15)
    assert not np.signbit(found.kernels(np.zeros((1, found.n_free)))).any()
    assert list(dict.fromkeys(found.index[found.sign != 0])) == list(range(found.n_free))


@pytest.mark.parametrize("size", [(3, 3), (5, 5), (4, 4), (3, 5), (9, 9)], ids=str)
def test_radial_kernels_are_functions_of_the_distance(size: tuple[int, int]) -> None:
    y, x = (np.arange(n) - (n - 1) / 2 for n in size)
    distance = np.hypot(y[:, None], x).ravel().round(9)
    found = group("radial", *size)
    assert found.n_free == len(np.unique(distance))
    assert all(len(np.unique(distance[found.index == orbit])) == 1 for orbit in range(found.n_free))


def test_of_equal_symmetries_the_first_stays() -> None:
    assert list(groups(1, 1)) == ["none", "zero"]
    assert "quarter-turn" not in groups(3, 3) and "quarter-turn" in groups(5, 5)
    for size in SIZES:
        maps = [(g.index.tobytes(), g.sign.tobytes()) for g in groups(*size).values()]
        assert len(set(maps)) == len(maps)
        numbers = [g.number for g in groups(*size).values()]
        assert numbers == sorted(numbers) and all(list(SYMMETRIES)[g.number] == g.name for g in groups(*size).values())


def test_kernels_that_are_too_large_have_no_symmetries() -> None:
    assert list(groups(MAX_PLACES + 1, 1)) == ["none"]
    with pytest.raises(CodecError, match=f"at most {MAX_PLACES} places"):
        group("constant", MAX_PLACES + 1, 1)


def test_an_unknown_symmetry_names_the_nearest() -> None:
    with pytest.raises(CodecError, match="Did you mean 'radial'"):
        group("radical", 3, 3)
    with pytest.raises(CodecError, match="at least 1"):
        groups(0, 3)


def test_nearness_is_residual_over_norm() -> None:
    kernels = laplace(4, 2, 5, 5)
    far = nearness(kernels)
    assert far.shape == (4, 2, len(groups(5, 5)))
    for (o, i), (column, name) in itertools.product([(0, 0), (3, 1)], enumerate(groups(5, 5))):
        left = kernels[o, i] - groups(5, 5)[name].project(kernels[o, i].reshape(1, -1)).reshape(5, 5)
        assert far[o, i, column] == pytest.approx(np.linalg.norm(left) / np.linalg.norm(kernels[o, i]), abs=1e-7)


@pytest.mark.parametrize("scale", [1e-310, 1e-150, 1.0, 1e150])
def test_nearness_does_not_depend_on_scale(scale: float) -> None:
    kernels = np.round(laplace(5, 3, 3) * 100)
    assert np.allclose(nearness(kernels * scale), nearness(kernels), atol=1e-3)


def test_zero_kernels_have_every_symmetry() -> None:
    kernels = np.stack([np.zeros((3, 3)), np.ones((3, 3))])
    assert not nearness(kernels)[0].any() and not separable_nearness(kernels)[0]
    names = list(groups(3, 3))
    assert nearness(kernels)[1, names.index("zero")] == 1 and nearness(kernels)[1, names.index("constant")] < 1e-7
    assert nearness(np.zeros((0, 3, 3))).shape == (0, len(names))


@pytest.mark.parametrize("size", [(3, 3), (5, 5), (3, 5)], ids=str)
def test_the_nearest_symmetry_is_the_smallest_that_a_kernel_has(size: tuple[int, int]) -> None:
    known = groups(*size)
    for name, found in known.items():
        kernels = found.project(laplace(4, math.prod(size)))
        noisy = kernels + 1e-6 * laplace(5, math.prod(size))[:4]
        for k in (kernels, noisy) if name != "zero" else (kernels,):
            assert [list(known)[i] for i in nearest(k.reshape(4, *size), price=1e-5)] == [name] * 4
    assert not nearest(laplace(4, *size), price=0.0).any()  # "none" is nearest of all where numbers cost nothing
    for price in (-0.1, 1.5, np.nan):
        with pytest.raises(CodecError, match="price is"):
            nearest(np.zeros(size), price)


def test_bank_nearness_pools_over_inputs() -> None:
    bank = np.stack([np.ones((3, 3)), np.zeros((3, 3))])[None]
    column = list(groups(3, 3)).index("zero")
    assert bank_nearness(bank).shape == (1, len(groups(3, 3))) and bank_nearness(bank)[0, column] == 1
    mixed = laplace(2, 6, 3, 3)
    lost = nearness(mixed) ** 2 * (mixed**2).sum(axis=(2, 3))[..., None]
    assert np.allclose(bank_nearness(mixed), np.sqrt(lost.sum(1) / (mixed**2).sum((1, 2, 3))[:, None]), atol=1e-7)


def test_separable_kernels_are_found_by_their_rank() -> None:
    kernels = np.stack([np.outer([1.0, 2, 1], [-1.0, 0, 1]), np.eye(3)])
    assert np.allclose(separable_nearness(kernels), [0, math.sqrt(2 / 3)], atol=1e-7)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("function", [nearness, nearest, separable_nearness, bank_nearness])
def test_kernels_that_are_not_finite_are_refused(function: object, value: float) -> None:
    kernels = np.ones((2, 2, 3, 3))
    kernels[1, 0, 2, 2] = value
    with pytest.raises(CodecError, match=r"\(2, 2, 3, 3\) hold NaN or infinity"):
        function(kernels)  # type: ignore[operator]


@pytest.mark.parametrize("function", [nearness, nearest, separable_nearness, bank_nearness])
def test_kernels_of_too_few_dimensions_are_refused(function: object) -> None:
    with pytest.raises(CodecError, match=r"\(3,\)"):
        function(np.zeros(3))  # type: ignore[operator]

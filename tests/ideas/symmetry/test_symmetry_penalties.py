"""Penalties on what a kernel holds: distance to a symmetry, entropy, distinct values."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from symmetry_network import backward, network, normal
from torch import Tensor, nn

from evocompress.codecs.symmetry_groups import SYMMETRIES, group, groups, nearness
from evocompress.errors import ConfigError, ModelError
from evocompress.ideas.connections import OverProvisionedLinear
from evocompress.ideas.connections.plan import ConnectionPlan
from evocompress.ideas.symmetry.penalties import (
    KernelPenalties,
    Pool,
    nearest_symmetry_distance,
    soft_distinct_values,
    soft_entropy,
    symmetry_residuals,
    trained_kernels,
)


def gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(function(leaf), leaf)
    return found


def agrees_with_differences(function: Callable[[Tensor], Tensor], x: Tensor) -> None:
    direction = normal(*x.shape, seed=9)
    h = 1e-6
    numeric = (function(x + h * direction) - function(x - h * direction)) / (2 * h)
    assert torch.isclose((gradient(function, x) * direction).sum(), numeric, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("shape", [(3, 2, 3, 3), (2, 3, 4, 4), (4, 1, 3, 5), (2, 2, 7)], ids=str)
def test_residuals_are_those_of_the_codec(shape: tuple[int, ...]) -> None:
    weight = normal(*shape)
    size = (1, shape[2]) if len(shape) == 3 else (shape[2], shape[3])
    names = list(groups(*size))
    norm = weight.reshape(-1, math.prod(size)).square().sum(1, keepdim=True)
    expected = nearness(weight.numpy().reshape(-1, *size))
    assert np.allclose((symmetry_residuals(weight, names) / norm).sqrt(), expected, atol=1e-7)


@pytest.mark.parametrize("name", sorted(set(SYMMETRIES) - {"none", "zero"}))
def test_distance_falls_to_zero_at_every_symmetry(name: str) -> None:
    weight = normal(3, 2, 5, 5)
    nearest = torch.from_numpy(group(name, 5, 5).project(weight.reshape(-1, 25).numpy())).reshape(weight.shape)
    assert nearest_symmetry_distance(nearest).item() < 1e-12
    assert 0.05 < (far := nearest_symmetry_distance(weight, [name]).item()) < 1
    middle = nearest_symmetry_distance(nearest + 0.1 * (weight - nearest), [name]).item()
    assert 0 < middle < far / 2
    agrees_with_differences(lambda w: nearest_symmetry_distance(w, [name]), weight)


def test_a_step_down_the_distance_comes_nearer() -> None:
    weight = normal(6, 5, 3, 3)
    for price in (0.0, 0.5, 1.0):
        loss = functools.partial(nearest_symmetry_distance, price=price)
        agrees_with_differences(loss, weight)
        assert loss(weight - 0.5 * gradient(loss, weight)) < loss(weight)


def test_a_price_prefers_simple_symmetries() -> None:
    kernel = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    kernel[..., 0, 0] = 1.5
    free = nearest_symmetry_distance(kernel).item()
    priced = nearest_symmetry_distance(kernel, price=1.0).item()
    constant = nearest_symmetry_distance(kernel, ["constant"]).item()
    assert free < 1e-12 and priced == pytest.approx(constant) and constant > 0.01  # transposing changes nothing


@pytest.mark.parametrize("shape", [(2, 3, 3, 3), (2, 3, 1, 1), (0, 3, 3, 3), (2, 2, 2, 2), (1, 2, 2, 5)], ids=str)
def test_zero_and_odd_kernels_have_finite_penalties_and_gradients(shape: tuple[int, ...]) -> None:
    functions: list[Callable[[Tensor], Tensor]] = [
        nearest_symmetry_distance,
        lambda w: soft_entropy(w, 0.5),
        lambda w: soft_entropy(w, 0.5, "kernel"),
        lambda w: soft_distinct_values(w, 0.5),
        lambda w: soft_distinct_values(w, 0.5, "tensor"),
    ]
    for function in functions:
        for weight in (torch.zeros(shape), normal(*shape)):
            value = function(weight)
            assert value.ndim == 0 and value.isfinite() and value >= 0
            assert gradient(function, weight).isfinite().all()
    assert nearest_symmetry_distance(torch.zeros(shape)) == 0


def test_entropy_of_weights_on_levels_is_that_of_their_histogram() -> None:
    levels = torch.tensor([0.0, 1, 1, 2, 2, 2, -3, 0]).reshape(2, 1, 4)
    counts = torch.tensor([2.0, 2, 3, 1]) / 8
    assert soft_entropy(0.3 * levels, 0.3).item() == pytest.approx(-(counts * counts.log2()).sum().item(), abs=1e-5)
    each = (1.5, -(0.5 * math.log2(0.5) + 2 * 0.25 * math.log2(0.25)))
    assert soft_entropy(levels, 1.0, "kernel").item() == pytest.approx(sum(each) / 2, abs=1e-5)


def test_entropy_and_distinct_values_are_differentiable() -> None:
    weight = normal(4, 3, 3, 3)
    for pool in get_args(Pool):
        for measure in (soft_entropy, soft_distinct_values):
            agrees_with_differences(functools.partial(measure, step=0.4, pool=pool), weight)


@pytest.mark.parametrize("pool", get_args(Pool))
@pytest.mark.parametrize("measure", [soft_entropy, soft_distinct_values])
def test_how_far_an_outlier_is_does_not_matter(measure: Callable[..., Tensor], pool: Pool) -> None:
    near, far = normal(4, 3, 3, 3), normal(4, 3, 3, 3)
    near[0, 0, 0, 0], far[0, 0, 0, 0] = 50.2, 1_000_000.2  # far: more levels in between than one would list
    function = functools.partial(measure, step=0.4, pool=pool)
    assert function(near).item() == pytest.approx(function(far).item())
    assert torch.allclose(gradient(function, near), gradient(function, far), atol=1e-6)


def test_expected_distinct_values_are_those_of_stochastic_rounding() -> None:
    weight = normal(1, 1, 3, 3)
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(4000, 9, generator=generator, dtype=torch.float64)
    rounded = (weight.reshape(1, 9) / 0.5 + noise).floor()
    mean = np.mean([len(np.unique(row)) for row in rounded.numpy()])
    assert soft_distinct_values(weight, 0.5).item() == pytest.approx(mean, abs=0.08)
    assert soft_distinct_values(torch.zeros(3, 2, 3, 3), 0.5).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("measure", [soft_entropy, soft_distinct_values])
def test_descent_makes_values_fewer(measure: Callable[..., Tensor]) -> None:
    weight = normal(4, 4, 3, 3).requires_grad_()
    optimiser = torch.optim.Adam([weight], lr=0.02)
    before = measure(weight, 0.5, "kernel").item()
    for _ in range(60):
        optimiser.zero_grad()
        backward(measure(weight, 0.5, "kernel"))
        optimiser.step()
    assert measure(weight, 0.5, "kernel").item() < 0.8 * before


@pytest.mark.parametrize("step", [0.0, -1.0, math.nan, math.inf])
def test_a_step_must_be_positive(step: float) -> None:
    for function in (soft_entropy, soft_distinct_values):
        with pytest.raises(ConfigError, match=r"step is .*; it must be positive and finite"):
            function(normal(1, 1, 3, 3), step)


def test_wrong_arguments_say_what_is_wrong() -> None:
    weight = normal(2, 2, 3, 5)
    with pytest.raises(ConfigError, match="pool is 'row'; it must be one of kernel, tensor"):
        soft_entropy(weight, 1.0, "row")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Did you mean 'radial'"):
        nearest_symmetry_distance(weight, ["radail"])
    with pytest.raises(ConfigError, match="only square kernels"):
        nearest_symmetry_distance(weight, ["transpose"])
    with pytest.raises(ConfigError, match=r"price is -1"):
        nearest_symmetry_distance(weight, price=-1)
    with pytest.raises(ModelError, match=r"shape \(4, 4\) has no kernels"):
        nearest_symmetry_distance(normal(4, 4))
    with pytest.raises(ConfigError, match="give a list of names"):
        nearest_symmetry_distance(weight, "radial")
    for field in ("symmetry", "entropy", "distinct", "step", "price"):
        for value in (-1, "x", None, math.nan):
            with pytest.raises(ConfigError, match=f"{field} is {value!r}"):
                KernelPenalties(**{field: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="step is 0"):
        KernelPenalties(step=0)


def test_penalties_reach_kernels_and_entropy_all_weights() -> None:
    model = network()
    kernels = {name for name, _ in trained_kernels(model)}
    assert kernels == {"first.weight", "last.weight"} and KernelPenalties()(model) == 0
    weights = {name for name, parameter in model.named_parameters() if parameter.ndim > 1}
    assert weights > kernels
    for field, reached in (("symmetry", kernels), ("entropy", weights), ("distinct", kernels)):
        model.zero_grad()
        total = KernelPenalties(**{field: 0.1})(model)
        backward(total)
        touched = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        assert touched == reached and total > 0
    parts = [KernelPenalties(**{field: 0.5})(model) for field in ("symmetry", "entropy", "distinct")]
    both = KernelPenalties(symmetry=0.5, entropy=0.5, distinct=0.5)(model)
    assert both.item() == pytest.approx(sum(part.item() for part in parts))


def test_a_network_pays_the_mean_over_its_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 20), nn.Conv2d(2, 3, 1), nn.Conv2d(2, 4, 3))
    tensors = [p.detach() for p in model.parameters() if p.ndim > 1]
    bits = [soft_entropy(w, 0.25 * w.square().mean().sqrt()).item() * w.numel() for w in tensors]
    assert KernelPenalties(entropy=2.0)(model).item() == pytest.approx(2 * sum(bits) / (600 + 6 + 72), rel=1e-4)
    alone = KernelPenalties(symmetry=1.0, distinct=1.0)(model[2]).item()
    assert KernelPenalties(symmetry=1.0, distinct=1.0)(model).item() == pytest.approx(alone)


def test_dropped_links_have_no_entropy() -> None:
    torch.manual_seed(0)
    layer = OverProvisionedLinear(8, 8, ConnectionPlan(near=1.0))
    layer.thin(0.5)
    expected = KernelPenalties(entropy=1.0)(layer).item()
    with torch.no_grad():
        for part in (layer.kernel, layer.links):
            if part is not None:
                part.add_(5.0 * (part == 0))
    assert KernelPenalties(entropy=1.0)(layer).item() == expected


def test_penalties_of_a_network_without_weights_are_zero() -> None:
    assert KernelPenalties(symmetry=1.0, distinct=1.0)(nn.Linear(3, 2)) == 0
    assert KernelPenalties(entropy=1.0)(nn.LayerNorm(3)) == 0
    model = nn.Conv2d(1, 1, 3)
    nn.init.zeros_(model.weight)
    total = KernelPenalties(symmetry=1.0, entropy=1.0, distinct=1.0)(model)
    assert total == 0
    backward(total)


ALL = KernelPenalties(symmetry=1.0, entropy=1.0, distinct=1.0)


def value_and_gradient(model: nn.Conv2d, penalties: KernelPenalties = ALL) -> tuple[float, Tensor]:
    model.zero_grad()
    total = penalties(model)
    backward(total)
    return total.item(), gradient_of(model)


def gradient_of(model: nn.Conv2d) -> Tensor:
    assert model.weight.grad is not None
    return model.weight.grad.clone()


def convolution(height: int, width: int) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(4, 8, (height, width))


@pytest.mark.parametrize("scale", [1e-8, 1e-19, 1e-21, 1e-40])
def test_a_kernel_of_tiny_weights_gets_a_small_gradient(scale: float) -> None:
    model = convolution(3, 3)
    _, usual = value_and_gradient(model, KernelPenalties(symmetry=1.0))
    with torch.no_grad():
        model.weight[0, 0] *= scale
    _, found = value_and_gradient(model, KernelPenalties(symmetry=1.0))
    assert found.isfinite().all() and found.abs().max() <= 2 * usual.abs().max()


@pytest.mark.parametrize("scale", [1e-20, 1e20, 1e37])
def test_penalties_do_not_depend_on_scale(scale: float) -> None:
    model = convolution(3, 3)
    expected, usual = value_and_gradient(model)
    with torch.no_grad():
        model.weight *= scale
    found, slope = value_and_gradient(model)
    assert found == pytest.approx(expected, rel=1e-5) and torch.allclose(slope * scale, usual, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_have_the_penalties_of_their_values(dtype: torch.dtype) -> None:
    half = normal(64, 32, 3, 3).to(dtype)
    for measure in (nearest_symmetry_distance, functools.partial(soft_entropy, step=0.05), soft_values):
        assert torch.equal(measure(half), measure(half.float()))


def soft_values(weight: Tensor) -> Tensor:
    return soft_distinct_values(weight, 0.05, "tensor")


def test_mixed_precision_changes_nothing() -> None:
    model = convolution(3, 3)
    expected, usual = value_and_gradient(model)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        found = ALL(model)
    backward(found)
    assert found.item() == expected and torch.equal(gradient_of(model), usual)


def test_a_look_in_inference_mode_leaves_training_as_it_was() -> None:
    model = convolution(2, 9)  # a size that no other test has
    with torch.inference_mode():
        looked = ALL(copy.deepcopy(model)).item()
    assert value_and_gradient(model)[0] == looked


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("term", ["symmetry", "entropy", "distinct"])
def test_weights_that_are_not_finite_have_no_finite_penalty(term: str, value: float) -> None:
    model = convolution(3, 3)
    with torch.no_grad():
        model.weight[0, 0, 0, 0] = value
    assert not KernelPenalties(**{term: 1.0})(model).isfinite()

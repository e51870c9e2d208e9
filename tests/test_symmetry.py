"""Penalties on kernels, constrained layers, and freeze-and-fine-tune."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evocompress.codecs import Cost
from evocompress.codecs.codec import Codec
from evocompress.codecs.deadzone import DeadZone
from evocompress.codecs.symmetry import Symmetry
from evocompress.codecs.symmetry_groups import SYMMETRIES, group, groups, nearness, needs_square
from evocompress.errors import ConfigError, ModelError
from evocompress.symmetry import (
    KernelPenalties,
    Pool,
    nearest_symmetry_distance,
    soft_distinct_values,
    soft_entropy,
    symmetry_residuals,
    trained_kernels,
)
from evocompress.symmetry_layers import constrain, make_radial, make_separable, make_separable_1d, release
from evocompress.symmetry_snap import FrozenKernels, freeze_and_fine_tune, snap


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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
    for field in ("symmetry", "entropy", "distinct", "step", "price"):
        with pytest.raises(ConfigError, match=f"{field} is -1"):
            KernelPenalties(**{field: -1})
    with pytest.raises(ConfigError, match="step is 0"):
        KernelPenalties(step=0)


class Network(nn.Module):
    """Convolutions of several sizes: 12 + 16 kernels of more than one place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.point = nn.Conv2d(6, 4, 1)
        self.last = nn.Conv2d(4, 4, (1, 3))
        self.head = nn.Linear(192, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.point(self.norm(self.first(x)).relu()))
        out: Tensor = self.head(y.flatten(1))
        return out


def network() -> Network:
    torch.manual_seed(0)
    return Network()


def backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]


def images() -> Tensor:
    return normal(5, 2, 8, 8, seed=3).float()


def test_penalties_of_a_network_reach_its_kernels_only() -> None:
    model = network()
    assert [name for name, _ in trained_kernels(model)] == ["first.weight", "last.weight"]
    assert KernelPenalties()(model) == 0
    total = KernelPenalties(symmetry=1.0, entropy=0.1, distinct=0.1)(model)
    backward(total)
    touched = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert touched == {"first.weight", "last.weight"} and total > 0
    parts = [KernelPenalties(**{field: 0.5})(model) for field in ("symmetry", "entropy", "distinct")]
    assert all(part > 0 for part in parts)
    both = KernelPenalties(symmetry=0.5, entropy=0.5, distinct=0.5)(model)
    assert both.item() == pytest.approx(sum(part.item() for part in parts))


def test_penalties_of_a_network_without_kernels_are_zero() -> None:
    assert KernelPenalties(symmetry=1.0, entropy=1.0)(nn.Linear(3, 2)) == 0
    model = nn.Conv2d(1, 1, 3)
    nn.init.zeros_(model.weight)
    total = KernelPenalties(symmetry=1.0, entropy=1.0, distinct=1.0)(model)
    assert total == 0
    backward(total)


POSSIBLE = [
    (name, size)
    for size in ((3, 3), (4, 4), (2, 5))
    for name in SYMMETRIES
    if not (needs_square(name) and size[0] != size[1]) and group(name, *size).n_free
]


@pytest.mark.parametrize(("name", "size"), POSSIBLE, ids=str)
def test_a_constrained_layer_keeps_its_symmetry_through_training(name: str, size: tuple[int, int]) -> None:
    torch.manual_seed(1)
    layer = nn.Conv2d(2, 3, size)
    before, found = layer.weight.detach().clone(), group(name, *size)
    assert constrain(layer, name) is layer
    expected = found.project(before.reshape(6, -1).double().numpy()).reshape(before.shape)
    assert np.allclose(layer.weight.detach(), expected, atol=1e-6)
    assert sum(p.numel() for p in layer.parameters()) == 6 * found.n_free + 3
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.1, weight_decay=0.01)
    for _ in range(3):
        optimiser.zero_grad()
        backward(layer(images()).square().mean())
        optimiser.step()
    weight = layer.weight.detach()
    assert not torch.allclose(weight, torch.from_numpy(expected).float(), atol=1e-2)
    flat = weight.reshape(6, -1)
    for orbit in range(found.n_free):  # bit for bit
        signed = flat[:, found.index == orbit] * torch.from_numpy(found.sign[found.index == orbit])
        assert (signed == signed[:, :1]).all()
    outputs = layer(images())
    assert release(layer) == 1 and release(layer) == 0
    assert set(layer.state_dict()) == {"weight", "bias"} and torch.equal(layer(images()), outputs)


def test_a_free_number_has_the_gradient_of_the_projection() -> None:
    layer = nn.Conv2d(1, 1, 3, bias=False).double()
    plain = layer.weight.detach().clone()
    constrain(layer, "left-right")
    backward((layer.weight * normal(3, 3)).sum())
    free = layer.parametrizations["weight"].original  # type: ignore[index, union-attr]
    assert isinstance(free, nn.Parameter) and free.grad is not None
    expected = group("left-right", 3, 3).coefficients(normal(3, 3).reshape(1, 9).numpy())
    assert np.allclose(free.grad.reshape(1, -1), expected) and plain.shape == layer.weight.shape


@pytest.mark.parametrize(
    "layer", [nn.Conv1d(2, 2, 5), nn.Conv3d(1, 2, (2, 3, 3)), nn.ConvTranspose2d(2, 3, 3), nn.Conv2d(4, 4, 3, groups=2)]
)
def test_other_convolutions_can_be_constrained(layer: nn.Module) -> None:
    constrain(layer, "constant")
    weight = layer.weight
    assert isinstance(weight, Tensor) and weight.flatten(2).std(dim=2).max() == 0


def test_one_dimensional_and_radial_layers() -> None:
    x, y, radial = (make(nn.Conv2d(2, 3, 5)).weight for make in (along_x, along_y, make_radial))
    assert (x == x[..., :1, :]).all() and (x[..., 0] != x[..., 1]).any()
    assert (y == y[..., :1]).all() and (y[..., 0, :] != y[..., 1, :]).any()
    assert torch.equal(radial, radial.transpose(2, 3)) and torch.equal(radial, radial.flip(3))


def along_x(layer: nn.Conv2d) -> nn.Conv2d:
    return make_separable_1d(layer, "x")


def along_y(layer: nn.Conv2d) -> nn.Conv2d:
    return make_separable_1d(layer, "y")


def test_separable_layers_have_rank_one_and_learn_from_zero() -> None:
    layer = nn.Conv2d(2, 3, (3, 5))
    nn.init.zeros_(layer.weight[0])
    best = torch.linalg.svdvals(layer.weight.detach())
    plain = layer.weight.detach().clone()
    make_separable(layer)
    assert torch.allclose((layer.weight - plain).square().sum((2, 3)), best[..., 1:].square().sum(-1), atol=1e-6)
    assert sum(p.numel() for p in layer.parameters()) == 6 * 8 + 3 and not layer.weight[0].any()
    backward(layer(images()).sum())
    torch.optim.SGD(layer.parameters(), lr=0.1).step()
    weight = layer.weight.detach()
    assert weight[0].abs().sum((1, 2)).min() > 0 and torch.linalg.svdvals(weight)[..., 1:].max() < 1e-5
    assert release(nn.Sequential(layer)) == 1 and torch.equal(layer.weight, weight)


def test_a_constrained_network_is_smaller_in_the_codec() -> None:
    layer = make_radial(nn.Conv2d(16, 16, 5))
    release(layer)
    weight = layer.weight.detach().double().numpy()
    planes = Codec((Symmetry(), DeadZone())).encode(weight, Cost(1e-7)).planes
    assert sum(plane.symbols.size for plane in planes) == 256 * 6


def test_what_cannot_be_constrained_is_refused() -> None:
    with pytest.raises(ModelError, match="Linear has no kernels"):
        constrain(nn.Linear(3, 3), "radial")
    with pytest.raises(ModelError, match="release it first"):
        make_radial(make_radial(nn.Conv2d(1, 1, 3)))
    with pytest.raises(ModelError, match="give a Conv2d"):
        make_separable(nn.Conv1d(1, 1, 3))
    with pytest.raises(ConfigError, match="only square kernels"):
        constrain(nn.Conv2d(1, 1, (3, 5)), "transpose")
    with pytest.raises(ConfigError, match="Did you mean 'constant'"):
        constrain(nn.Conv2d(1, 1, 3), "constnat")
    for name, size in (("zero", 3), ("left-right-odd", 1)):
        with pytest.raises(ConfigError, match="all zero"):
            constrain(nn.Conv2d(1, 1, size), name)
    with pytest.raises(ConfigError, match="axis is 0"):
        make_separable_1d(nn.Conv2d(1, 1, 3), 0)  # type: ignore[arg-type]
    assert make_radial(nn.Conv2d(2, 2, 1)).weight.shape == (2, 2, 1, 1)


def test_snapping_freezes_the_fraction_that_loses_least() -> None:
    model = network()
    weight = model.first.weight
    with torch.no_grad():
        weight[0] = 0.3  # constant, so the first to be snapped
    before = {name: p.detach().clone() for name, p in trained_kernels(model)}
    frozen = snap(model, 0.25)
    assert frozen.fraction == pytest.approx(0.25, abs=0.5 / 28) and frozen.masks["first.weight"][0].all()
    for name, parameter in trained_kernels(model):
        kept = ~frozen.masks[name]
        assert torch.equal(parameter[kept], before[name][kept])
        size = (1, 3) if name == "last.weight" else (3, 3)
        snapped = parameter.detach()[frozen.masks[name]].double().numpy().reshape(-1, *size)
        assert (nearness(snapped)[:, 1:].min(axis=1) < 1e-6).all()
    assert (weight[0] == 0.3).all()


def test_frozen_kernels_stay_through_training_and_the_others_move() -> None:
    model = network()
    frozen = snap(model, 0.5)
    held = {name: p.detach().clone() for name, p in trained_kernels(model)}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    stop = frozen.attach(optimiser)

    def train() -> None:
        for _ in range(3):
            optimiser.zero_grad()
            backward(model(images()).square().mean())
            optimiser.step()

    train()
    for name, parameter in trained_kernels(model):
        mask = frozen.masks[name]
        assert torch.equal(parameter[mask], held[name][mask]) and not (parameter[~mask] == held[name][~mask]).any()
    earlier = {name: mask.clone() for name, mask in frozen.masks.items()}
    again = snap(model, 0.75, frozen=frozen)
    assert again is frozen and frozen.fraction == pytest.approx(0.75, abs=0.5 / 28)
    assert all(frozen.masks[name][mask].all() for name, mask in earlier.items())
    assert all(torch.equal(p[earlier[name]], held[name][earlier[name]]) for name, p in trained_kernels(model))
    stop()
    train()
    assert not torch.equal(
        model.first.weight[frozen.masks["first.weight"]], frozen.values["first.weight"][frozen.masks["first.weight"]]
    )


def test_frozen_kernels_can_be_stored() -> None:
    model, other = network(), network()
    frozen, stored = snap(model, 0.4), FrozenKernels(other)
    assert stored.fraction == 0
    stored.load_state_dict(frozen.state_dict())
    assert stored.fraction == frozen.fraction
    for (name, held), (_, restored) in zip(trained_kernels(model), trained_kernels(other), strict=True):
        assert torch.equal(held[frozen.masks[name]], restored[frozen.masks[name]])
    with pytest.raises(ModelError, match="another network"):
        FrozenKernels(nn.Conv2d(1, 1, 3)).load_state_dict(frozen.state_dict())


def test_freeze_and_fine_tune_trains_after_each_fraction() -> None:
    model = network()
    seen: list[float] = []

    def fine_tune(frozen: FrozenKernels) -> None:
        seen.append(frozen.fraction)
        with torch.no_grad():
            model.first.weight += 0.01  # what a careless optimiser does to frozen kernels too
        frozen.hold()

    frozen = freeze_and_fine_tune(model, [0.25, 0.5, 1.0], fine_tune)
    assert seen == [pytest.approx(f, abs=0.5 / 28) for f in (0.25, 0.5, 1.0)] and frozen.fraction == 1
    assert (nearness(model.first.weight.detach().double().numpy())[..., 1:].min(axis=-1) < 1e-6).all()
    for fractions in ([], [0.5, 0.5], [1.0, 0.5]):
        with pytest.raises(ConfigError, match="ascending order"):
            freeze_and_fine_tune(model, fractions, fine_tune)


def test_symmetries_that_only_some_layers_can_have_leave_the_others_alone() -> None:
    model = network()
    frozen = snap(model, 1.0, ["transpose"])
    assert frozen.masks["first.weight"].all() and not frozen.masks["last.weight"].any()
    assert torch.equal(model.first.weight, model.first.weight.transpose(2, 3))


def test_zero_kernels_snap_to_zero_and_stay_there() -> None:
    model = nn.Conv2d(3, 4, 3)
    nn.init.zeros_(model.weight)
    frozen = snap(model)
    assert frozen.fraction == 1 and not model.weight.any()


def test_what_cannot_be_snapped_is_refused() -> None:
    model = nn.Conv2d(1, 2, 3)
    for fraction, price in ((-0.1, 1.0), (1.1, 1.0), (math.nan, 1.0), (0.5, 0.0), (0.5, math.inf)):
        with pytest.raises(ConfigError, match="must lie in"):
            snap(model, fraction, price=price)
    for names in ([], ["none"], ["radial", "raidal"]):
        with pytest.raises(ConfigError, match="give None for all"):
            snap(model, 1.0, names)
    with pytest.raises(ModelError, match="nothing to snap"):
        snap(nn.Conv2d(2, 2, 1))
    with pytest.raises(ModelError, match="another network"):
        snap(model, frozen=FrozenKernels(nn.Conv2d(1, 2, 3)))

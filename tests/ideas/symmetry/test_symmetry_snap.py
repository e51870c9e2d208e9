"""Snapping kernels, freezing them, and fine-tuning the others."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from symmetry_network import backward, images, network
from torch import nn
from training_problem import net, problem

from evocompress.codecs.symmetry_groups import nearness
from evocompress.errors import ConfigError, ModelError
from evocompress.ideas.symmetry.penalties import (
    trained_kernels,
)
from evocompress.ideas.symmetry.snap import FrozenKernels, freeze_and_fine_tune, snap
from evocompress.training.trainer import TrainingGenes, train


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
    for fractions, message in (([], "ascending"), ([0.5, 0.5], "ascending"), ([0.25, 1.5], "fraction is 1.5")):
        with pytest.raises(ConfigError, match=message):
            freeze_and_fine_tune(model, fractions, fine_tune)
    assert len(seen) == 3  # refused before the first fine-tuning


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
    for fraction in (-0.1, 1.1, math.nan, None, "x"):
        with pytest.raises(ConfigError, match=f"fraction is {fraction!r}; it must be in"):
            snap(model, fraction)  # type: ignore[arg-type]
    for price in (0.0, math.inf, None):
        with pytest.raises(ConfigError, match=f"price is {price}; it must be positive and finite"):
            snap(model, price=price)  # type: ignore[arg-type]
    for names in ([], ["none"], ["radial", "raidal"], "radial"):
        with pytest.raises(ConfigError, match=re.escape(f"symmetries is {names!r}; give None for all")):
            snap(model, 1.0, names)
    with pytest.raises(ModelError, match="nothing to snap"):
        snap(nn.Conv2d(2, 2, 1))
    with pytest.raises(ModelError, match="another network"):
        snap(model, frozen=FrozenKernels(nn.Conv2d(1, 2, 3)))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_is_refused_by_name(value: float) -> None:
    model = network()
    with torch.no_grad():
        model.last.weight[0, 0, 0, 0] = value
    with pytest.raises(ModelError, match=r"'last.weight' has weights that are infinite or NaN"):
        snap(model, 0.5)


def test_frozen_kernels_follow_the_networks_parameters() -> None:
    model, other = network(), network()
    frozen = snap(model, 0.5)
    masks = {name: mask.clone() for name, mask in frozen.masks.items()}
    held = {name: p.detach()[masks[name]].clone() for name, p in trained_kernels(model)}

    def go_on() -> None:
        snap(model, 0.75, frozen=frozen)

    model.load_state_dict(other.state_dict(), assign=True)  # new parameters
    for change in (frozen.hold, model.double, frozen.hold, go_on, model.float, frozen.hold):
        change()
        for name, parameter in trained_kernels(model):
            assert torch.equal(parameter[masks[name]].float(), held[name])
    assert frozen.fraction == pytest.approx(0.75, abs=0.5 / 28)
    model.first = nn.Conv2d(2, 6, 5)
    with pytest.raises(ModelError, match=r"no parameter 'first.weight' of shape \(6, 2, 3, 3\)"):
        frozen.hold()


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_snapped_kernels_stay_as_they_were_and_the_rest_trains(optimiser: Any, share: float) -> None:
    model, snapped = net(), net()
    frozen = snap(snapped, share)
    genes = TrainingGenes(
        snap=share, optimiser=optimiser, learning_rate=0.01, noise=0.3, l1=0.1, weight_decay=0.1, symmetry=0.1
    )
    assert not train(model, problem(), genes, epochs=2, seed=0).diverged
    assert frozen.fraction == pytest.approx(share, abs=0.05)
    for name, parameter in snapped.named_parameters():
        found, held = model.get_parameter(name), frozen.masks.get(name, torch.zeros(parameter.shape[:2]).bool())
        assert torch.equal(found[held], parameter[held])
        assert held.all() or not torch.equal(found, parameter)
    train(model, problem(), TrainingGenes(snap=share), epochs=0, seed=0)  # a child of the same share finds them again
    assert all(
        torch.equal(model.get_parameter(name)[mask], frozen.values[name][mask]) for name, mask in frozen.masks.items()
    )


def test_a_network_without_kernels_cannot_be_snapped() -> None:
    with pytest.raises(ModelError, match="nothing to snap"):
        train(nn.Linear(3, 2), problem(), TrainingGenes(snap=0.5), epochs=1, seed=0)


@pytest.mark.parametrize("share", [1.5, -0.5])
def test_shares_that_are_none(share: float) -> None:
    with pytest.raises(ConfigError, match="snap"):
        TrainingGenes(snap=share)

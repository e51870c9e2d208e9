"""A limit of bytes: it is used up, and no layer is given up for it that other shares of the bytes would keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from evocompress import pack, unpack
from evocompress.checkpoint.packing import encode_tensor
from evocompress.checkpoint.presets import preset
from evocompress.checkpoint.recipe import Recipe, Rule
from evocompress.codecs import Sensitivity
from evocompress.codecs.container import parse
from evocompress.packer.held_steps import with_steps_held
from evocompress.packer.job import PackJob
from evocompress.packer.lost_tensors import lost_tensors, with_lost_raised


def weights(*shapes: Sequence[int], spread: Sequence[float] = ()) -> dict[str, torch.Tensor]:
    """Heavy-tailed weights, as trained ones are, `first`, `second`, …, each of a standard deviation."""
    generator = torch.Generator().manual_seed(3)
    state = {}
    for name, shape, size in zip(("first", "second", "third"), shapes, spread or [0.1] * 3, strict=False):
        normal = torch.randn(*shape, generator=generator)
        state[name] = size * normal * torch.rand(shape[0], 1, generator=generator).mul(3).exp() / 6
    return state


@pytest.mark.parametrize("form", ["balanced", "best"])
@pytest.mark.parametrize("limit", [300, 600, 1100, 2500])
def test_a_limit_is_used_to_within_two_percent(form: str, limit: int) -> None:
    """One large matrix: its step, and the codec that is chosen for it, jump while λ grows, and the size with them."""
    result = PackJob(weights((96, 128), (10, 96)), form).under(limit)
    assert result.met and 0.98 * limit <= result.nbytes <= limit


def test_a_layer_that_costs_little_is_not_given_up_for_a_limit() -> None:
    state = weights((64, 64), (32, 32), spread=(1.0, 0.05))
    limit = 1000
    result = PackJob(state).under(limit)
    decoded = unpack(result.data)
    assert result.zeroed == () and result.nbytes >= 0.98 * limit
    # λ alone gives it up at this size, whatever it is.
    by_rate_weight = [pack(state, rate_weight) for rate_weight in np.geomspace(1e-3, 1e2, 60)]
    nearest = max((data for data in by_rate_weight if len(data) <= limit), key=len)
    assert len(nearest) > 0.9 * limit and not unpack(nearest)["second"].any()
    correlation = torch.corrcoef(torch.stack([decoded["second"].flatten(), state["second"].flatten()]))[0, 1]
    assert correlation > 0.4


def test_at_a_rate_weight_nothing_is_raised() -> None:
    state = weights((64, 64), (32, 32), spread=(1.0, 0.05))
    assert PackJob(state).at(1.0).zeroed == ("second",)
    assert PackJob(state).at(1.0).data == pack(state, 1.0)


def test_where_a_limit_is_too_small_for_all_layers_rate_alone_decides() -> None:
    state = weights((64, 64), (32, 32), spread=(1.0, 0.05))
    smallest = len(pack(state, 1e9))
    result = PackJob(state).under(smallest + 4)
    assert result.met and result.zeroed


def test_lost_is_what_has_little_energy_left_and_is_worth_something() -> None:
    state = weights((64, 64), (32, 32), (16, 16), spread=(1.0, 0.05, 1e-6)) | {"count": torch.tensor(3)}
    data = pack(state, Recipe(1.0))
    assert lost_tensors(state, data, {}) == ["second"]  # of the third there is next to nothing to lose
    assert lost_tensors(state, data, {"second": 1e-9, "third": 0.0}) == []
    assert lost_tensors(state, pack(state, Recipe(1e-6)), {}) == []


@pytest.mark.parametrize("second_order", [False, True])
def test_a_sensitivity_is_raised_just_as_far_as_it_says(second_order: bool) -> None:
    """The least factor at which (1 - e)³ times the factor is (1 - 0.6)³."""
    state = weights((64, 64))
    exact = state["first"].double().numpy()
    plain: float | Sensitivity = 2.0
    if second_order:
        plain = Sensitivity(np.diag(np.linspace(0.5, 2, 64))[None], np.linspace(1, 2, 64))
    recipe = preset("fast", 8 * float((exact**2).mean()), calibrated=second_order)
    raised = with_lost_raised(state, recipe, {"first": plain, "other": 1.0}, ["first"])
    assert raised["other"] == 1.0
    factor = _scale(raised["first"]) / _scale(plain)

    def reached(factor: float) -> float:
        sensitivity = plain.scaled(factor) if isinstance(plain, Sensitivity) else plain * factor
        record = encode_tensor("first", exact, recipe, sensitivity)
        error = record.codec.decode(record.coded, record.shape) - exact
        if isinstance(plain, Sensitivity):
            share = plain.distortion(error) / plain.distortion(exact)
        else:
            share = float((error**2).sum() / (exact**2).sum())
        return float(((1 - share) / 0.4) ** 3 * factor)

    assert factor > 1.2 and reached(factor) >= 1 > reached(0.94 * factor)
    assert with_lost_raised(state, dataclasses.replace(recipe, rate_weight=1e-9), {}, ["first"]) == {"first": 1.0}


def _scale(sensitivity: float | Sensitivity) -> float:
    return sensitivity.scale if isinstance(sensitivity, Sensitivity) else sensitivity


def test_steps_and_choices_are_held_while_bits_get_dearer() -> None:
    state = weights((96, 128), (10, 96)) | {"bias": torch.linspace(-1, 1, 50)}
    recipe = preset("balanced", 1e-3, rules=(Rule("second", ("dct", "deadzone")),))
    data = pack(state, recipe)
    sizes = []
    for factor in (1.0, 1.3, 1.7, 2.5):
        held = with_steps_held(recipe, factor, data, state)
        assert held.rate_weight == pytest.approx(factor * recipe.rate_weight)
        made = pack(state, held)
        before, after = ({entry.name: entry for entry in parse(file).tensors} for file in (data, made))
        assert {name: entry.side for name, entry in before.items()} == {name: e.side for name, e in after.items()}
        assert (unpack(made)["bias"] == unpack(data)["bias"]).all()  # vectors stay
        sizes.append(len(made))
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == len(data) and sizes[-1] < 0.9 * sizes[0]


def test_tied_tensors_stay_tied_under_held_steps() -> None:
    state = weights((64, 64))
    state = {"a": state["first"], "b.[0]": state["first"]}
    recipe = preset("balanced", 1e-3)
    data = pack(state, recipe)
    assert len(pack(state, with_steps_held(recipe, 1.0, data, state))) == len(data)
    assert len(pack(state, with_steps_held(recipe, 1.5, data, state))) < len(data)


@pytest.mark.parametrize("names", [True, False])
def test_limits_hold_for_bare_files(names: bool) -> None:
    state = weights((96, 128), (10, 96))
    result = PackJob(state, "balanced", names=False, shapes=names).under(900)
    assert result.met and result.nbytes >= 0.98 * 900

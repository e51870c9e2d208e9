"""Tests of the rate model: its gradient, its contexts, and how near it comes to the coder."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evocompress.codecs.mixing import BitCounter, State
from evocompress.training.rate_model import RateModel

SHAPES = [(4, 8), (4,), (2, 3, 3, 3), ()]


def plain_bits(model: RateModel, symbols: Tensor) -> Tensor:
    """The mixture written out, for float64: the oracle of the one that counts."""
    values = torch.cat([model.widths, model.odds[None]])[:, model.owner] + model.lead @ model.features.double()
    widths = values[:2].clamp(-4.0, 7.0).exp()
    widths = torch.stack([widths[0], torch.maximum(widths[1], (symbols.abs() + 1) / 60)])
    far, close = (symbols.abs() + 0.5) / widths, (symbols.abs() - 0.5) / widths
    mass = torch.sigmoid(-close) - torch.sigmoid(-far)  # from the far side, where a difference keeps its digits
    share = torch.sigmoid(values[2])
    return -(share * mass[0] + (1 - share) * mass[1]).log().sum() / math.log(2)


def drawn(shapes: list[tuple[int, ...]] = SHAPES, seed: int = 0, spread: float = 2.0) -> tuple[RateModel, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    model = RateModel(shapes).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64), alpha=0.3)
    symbols = spread * torch.randn(sum(model.sizes), generator=generator, dtype=torch.float64)
    model.look(symbols)
    return model, symbols


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 5.0))
def test_it_is_the_mixture_written_out(seed: int, spread: float) -> None:
    model, symbols = drawn(seed=seed, spread=spread)
    assert model(symbols).item() == pytest.approx(plain_bits(model, symbols).item(), rel=1e-9)


def test_its_gradient_is_that_of_its_value() -> None:
    model, symbols = drawn()
    names = ("widths", "odds", "lead")

    def bits(vector: Tensor, *parameters: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (vector,))
        return result

    parameters = [getattr(model, name) for name in names]
    assert torch.autograd.gradcheck(bits, (symbols.requires_grad_(), *parameters))


def test_between_whole_numbers_the_slope_is_what_the_next_one_costs_more() -> None:
    model = RateModel([(4, 6), (5,)]).double()
    values = torch.tensor([0.0, 0.3, -0.3, 0.7, -0.7, 1.0, -1.0, 1.2, -2.4, 3.0, 0.49], dtype=torch.float64)
    values = values.repeat(3)[:29].clone().requires_grad_()
    whole = values.detach().round()
    model.look(whole)
    bits = model(values, between=True)
    assert bits.item() == pytest.approx(model.bits_by_symbol(whole).sum().item())
    bits.backward()
    upper, lower = values.detach().ceil(), values.detach().floor()
    exact = upper == lower  # whole numbers are drawn towards zero
    upper = torch.where(exact & (whole < 0), whole + 1, upper)
    lower = torch.where(exact & (whole > 0), whole - 1, lower)
    slope = model.bits_by_symbol(upper) - model.bits_by_symbol(lower)
    assert values.grad is not None
    torch.testing.assert_close(values.grad, torch.where(whole.eq(0) & exact, 0.0, slope))


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, symbols = drawn([(30, 40), (30,), (5, 30), (5,)])
    monkeypatch.setattr("evocompress.training.rate_model._BLOCK", 77)
    parts = RateModel(model.shapes).double()
    parts.load_state_dict(model.state_dict())
    parts.look(symbols)
    assert len(parts.blocks) > 10
    assert parts(symbols).item() == pytest.approx(model(symbols).item(), rel=1e-12)
    turns = [parts(symbols, 3, turn).item() for turn in range(3)]  # each stands for all; their mean is all
    assert np.mean(turns) == pytest.approx(model(symbols).item(), rel=1e-12)


@pytest.mark.parametrize("far", [1e3, 1e5])
def test_a_weight_far_outside_is_still_pulled_back(far: float) -> None:
    model = RateModel([(2,)])
    symbols = torch.tensor([far, -far], requires_grad=True)
    bits = model(symbols)
    bits.backward()
    assert math.isfinite(bits.item()) and symbols.grad is not None
    assert symbols.grad[0] > 0 > symbols.grad[1]


def test_contexts_are_causal() -> None:
    """Two weights that change places leave the plane's mean, and all contexts up to the first of them, as they were."""
    model, symbols = drawn([(6, 5)], spread=3.0)
    changed = symbols.clone()
    changed[17], changed[28] = 20.0, 0.0
    symbols[17], symbols[28] = 0.0, 20.0
    model.look(symbols)
    before = model.features.clone()
    model.look(changed)
    moved = (model.features - before).abs().sum(0)
    assert bool((moved[:18] == 0).all())  # the one that changes does not see itself either
    assert moved[18] > 0.1 and moved[22] > 0.1  # its row and its column do


@pytest.mark.parametrize("density", [0.02, 0.1, 0.5])
def test_it_is_within_a_tenth_of_the_coder(density: float) -> None:
    """On planes as trained networks have them: rows and columns of very different sizes, many of them empty."""
    rng = np.random.default_rng(1)
    rows, columns = np.exp(rng.normal(0, 1, 64)), np.exp(rng.normal(0, 1, 128))
    spread = density * rows[:, None] * columns
    symbols = np.rint(rng.laplace(0, 1, (64, 128)) * spread).astype(np.int32)
    model = RateModel([symbols.shape])
    vector = torch.from_numpy(symbols.reshape(-1)).float()
    model.fit(vector, rounds=200)
    counter = BitCounter(State())
    counter.plane(symbols, "weights")
    with torch.no_grad():
        assert model(vector).item() == pytest.approx(counter.bits, rel=0.1)


def test_autocast_changes_nothing() -> None:
    model, symbols = RateModel([(40, 50)]), torch.linspace(-3, 3, 2000, requires_grad=True)
    model.look(symbols.detach())
    plain = model(symbols)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(symbols), plain)

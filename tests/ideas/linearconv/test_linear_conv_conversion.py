"""LinearConv: trained networks converted and folded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from network_shapes import parameters
from torch import nn

from evocompress.checkpoint.packing import pack, unpack
from evocompress.codecs.lowrank import least_squares
from evocompress.errors import ModelError
from evocompress.ideas.linearconv import LinearConv2d, compare, convert, fold
from evocompress.networks import build

pytestmark = pytest.mark.usefixtures("seeded")


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 16, 3, stride=2),
        nn.Conv2d(16, 16, 3, groups=16),
        nn.Conv2d(16, 8, 1),
        nn.Conv2d(8, 18, 1, bias=False),
        nn.Conv2d(18, 24, (2, 3), groups=2, padding=1),
    ).eval()


def test_conversion_says_what_it_did_and_leaves_the_rest() -> None:
    network = small()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    converted = convert(network, 0.5)
    rows = compare(network, converted)
    reasons = {row.name: row.reason for row in rows}
    assert reasons == {
        "0": "the first layer",
        "3": "",
        "4": "one filter for each group: nothing to combine",
        "5": "",  # 1×1, 8 filters of 16 weights: 4·16 + 4·4 numbers in place of 128
        "6": "would not have fewer parameters",  # 9 coefficients for each filter of 8 weights
        "7": "",
    }
    done = [row for row in rows if not row.reason]
    assert all(row.primaries == row.filters / 2 and 0 < row.relative_error < 1 for row in done)
    assert all(row.parameters_after < row.parameters_before for row in done)
    assert all(row.parameters_after == row.parameters_before and row.relative_error == 0 for row in rows if row.reason)
    assert parameters(converted) == parameters(network) - sum(r.parameters_before - r.parameters_after for r in rows)
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
    state = converted.state_dict()
    replaced = {f"{row.name}.weight" for row in done}
    assert replaced == before.keys() - state.keys()
    assert all(torch.equal(t, state[name]) for name, t in before.items() if name not in replaced)


def test_everything_but_the_dependent_filters_stays_exact() -> None:
    network = small()
    layer = convert(network, 0.5).get_submodule("7")
    assert isinstance(layer, LinearConv2d) and layer.is_primary is not None
    exact, after = network.get_parameter("7.weight"), layer.weight
    assert layer.is_primary.reshape(2, -1).sum(dim=1).tolist() == [6, 6]
    assert torch.equal(after[layer.is_primary], exact[layer.is_primary])
    for group in range(2):
        rows = slice(12 * group, 12 * (group + 1))
        mask, bank = layer.is_primary[rows], exact[rows].detach().flatten(1).double().numpy()
        best = least_squares(bank[mask], bank[~mask]) @ bank[mask]
        torch.testing.assert_close(after[rows][~mask].flatten(1).double(), torch.from_numpy(best), atol=1e-6, rtol=0.0)


def test_pivoted_qr_beats_the_first_filters() -> None:
    layer = nn.Conv2d(8, 16, 3, bias=False)
    with torch.no_grad():
        layer.weight[:8] *= 0.1  # the first are the least telling
    row = compare(layer, convert(layer, 0.5, skip_first=False))[0]
    bank = layer.weight.detach().flatten(1).double().numpy()
    rest = bank[8:] - least_squares(bank[:8], bank[8:]) @ bank[:8]
    assert row.relative_error < 0.2 * np.linalg.norm(rest) / np.linalg.norm(bank)


def test_low_rank_is_the_best_for_the_filters() -> None:
    network = nn.Conv2d(4, 16, 3)
    with torch.no_grad():
        network.weight *= torch.logspace(0, 2, 16)[:, None, None, None]
    full, low = convert(network, 0.5, skip_first=False), convert(network, 0.5, rank=0.25, skip_first=False)
    assert isinstance(full, LinearConv2d) and isinstance(low, LinearConv2d) and full.coefficients is not None
    primaries = full.primary.detach().flatten(1).double()
    assert full.is_primary is not None
    wanted = full.weight.detach()[~full.is_primary].flatten(1).double()
    got = low.weight.detach()[~full.is_primary].flatten(1).double()
    sizes = torch.linalg.svdvals(wanted)
    assert (got - wanted).norm().item() == pytest.approx(sizes[2:].norm().item(), rel=1e-4)
    left, size, right = torch.linalg.svd(full.coefficients.detach().double())
    naive = (left[:, :2] * size[:2]) @ right[:2] @ primaries
    assert (got - wanted).norm() < (naive - wanted).norm()


@pytest.mark.parametrize("rank", [None, 0.3])
def test_a_bank_of_low_rank_converts_without_error_and_back(rank: float | None) -> None:
    layer = LinearConv2d(8, 16, 3, alpha=0.25, rank=rank, groups=2)
    with torch.no_grad():
        for factor in (layer.coefficients, layer.coefficients_left):
            if factor is not None:
                factor.mul_(0.01)  # so that the primaries are the long ones, and are found again
    made = nn.Sequential(nn.Conv2d(3, 8, 3), layer)
    plain = fold(made)
    again = convert(plain, 0.25, rank=rank)
    rows = compare(plain, again)
    assert rows[1].reason == "" and rows[1].relative_error < 1e-6
    images = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(fold(again)(images), made(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("skip_first", [True, False])
def test_resnet20_there_and_back(skip_first: bool) -> None:
    network = build("resnet20", seed=1).eval()
    images = torch.randn(2, 3, 32, 32)
    exact = fold(convert(network, 1.0, skip_first=skip_first))
    assert list(exact.state_dict()) == list(network.state_dict())
    assert all(torch.equal(t, network.state_dict()[name]) for name, t in exact.state_dict().items())
    assert torch.equal(exact(images), network(images))
    converted = convert(network, 0.5, rank=0.25, skip_first=skip_first)
    assert sum(isinstance(m, LinearConv2d) for m in converted.modules()) == (18 if skip_first else 19)
    with torch.inference_mode():
        torch.testing.assert_close(fold(converted)(images), converted(images), atol=1e-5, rtol=1e-5)
    other = convert(build("resnet20", seed=2), 0.5, rank=0.25, skip_first=skip_first).eval()
    other.load_state_dict(converted.state_dict(), strict=True)
    assert torch.equal(other(images), converted(images))


def test_a_fresh_layer_takes_the_order_of_a_converted_one() -> None:
    plain = nn.Conv2d(8, 12, 3)
    converted = convert(plain, 0.5, skip_first=False)
    fresh = LinearConv2d(8, 12, 3)
    fresh.load_state_dict(converted.state_dict(), strict=True)
    assert isinstance(converted, LinearConv2d) and torch.equal(fresh.weight, converted.weight)
    assert converted.is_primary is not None
    with pytest.raises(RuntimeError, match="is_primary .* marks 12 filters"):
        fresh.load_state_dict({**converted.state_dict(), "is_primary": torch.ones(12, dtype=torch.bool)})
    decoded = unpack(pack(converted.state_dict(), 1e-9))
    assert torch.equal(decoded["is_primary"], converted.is_primary)


def test_conversion_keeps_mode_dtype_and_what_is_frozen_and_draws_nothing() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)).double().eval()
    network[1].requires_grad_(False)
    state = torch.get_rng_state()
    layer = convert(network, 0.5).get_submodule("1")
    assert torch.equal(torch.get_rng_state(), state)
    assert not layer.training and all(p.dtype == torch.float64 and not p.requires_grad for p in layer.parameters())
    back = fold(nn.Sequential(layer))[0]  # type: ignore[index]
    assert not back.training and all(p.dtype == torch.float64 and not p.requires_grad for p in back.parameters())


def test_what_stands_twice_stays_twice() -> None:
    shared = nn.Conv2d(8, 8, 3, padding=1)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), shared, shared)
    converted: Any = convert(network, 0.5)
    assert converted[1] is converted[2] and isinstance(converted[1], LinearConv2d)
    folded: Any = fold(converted)
    assert folded[1] is folded[2] and type(folded[1]) is nn.Conv2d
    tied = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    tied[2].weight = tied[1].weight
    assert [row.reason for row in compare(tied, convert(tied, 0.5))][1:] == ["another layer shares its weight"] * 2


def test_convolutions_of_another_kind_are_left() -> None:
    class Own(nn.Conv2d):
        pass

    network = nn.Sequential(nn.Conv2d(3, 8, 3), Own(8, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(2, 2))
    network[2].register_forward_pre_hook(lambda module, inputs: None)
    reasons = [row.reason for row in compare(network, convert(network, 0.5))]
    assert reasons[1:] == ["a Own may compute in a way of its own", "it has hooks"]


def test_zero_and_repeated_filters_convert() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    with torch.no_grad():
        network.get_parameter("1.weight").zero_()
        network.get_parameter("2.weight")[:] = network.get_parameter("2.weight")[:1].clone()
    for rank in (None, 0.5):
        rows = compare(network, convert(network, 0.5, rank=rank))
        assert all(row.relative_error < 1e-6 for row in rows) and not any(row.reason for row in rows[1:])


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"rank": 2.0}, "rank is 2.0"),
        ({"sparsity": 1}, "sparsity is 1"),
        ({"rank": 0.5, "sparsity": 0.5}, "give one of them"),
    ],
)
def test_bad_shares_are_refused_even_without_a_convolution(shares: dict[str, float], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        convert(nn.Linear(2, 2), **shares)  # type: ignore[arg-type]


def test_weights_that_are_no_numbers_are_refused_by_name() -> None:
    network = small()
    with torch.no_grad():
        network.get_parameter("5.weight")[0] = math.nan
    with pytest.raises(ModelError, match="layer '5' has weights that are infinite or NaN"):
        convert(network, 0.5)
    with pytest.raises(ModelError, match="has no layer '3'"):
        compare(network, nn.Sequential(nn.Conv2d(3, 12, 3)))

"""LinearConv: the correlation loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from evocompress.errors import ModelError
from evocompress.ideas.linearconv import LinearConv2d, correlation_loss

pytestmark = pytest.mark.usefixtures("seeded")


def test_the_correlation_loss_is_that_of_numpy() -> None:
    network = nn.Sequential(
        LinearConv2d(3, 8, 3), nn.ReLU(), LinearConv2d(8, 12, (1, 3), alpha=0.7), nn.Conv2d(12, 4, 3)
    )
    expected = 0.0
    for layer in (network[0], network[2]):
        filters = layer.get_parameter("primary").detach().flatten(1).double().numpy()
        expected += np.abs(np.corrcoef(filters) - np.eye(len(filters))).sum()
    loss = correlation_loss(network, scale=0.5)
    assert loss.item() == pytest.approx(0.5 * expected, rel=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    reached = {name for name, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached == {"0.primary", "2.primary"}


def test_descent_on_the_loss_decorrelates() -> None:
    layer = LinearConv2d(3, 8, 3)
    optimiser = torch.optim.Adam([layer.primary], lr=1e-2)
    before = correlation_loss(layer).item()
    for _ in range(60):
        optimiser.zero_grad()
        correlation_loss(layer).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert correlation_loss(layer).item() < 0.3 * before


def test_groups_are_not_compared_with_each_other() -> None:
    layer = LinearConv2d(4, 4, 3, groups=2, alpha=1.0)
    with torch.no_grad():
        layer.primary[2:] = layer.primary[:2]
    filters = layer.primary.detach()[:2].flatten(1).double().numpy()
    assert correlation_loss(layer, 1.0).item() == pytest.approx(4 * abs(np.corrcoef(filters)[0, 1]), rel=1e-4)


@pytest.mark.parametrize("constant", [0.0, 0.1, -3e4, 1e-30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_constant_filters_give_no_nan(constant: float, dtype: torch.dtype) -> None:
    layer = LinearConv2d(3, 8, 3).to(dtype)
    with torch.no_grad():
        layer.primary[1] = constant
        layer.primary[2] = constant
    loss = correlation_loss(layer, scale=1.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite() and layer.primary.grad is not None and layer.primary.grad.isfinite().all()
    assert not layer.primary.grad[1:3].any() and layer.primary.grad[0].any()
    filters = layer.primary.detach()[[0, 3]].flatten(1).double().numpy()
    assert loss.item() == pytest.approx(2 * abs(np.corrcoef(filters)[0, 1]), rel=1e-3)


@pytest.mark.parametrize("filters", [slice(0, 1), slice(1, 3), slice(None)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_filters_that_vary_little_give_finite_steps(filters: slice, dtype: torch.dtype) -> None:
    extreme = [-44, -37, 30] if filters == slice(None) else [-300]
    for exponent in [*range(-30, 16), *extreme]:
        layer = LinearConv2d(4, 8, 3, dtype=torch.float64)
        optimiser = torch.optim.Adam(layer.parameters(), 1e-3)
        with torch.no_grad():
            layer.primary[filters] *= 10.0**exponent
        layer.to(dtype)
        longest = layer.primary.detach().abs().max().item()
        correlation_loss(layer).backward()  # type: ignore[no-untyped-call]
        assert layer.primary.grad is not None and layer.primary.grad.abs().max() < 1e6 / longest
        optimiser.step()
        assert layer.primary.isfinite().all()


def test_only_what_varies_less_than_a_millionth_of_the_longest_counts_as_constant() -> None:
    layer = LinearConv2d(4, 8, 3, dtype=torch.float64)
    before = correlation_loss(layer)
    with torch.no_grad():
        layer.primary.mul_(1e-12)
        layer.primary[0] *= 1e-4
    torch.testing.assert_close(correlation_loss(layer), before)
    with torch.no_grad():
        layer.primary[0] *= 1e-4
    without = correlation_loss(layer)
    with torch.no_grad():
        layer.primary[0] = 0
    assert without == correlation_loss(layer) < before


def test_filters_of_one_weight_and_networks_without_the_layer_have_no_correlation() -> None:
    layer = LinearConv2d(1, 8, 1)
    loss = correlation_loss(layer)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss == 0 and layer.primary.grad is not None and not layer.primary.grad.any()
    assert correlation_loss(nn.Linear(2, 2)) == 0 and correlation_loss(nn.ReLU()) == 0


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf])
def test_a_scale_that_is_none(scale: float) -> None:
    with pytest.raises(ModelError, match="scale is"):
        correlation_loss(LinearConv2d(1, 2, 3), scale)

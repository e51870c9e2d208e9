"""Second-order sensitivities of over-provisioned convolutions."""

from __future__ import annotations

import torch
from gauss_newton import check_diagonal, check_packs
from torch import nn

from evocompress.data import Examples
from evocompress.ideas.connections import ConnectionPlan, OverProvisionedConv2d

LENGTH = 6


def network() -> nn.Module:
    """Shared kernels, one of them in groups and with strides, and links beside them."""
    first = ConnectionPlan(kernel=3, near=0.3, far=0.1)
    second = ConnectionPlan(kernel=2, stride=2, groups=2, near=0.1, far=0.1)
    layers = (
        OverProvisionedConv2d(1, 6, first, in_size=(LENGTH, 5)),
        nn.Tanh(),
        OverProvisionedConv2d(6, 4, second, in_size=(LENGTH, 5)),
    )
    return nn.Sequential(nn.Unflatten(1, (1, LENGTH)), *layers, nn.Flatten(), nn.Linear(24, 4))


def examples(n: int) -> Examples:
    steps = torch.randn(n, LENGTH, 5, generator=torch.Generator().manual_seed(1))
    return Examples.unlabelled((steps + steps.roll(1, 2) + 0.5 * steps.roll(1, 1)) * torch.tensor([1, 2, 1, 0.5, 1]))


def test_sensitivities_are_about_those_of_the_gauss_newton_matrix() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        model = network().eval()
    check_diagonal(model, examples(200))
    check_packs(model, examples(128))

"""Second-order sensitivities of LinearConv layers."""

from __future__ import annotations

import torch
from gauss_newton import check_diagonal, check_packs
from torch import nn

from evocompress.data import Examples
from evocompress.ideas.linearconv import LinearConv2d

LENGTH = 6


def network() -> nn.Module:
    """Convolutions with combined filters: of low rank, and in groups with primary filters in any places."""
    low = LinearConv2d(1, 8, 3, alpha=0.5, rank=0.5, bias=False)
    grouped = LinearConv2d(8, 8, 2, groups=2, alpha=0.5)
    grouped.is_primary = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1], dtype=torch.bool)
    return nn.Sequential(nn.Unflatten(1, (1, LENGTH)), low, nn.Tanh(), grouped, nn.Flatten(), nn.Linear(48, 4))


def examples(n: int) -> Examples:
    steps = torch.randn(n, LENGTH, 5, generator=torch.Generator().manual_seed(1))
    return Examples.unlabelled((steps + steps.roll(1, 2) + 0.5 * steps.roll(1, 1)) * torch.tensor([1, 2, 1, 0.5, 1]))


def test_sensitivities_are_about_those_of_the_gauss_newton_matrix() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        model = network().eval()
    check_diagonal(model, examples(200))
    check_packs(model, examples(128))

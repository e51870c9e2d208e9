"""A small network with kernels of several shapes, for tests of symmetries."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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

"""A network of two inputs, in memory: are two noisy pictures of the same digit?

Inputs are a dict of arrays, which the network is called with by name.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn


class Compare(nn.Module):
    """Both pictures go through the same layers, and the distance of what comes out decides."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 16))
        self.decision = nn.Linear(16, 2)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Logits of "different" and "same" (n, 2) for pictures (n, 1, 8, 8)."""
        return self.decision((self.embedding(left) - self.embedding(right)).square())


def network(hidden: int = 32) -> nn.Module:
    """The network; keyword options come from [model_options] in the TOML."""
    return Compare(hidden)


def data(seed: int, pairs: int = 3000):
    """Pairs of pictures, half of them of one digit; no picture is in two of the three parts."""
    rng = np.random.default_rng(seed)
    pictures, digits = load_digits(return_X_y=True)
    pictures = pictures.reshape(-1, 1, 8, 8).astype(np.float32) / 16
    parts = np.array_split(rng.permutation(len(digits)), 3)
    return {
        name: _pairs(rng, pictures[part], digits[part], pairs // 3) for name, part in zip(NAMES, parts, strict=True)
    }


NAMES = ("train", "validation", "audit")


def _pairs(rng, pictures, digits, count):
    left = rng.integers(0, len(digits), count)
    same = rng.integers(0, 2, count)
    right = [rng.choice(np.flatnonzero((digits == digits[i]) == alike)) for i, alike in zip(left, same, strict=True)]
    return {"left": pictures[left], "right": pictures[right]}, same

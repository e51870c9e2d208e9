"""A small problem, and a network that can learn it."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from evocompress.data import Examples
from evocompress.networks import build

__all__ = ["net", "problem"]


def problem(n: int = 120) -> Examples:
    """Two classes of 8×8 images that differ in their mean."""
    rng = np.random.default_rng(0)
    labels = torch.tensor(np.arange(n) % 2)
    images = torch.tensor(rng.normal(size=(n, 1, 8, 8)).astype(np.float32)) + labels[:, None, None, None].float()
    return Examples(images, labels)


def net(seed: int = 0) -> nn.Module:
    """For two classes of such images."""
    return build("digits_cnn", {"classes": 2, "width": 4}, seed=seed)

"""A network and a data set of one's own: two functions that spirals.toml names as spirals:network and spirals:data."""

import numpy as np
from torch import nn


def network(hidden: int = 32) -> nn.Module:
    """A small multilayer perceptron; keyword options come from [model_options] in the TOML."""
    return nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 3))


def data(seed: int, examples: int = 1500):
    """Three noisy spirals: ((inputs, labels), ...) for training, validation and audit, as numpy arrays."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, examples)
    radius = rng.uniform(0.1, 1.0, examples)
    angle = 4 * radius + 2 * np.pi / 3 * label + rng.normal(0, 0.1, examples)
    inputs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)
    third = examples // 3
    return tuple((inputs[i : i + third], label[i : i + third]) for i in (0, third, 2 * third))

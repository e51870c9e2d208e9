"""A network whose factory has options that change its tensors' shapes, their number, or neither."""

from __future__ import annotations

from torch import nn

__all__ = ["tower"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


def tower(*, width: int = 8, depth: int = 1, activation: str = "relu", dropout: float = 0.0) -> nn.Module:
    """Dense layers for 8×8 images: two and `depth`."""
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(64, width), _ACTIVATIONS[activation]()]
    for _ in range(depth):
        layers += [nn.Linear(width, width), _ACTIVATIONS[activation](), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(width, 10))

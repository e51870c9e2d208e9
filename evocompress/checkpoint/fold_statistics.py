"""Folding of batch normalisation statistics, for a checkpoint that will never be trained again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["fold_statistics"]


def fold_statistics(state: Mapping[str, torch.Tensor], epsilon: float = 1e-5) -> dict[str, torch.Tensor]:
    """Batch normalisations with their running statistics moved into weight and bias, as far as evaluation can tell.

    `running_mean` becomes zero and `running_var` its own mean, which cost next to nothing in a file. The network
    computes the same in evaluation mode; trained on, it would not go on from where it was.

    Args:
        state: A checkpoint. A batch normalisation is known by the names of its four vectors.
        epsilon: What the modules add to their variance; torch's default.

    >>> import torch
    >>> norm = torch.nn.BatchNorm1d(2).eval()
    >>> norm.running_var.copy_(torch.tensor([1.0, 3.0])) is not None
    True
    >>> fold_statistics(norm.state_dict())["running_var"]
    tensor([2., 2.])
    """
    folded = dict(state)
    for name, variance in state.items():
        prefix, _, leaf = name.rpartition(".")
        weight, bias, mean = (f"{prefix}.{part}" if prefix else part for part in ("weight", "bias", "running_mean"))
        if leaf != "running_var" or not {weight, bias, mean} <= state.keys() or not variance.isfinite().all():
            continue
        spread = variance.double() + epsilon
        middle = variance.double().mean()
        slope = state[weight].double() * spread.rsqrt()
        folded[bias] = (state[bias].double() - slope * state[mean].double()).to(state[bias].dtype)
        folded[weight] = (slope * (middle + epsilon).sqrt()).to(state[weight].dtype)
        folded[mean] = state[mean].new_zeros(state[mean].shape)
        folded[name] = middle.to(variance.dtype).expand(variance.shape).clone()
    return folded

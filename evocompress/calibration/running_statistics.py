"""Gradients of batch normalisation's running statistics, which torch does not give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

__all__ = ["statistics_gradients"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def statistics_gradients(model: nn.Module, gradients: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Name and gradient (C,) of each running mean and variance, from those of its layer's weight and bias.

    y = weight · (x - mean) / sqrt(var + eps) + bias, so they follow by the chain rule and nothing else.
    """
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        weight, bias = gradients.get(f"{prefix}weight"), gradients.get(f"{prefix}bias")
        if isinstance(module, _NORMS) and module.running_var is not None and weight is not None and bias is not None:
            spread, slope = module.running_var + module.eps, module.weight.detach()
            yield f"{prefix}running_mean", bias * slope * spread.rsqrt()
            yield f"{prefix}running_var", weight * slope / (2 * spread)

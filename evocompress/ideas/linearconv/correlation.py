"""The correlation loss of LinearConv: primary filters that say the same thing twice are pushed apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from evocompress.errors import ModelError
from evocompress.ideas.linearconv.linear_conv import LinearConv2d

__all__ = ["correlation_loss"]

_LEAST = 1e-6  # of the layer's longest filter: less variation than that is none


def correlation_loss(model: nn.Module, scale: float = 0.01) -> Tensor:
    """`scale` · Σ |corr(W_p) - I| over the primary filters of every `LinearConv2d`; a scalar, to be added to a loss.

    The correlation of two filters is that of their weights, each less its mean (Kahatapitiya and Rodrigo, 2021, who
    add 0.01 times the sum to the loss of every tenth batch). Filters of different groups see different inputs and are
    not compared. A constant filter correlates with nothing, so it adds nothing and gets no gradient; one that varies by
    less than a millionth of the layer's longest filter counts as constant. Gradients reach the primary filters only; a
    network without such layers gives 0.

    Raises:
        ModelError: `scale` is negative or not finite.

    >>> layer = LinearConv2d(1, 4, 3, alpha=0.5)
    >>> with torch.no_grad():
    ...     layer.primary[1] = -2 * layer.primary[0]
    >>> round(correlation_loss(layer, scale=1.0).item(), 4)
    2.0
    """
    if not (math.isfinite(scale) and scale >= 0):
        raise ModelError(f"scale is {scale!r}; the correlation loss must have a finite scale of at least 0")
    layers = [module for module in model.modules() if isinstance(module, LinearConv2d)]
    if not layers:
        device = next((parameter.device for parameter in model.parameters()), None)
        return torch.zeros((), device=device)
    return scale * torch.stack([_correlation(layer) for layer in layers]).sum()


def _correlation(layer: LinearConv2d) -> Tensor:
    filters = layer.primary.reshape(layer.geometry.groups, layer.primaries, -1)
    filters = filters if filters.dtype == torch.float64 else filters.float()  # half precision cannot hold the squares
    numbers = torch.finfo(filters.dtype)
    # No scale changes a correlation, and at this one no square is infinite, nor zero that should not be.
    filters = filters / filters.detach().abs().amax().clamp_min(math.sqrt(numbers.tiny))
    centred = filters - filters.mean(dim=2, keepdim=True)
    power = centred.square().sum(dim=2, keepdim=True)
    # What rounding leaves of a constant filter is taken for zero: dividing by it would make a correlation of noise.
    # And a gradient is as large as its filter is small, so there must be a least one.
    whole = filters.detach().square().sum(dim=2, keepdim=True)
    noise = torch.maximum((16 * numbers.eps) ** 2 * whole, _LEAST**2 * whole.amax().clamp_min(1.0))
    varies = power > noise
    # The inner `where` keeps the root's infinite slope at zero out of the gradient; a product with 0 would be NaN.
    unit = torch.where(varies, centred * torch.where(varies, power, 1.0).rsqrt(), 0.0)
    itself = torch.eye(layer.primaries, dtype=torch.bool, device=filters.device)
    return (unit @ unit.transpose(1, 2)).abs().masked_fill(itself, 0.0).sum()

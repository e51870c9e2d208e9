"""Networks' options `alpha`, `rank` and `sparsity`: LinearConv layers in a fresh network, as the paper trains them."""

from __future__ import annotations

import torch
from torch import nn

from evocompress.errors import ModelError
from evocompress.ideas.linearconv.exchange import linear_conv_like, tagged
from evocompress.support.modules import exchanged

__all__ = ["with_linear_conv"]


def with_linear_conv(
    network: nn.Module, *, alpha: float | None = None, rank: float | None = None, sparsity: float | None = None
) -> nn.Module:
    """The network with fresh `LinearConv2d` layers in place of its `torch.nn.Conv2d`, the first one too.

    Unlike `convert` nothing of the old weights is left: the layers are drawn anew, from torch's generator.

    Args:
        network: Freshly made; changed in place.
        alpha: Share of primary filters, in (0, 1]; None: the convolutions stay.
        rank, sparsity: Those of `LinearConv2d`.

    Raises:
        ModelError: `rank` or `sparsity` without `alpha`, a share out of range, or no plain convolution.

    >>> from evocompress.networks import build
    >>> sum(p.numel() for p in build("base_cnn", {"alpha": 0.5, "rank": 0.05}).parameters())
    207642
    """
    if alpha is None:
        if rank is not None or sparsity is not None:
            raise ModelError(
                f"rank is {rank} and sparsity is {sparsity}, but alpha is not given: there is nothing to combine"
            )
        return network
    new: dict[nn.Module, nn.Module] = {}
    for module in network.modules():
        if type(module) is nn.Conv2d:
            layer = linear_conv_like(module, alpha, rank, sparsity).to_empty(device=torch.device("cpu"))
            layer.reset_parameters()
            new[module] = tagged(layer, module)
    if not new:
        raise ModelError(f"alpha is {alpha}, but the network has no plain convolution to replace")
    return exchanged(network, new)

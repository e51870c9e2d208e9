"""Modules in the place of others, in a network that otherwise stays what it is."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from evocompress.layers.linear_conv import LinearConv2d

__all__ = ["exchanged", "linear_conv_like"]


def exchanged(network: nn.Module, new: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """The network itself, with modules exchanged at every place where they stand; or what replaces it as a whole.

    >>> old = nn.Linear(2, 2)
    >>> exchanged(nn.Sequential(old, nn.ReLU(), old), {old: nn.Identity()})
    Sequential(
      (0): Identity()
      (1): ReLU()
      (2): Identity()
    )
    """
    if network in new:
        return new[network]
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):  # `named_children` passes over a second name
            if child is not None and child in new:
                setattr(parent, name, new[child])
    return network


def linear_conv_like(
    module: nn.Conv2d, alpha: float, rank: float | None, sparsity: float | None = None
) -> LinearConv2d:
    """A LinearConv layer of a convolution's geometry, dtype, mode and `requires_grad`, on the meta device.

    There nothing is drawn, so the caller's random state stays; `to_empty` gives it memory.

    Raises:
        ModelError: A share is out of range, or rank and sparsity are given together.
    """
    layer = LinearConv2d(
        module.in_channels,
        module.out_channels,
        (module.kernel_size[0], module.kernel_size[1]),
        (module.stride[0], module.stride[1]),
        module.padding if isinstance(module.padding, str) else (module.padding[0], module.padding[1]),
        (module.dilation[0], module.dilation[1]),
        module.groups,
        module.bias is not None,
        module.padding_mode,
        alpha=alpha,
        rank=rank,
        sparsity=sparsity,
        device="meta",
        dtype=module.weight.dtype,
    )
    for parameter in layer.parameters():
        parameter.requires_grad_(module.weight.requires_grad)
    return layer.train(module.training)

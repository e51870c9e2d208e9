"""Modules in the place of others, in a network that otherwise stays what it is."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from evocompress.ideas.linearconv.linear_conv import LinearConv2d

__all__ = ["additions", "linear_conv_like", "tagged"]

Layer = TypeVar("Layer", bound=nn.Module)
_PLAIN = (bool, int, float, str, bytes, type(None))


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


def additions(module: nn.Conv2d | LinearConv2d) -> tuple[list[str], list[str]]:
    """What a network has put into a convolution, beside what every one of its kind has: two sorted lists of names.

    First plain values, which a layer in its place can take over (`tagged`). Then the others: objects that may know the
    layer they are in, and names that mean something else in a layer of the other kind.

    >>> layer = nn.Conv2d(3, 8, 3)
    >>> layer.gain, layer.alpha, layer.own = 2.0, 2.0, [3]
    >>> additions(layer)
    (['gain'], ['alpha', 'own'])
    """
    kinds: list[nn.Module] = [LinearConv2d(1, 2, 1, alpha=0.5, device="meta"), nn.Conv2d(1, 1, 1, device="meta")]
    same_kind, other_kind = kinds if isinstance(module, LinearConv2d) else reversed(kinds)
    plain, rest = list[str](), list[str]()
    for name in sorted(vars(module).keys() - vars(same_kind).keys()):
        (plain if isinstance(vars(module)[name], _PLAIN) and not hasattr(other_kind, name) else rest).append(name)
    return plain, rest


def tagged(layer: Layer, module: nn.Conv2d | LinearConv2d) -> Layer:
    """The layer with the plain attributes that a network has put into the convolution which it replaces."""
    for name in additions(module)[0]:
        setattr(layer, name, vars(module)[name])
    return layer

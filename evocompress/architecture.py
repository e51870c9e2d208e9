"""LinearConv as genes: the form that a genome asks of a network's convolutions, and the form that a file has.

A file's tensor names and shapes say which convolutions it holds as factors (layers/linear_conv.py), so whoever loads it
needs the plain network only, and no genome.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping

from torch import Tensor, nn, zeros

from evocompress.errors import ModelError
from evocompress.layers import LinearConv2d, compare, convert
from evocompress.layers.geometry import share

__all__ = ["PLAIN", "Architecture", "changed", "check_replaces", "formed", "load_weights", "loaded"]

_ALPHA_STEPS = 16  # for each unit
_RANK_STEPS = 2  # for each octave: coefficients of rank above one half seldom pay, so that steps are finer below


@dataclasses.dataclass(frozen=True)
class Architecture:
    """`alpha` is the share of primary filters, `rank` that of the coefficients' full rank, both in (0, 1].

    With alpha = 1 all convolutions are plain, whatever the rank.

    Raises:
        ModelError: A share is out of range.
    """

    alpha: float = 1.0
    rank: float = 1.0

    def __post_init__(self) -> None:
        share("alpha", self.alpha)
        share("rank", self.rank)

    @property
    def plain(self) -> bool:
        """Whether convolutions stay what they are."""
        return self.alpha == 1

    @classmethod
    def snapped(cls, alpha: float = 1.0, rank: float = 1.0) -> Architecture:
        """The next coarse one above: alpha in steps of 1/16, rank in half octaves 1, 0.707, 0.5, 0.354, …

        A parent and a child whose genes differ by little then have one form, and nothing is lost between them.

        >>> Architecture.snapped(0.51, 0.48)
        Architecture(alpha=0.5625, rank=0.5)
        """
        cls(alpha, rank)  # is refused before its logarithm is taken
        octaves = math.floor(-math.log2(rank) * _RANK_STEPS + 1e-9) / _RANK_STEPS
        return cls(math.ceil(alpha * _ALPHA_STEPS - 1e-9) / _ALPHA_STEPS, 2.0**-octaves)


PLAIN = Architecture()
"""Convolutions as the network's factory makes them."""


def changed(network: nn.Module, plain: nn.Module, architecture: Architecture) -> nn.Module:
    """A copy of a network, its convolutions in the form that `architecture` asks for.

    A layer that has this form already keeps its factors bit for bit. Others are folded to plain convolutions and
    converted from those (`evocompress.layers.convert`), which is exact where alpha grows, the best approximation that
    `convert` finds where it falls. LinearConv layers that the factory itself makes stay.

    Args:
        network: `plain`, or that in the form of any architecture.
        plain: The network as its factory makes it; its values don't matter.
        architecture: What to change to.

    Raises:
        ModelError: A convolution has weights that are infinite or NaN.

    >>> from evocompress.layers import fold
    >>> plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    >>> half = changed(plain, plain, Architecture(0.5))
    >>> print(half[1])
    LinearConv2d(8, 8, kernel_size=(3, 3), stride=(1, 1), alpha=0.5, primaries=4)
    >>> print(changed(half, plain, PLAIN)[1])
    Conv2d(8, 8, kernel_size=(3, 3), stride=(1, 1))
    """
    base = dict(plain.named_modules())
    network = copy.deepcopy(network)
    own = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, LinearConv2d) and not isinstance(base.get(name), LinearConv2d)
    }
    folded = _exchanged(network, {module: module.folded() for module in own.values()})
    if architecture.plain:
        return folded
    converted = convert(folded, architecture.alpha, architecture.rank)
    alike = {
        module: own[name]
        for name, module in converted.named_modules()
        if name in own and _shapes(module.state_dict()) == _shapes(own[name].state_dict())
    }
    return _exchanged(converted, alike)


def check_replaces(plain: nn.Module, alpha: float) -> None:
    """Refuse a network in which alpha has nothing to act on.

    Raises:
        ModelError: No convolution of the network would have fewer parameters; says which are left alone, and why.

    >>> check_replaces(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)), 0.5)
    """
    if alpha == 1:
        return
    rows = compare(plain, convert(plain, alpha))
    if all(row.parameters_after >= row.parameters_before for row in rows):
        left = "; ".join(f"{row.name or 'the network'}: {row.reason or 'all filters are primary'}" for row in rows[:6])
        raise ModelError(
            f"alpha is {alpha:g}, but no convolution of the network would have fewer parameters "
            f"({left or 'it has none'}); leave alpha at 1, or lower it"
        )


def formed(plain: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A copy of the plain network in the form of a state dict: LinearConv layers where it has factors.

    The values are still to be loaded (`loaded`, or `load_state_dict`). What fits no LinearConv layer is left for that
    to refuse.

    >>> plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    >>> state = changed(plain, plain, Architecture(0.5)).state_dict()
    >>> formed(plain, state).load_state_dict(state)
    <All keys matched successfully>
    """
    network = copy.deepcopy(plain)
    new: dict[nn.Module, nn.Module] = {}
    for name, module in network.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, nn.Conv2d) and f"{prefix}primary" in state:
            layer = _empty_layer(module, {key[len(prefix) :]: t for key, t in state.items() if key.startswith(prefix)})
            if layer is not None:
                new[module] = layer
    return _exchanged(network, new)


def loaded(plain: nn.Module, state: Mapping[str, Tensor], source: str) -> nn.Module:
    """A copy of the plain network in the form of a state dict, and with its values; `source` names it in errors.

    Raises:
        ModelError: It does not fit the network in any form.
    """
    network = formed(plain, state)
    load_weights(network, state, source)
    return network


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict, or say on both sides what does not fit.

    Raises:
        ModelError: Names or shapes differ; lists those that only one side has. Or a mask marks filters wrongly.
    """
    own, other = _shapes(model.state_dict()), _shapes(state)
    if own != other:
        missing = [f"{name} {own[name]}" for name in own if other.get(name) != own[name]]
        extra = [f"{name} {other[name]}" for name in other if own.get(name) != other[name]]
        raise ModelError(
            f"{source} does not fit the network: the network has {', '.join(missing[:6]) or 'nothing more'}; "
            f"the file has {', '.join(extra[:6]) or 'nothing more'}."
        )
    try:
        model.load_state_dict(state)
    except RuntimeError as failure:  # names and shapes agree, so a layer refused the values
        raise ModelError(f"{source} does not fit the network: {failure}") from failure


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _empty_layer(module: nn.Conv2d, factors: Mapping[str, Tensor]) -> LinearConv2d | None:
    """The layer that has factors of these shapes in place of a convolution; None where there is none."""
    in_group = module.out_channels // module.groups
    primaries, uneven = divmod(factors["primary"].shape[0] if factors["primary"].ndim else 0, module.groups)
    if uneven or not 1 <= primaries <= in_group:
        return None
    rank = None
    right = factors.get("coefficients_right")
    if right is not None:
        full, components = min(in_group - primaries, primaries), len(right) // module.groups if right.ndim else 0
        if not 1 <= components <= full:
            return None
        rank = (components - 0.5) / full  # rounded up by the layer; and below 1 where the rank is full, too
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
        alpha=primaries / in_group,
        rank=rank,
        device="meta",  # so that nothing is drawn, and the caller's random state stays
        dtype=module.weight.dtype,
    )
    layer.to_empty(device=module.weight.device)
    if "is_primary" in factors:
        layer.is_primary = zeros(module.out_channels, dtype=factors["is_primary"].dtype, device=module.weight.device)
    for parameter in layer.parameters():
        parameter.requires_grad_(module.weight.requires_grad)
    return layer.train(module.training)


def _exchanged(network: nn.Module, new: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """The network itself, with modules exchanged at every place where they stand."""
    if network in new:
        return new[network]
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):  # `named_children` passes over a second name
            if child is not None and child in new:
                setattr(parent, name, new[child])
    return network

"""LinearConv as genes: what a genome asks of a network's convolutions, and what a file holds of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from evocompress.errors import ModelError
from evocompress.ideas.linearconv.conversion import compare, convert
from evocompress.ideas.linearconv.exchange import linear_conv_like, tagged
from evocompress.ideas.linearconv.geometry import share
from evocompress.ideas.linearconv.linear_conv import LinearConv2d
from evocompress.protocols import Genes, GeneSpec
from evocompress.support.modules import copied, exchanged

__all__ = ["FACTORS", "LinearConvForm"]

#: What a convolution's weight can be held as.
FACTORS = ("primary", "coefficients", "coefficients_left", "coefficients_right")

_ALPHA_STEPS = 16
_OCTAVE_STEPS = 2  # for each octave of rank: small values differ by as much as large ones


class LinearConvForm:
    """`alpha` is the share of primary filters, `rank` that of the coefficients' full rank, both in (0, 1].

    With alpha = 1 all convolutions are plain, whatever the rank.
    """

    genes: Sequence[GeneSpec] = (
        GeneSpec(
            "alpha", "share of primary filters in place of convolutions (docs/linearconv.md); 1: plain convolutions",
            1.0, high=1.0, low_open=True, log=False, role="architecture", plain=1.0,
        ),
        GeneSpec(
            "rank", "rank of the other filters' coefficients, as a share of their full rank", 1.0, high=1.0,
            low_open=True, role="architecture", plain=1.0,
        ),
    )  # fmt: skip
    #: A folded layer computes the same.
    gathers_exactly = True

    def check(self, plain: nn.Module, low: Genes, high: Genes) -> None:
        """Refuse a network in which alpha has nothing to act on, and a rank without alpha.

        Raises:
            ModelError: No convolution of the network would have fewer parameters; says which are left alone, and why.

        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
        >>> LinearConvForm().check(network, {"alpha": 0.5}, {"alpha": 1.0})
        """
        alpha = _number(low, "alpha")
        if alpha == 1:
            if _number(low, "rank") != 1:
                raise ModelError("rank has no effect with alpha = 1; let alpha be below 1, such as alpha = [0.25, 1.0]")
            return
        rows = compare(plain, convert(plain, alpha))
        if all(row.parameters_after >= row.parameters_before for row in rows):
            left = "; ".join(
                f"{row.name or 'the network'}: {row.reason or 'all filters are primary'}" for row in rows[:6]
            )
            raise ModelError(
                f"alpha is {alpha:g}, but no convolution of the network would have fewer parameters "
                f"({left or 'it has none'}); leave alpha at 1, or lower it"
            )

    def coarse(self, genes: Genes) -> Genes:
        """Upwards, so that nothing is lost: alpha in steps of 1/16, rank in half octaves 1, 0.707, 0.5, 0.354, …

        >>> LinearConvForm().coarse({"alpha": 0.51, "rank": 0.48})
        {'alpha': 0.5625, 'rank': 0.5}
        """
        coarse: dict[str, Any] = dict(genes)
        if "alpha" in coarse:
            coarse["alpha"] = math.ceil(coarse["alpha"] * _ALPHA_STEPS - 1e-9) / _ALPHA_STEPS
        if "rank" in coarse:
            coarse["rank"] = 2.0 ** -(math.floor(-math.log2(coarse["rank"]) * _OCTAVE_STEPS + 1e-9) / _OCTAVE_STEPS)
        return coarse

    def replace(self, network: nn.Module, plain: nn.Module, genes: Genes) -> nn.Module:
        """Convolutions as the genes ask for.

        LinearConv layers are folded to plain convolutions and converted from those. That is exact up to rounding where
        alpha grows and the rank is full; with a lower rank, or a smaller alpha, it is the best approximation that
        `convert` finds. A layer that has this form already keeps its values bit for bit, and LinearConv layers that
        the factory itself makes stay.

        Raises:
            ModelError: A share is out of range, or a convolution has weights that are infinite or NaN.

        >>> plain, form = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)), LinearConvForm()
        >>> half = form.replace(plain, plain, {"alpha": 0.5})
        >>> print(half[1])
        LinearConv2d(8, 8, kernel_size=(3, 3), stride=(1, 1), alpha=0.5, primaries=4)
        >>> print(form.replace(half, plain, {})[1])
        Conv2d(8, 8, kernel_size=(3, 3), stride=(1, 1))
        """
        alpha, rank = share("alpha", _number(genes, "alpha")), share("rank", _number(genes, "rank"))
        base, network = dict(plain.named_modules()), copied(network)
        formed = {
            name: module
            for name, module in network.named_modules()
            if isinstance(module, LinearConv2d) and not isinstance(base.get(name), LinearConv2d)
        }
        folded = exchanged(network, {module: tagged(module.folded(), module) for module in formed.values()})
        if alpha == 1:
            return folded
        converted = convert(folded, alpha, rank)
        unchanged = {
            module: formed[name]
            for name, module in converted.named_modules()
            if name in formed and _shapes(module.state_dict()) == _shapes(formed[name].state_dict())
        }
        return exchanged(converted, unchanged)

    def match(self, plain: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
        """LinearConv layers where a state dict has factors of the plain network's convolutions."""
        network = copied(plain)
        new: dict[nn.Module, nn.Module] = {}
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d) and (f"{name}.primary" if name else "primary") in state:
                prefix = f"{name}." if name else ""
                held = {key[len(prefix) :]: tensor for key, tensor in state.items() if key.startswith(prefix)}
                layer = _empty_layer(module, held)
                if layer is not None:
                    new[module] = layer
        return exchanged(network, new)

    def stands_for(self, leaf: str) -> str | None:
        """Factors are in the group of their layer's weight."""
        return "weight" if leaf in FACTORS else None


def _number(genes: Genes, name: str) -> float:
    return float(genes.get(name, 1.0))


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
    layer = linear_conv_like(module, primaries / in_group, rank).to_empty(device=module.weight.device)
    if "is_primary" in factors:  # a mask, in whatever dtype a file has it
        layer.is_primary = torch.zeros(module.out_channels, dtype=torch.bool, device=module.weight.device)
    return tagged(layer, module)

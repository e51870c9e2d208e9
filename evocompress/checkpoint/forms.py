"""The form of a network as genes: what a genome asks of its layers, and what a file holds.

Convolutions may be LinearConv (layers/linear_conv.py), over-provisioned layers have a plan of connections
(connections.py). A file's tensor names and shapes say which convolutions it holds as factors, its `plan` tensors which
connections, so whoever loads it needs the plain network only, and no genome.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from evocompress.errors import ConfigError, EvocompressError, ModelError
from evocompress.ideas.connections.drawn import foreseen
from evocompress.ideas.connections.overprovisioned_base import OverProvisioned, stored_plan
from evocompress.ideas.connections.plan import ConnectionPlan
from evocompress.ideas.connections.replan import replanned, unset
from evocompress.ideas.linearconv import LinearConv2d, compare, convert
from evocompress.ideas.linearconv.exchange import linear_conv_like, tagged
from evocompress.ideas.linearconv.geometry import share
from evocompress.support.modules import exchanged

__all__ = [
    "PLAIN",
    "PLAN_GENES",
    "Architecture",
    "changed",
    "check_plans",
    "check_replaces",
    "formed",
    "load_weights",
    "loaded",
]

#: Genes of an `Architecture` that are genes of plans of connections too.
PLAN_GENES = ("near", "decay", "far", "kernel", "period")

_SHARE_STEPS = {"alpha": 16, "near": 16, "decay": 8}  # for each unit
_OCTAVE_STEPS = 2  # for each octave: of rank and far, small values differ by as much as large ones


@dataclasses.dataclass(frozen=True)
class Architecture:
    """`alpha` is the share of primary filters, `rank` that of the coefficients' full rank, both in (0, 1].

    With alpha = 1 all convolutions are plain, whatever the rank. The others are genes of `ConnectionPlan`, for all
    over-provisioned layers alike; None: what each layer's factory gives it.

    Raises:
        ModelError: A share is out of range.
    """

    alpha: float = 1.0
    rank: float = 1.0
    near: float | None = None
    decay: float | None = None
    far: float | None = None
    kernel: int | None = None
    period: int | None = None

    def __post_init__(self) -> None:
        share("alpha", self.alpha)
        share("rank", self.rank)

    @property
    def plain(self) -> bool:
        """Whether convolutions stay what they are."""
        return self.alpha == 1

    def plan(self, own: ConnectionPlan) -> ConnectionPlan:
        """The plan of a layer whose factory gives it the plan `own`.

        Raises:
            ConfigError: Genes that are no plan.

        >>> Architecture(far=0.01).plan(ConnectionPlan(kernel=5)) == ConnectionPlan(kernel=5, far=0.01)
        True
        """
        given = {name: getattr(self, name) for name in PLAN_GENES if getattr(self, name) is not None}
        return ConnectionPlan.from_genes(own.genes() | given)

    def snapped(self) -> Architecture:
        """The coarse one next to it; a parent and a child whose genes differ by little then have one form.

        Upwards, so that nothing is lost: alpha in steps of 1/16, rank and far in half octaves 1, 0.707, 0.5, 0.354, …
        To the nearest: near in steps of 1/16, decay of 1/8. Whole numbers stay.

        >>> Architecture(0.51, 0.48, near=0.2).snapped()
        Architecture(alpha=0.5625, rank=0.5, near=0.1875, decay=None, far=None, kernel=None, period=None)
        """
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        found["alpha"] = math.ceil(self.alpha * _SHARE_STEPS["alpha"] - 1e-9) / _SHARE_STEPS["alpha"]
        for name in ("near", "decay"):
            if found[name] is not None:
                found[name] = round(found[name] * _SHARE_STEPS[name]) / _SHARE_STEPS[name]
        for name in ("rank", "far"):
            if found[name]:
                found[name] = 2.0 ** -(math.floor(-math.log2(found[name]) * _OCTAVE_STEPS + 1e-9) / _OCTAVE_STEPS)
        return Architecture(**found)


PLAIN = Architecture()
"""Convolutions and plans of connections as the network's factory makes them."""


def changed(network: nn.Module, plain: nn.Module, architecture: Architecture) -> nn.Module:
    """A copy of a network, its layers in the form that `architecture` asks for.

    A layer that has this form already keeps its values bit for bit. Other LinearConv layers are folded to plain
    convolutions and converted from those (`evocompress.ideas.linearconv.convert`). That is exact up to rounding
    where alpha grows and the rank is full; with a lower rank, or a smaller alpha, it is the best
    approximation that `convert` finds. LinearConv layers that the factory itself makes stay.
    Over-provisioned layers keep the weights of the connections that both plans have (`replanned`).

    Args:
        network: `plain`, or that in the form of any architecture.
        plain: The network as its factory makes it; its values don't matter.
        architecture: What to change to.

    Raises:
        ModelError: A convolution has weights that are infinite or NaN.
        ConfigError: The genes are no plan of connections, or one that does not fit a layer.

    >>> from evocompress.ideas.linearconv import fold
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
    new: dict[nn.Module, nn.Module] = {module: tagged(module.folded(), module) for module in own.values()}
    for name, layer in _over_provisioned(network).items():
        factory = base.get(name)
        plan = architecture.plan(factory.genes if isinstance(factory, OverProvisioned) else layer.genes)
        if plan != layer.genes:
            new[layer] = replanned(layer, plan)
    folded = exchanged(network, new)
    if architecture.plain:
        return folded
    converted = convert(folded, architecture.alpha, architecture.rank)
    alike = {
        module: own[name]
        for name, module in converted.named_modules()
        if name in own and _shapes(module.state_dict()) == _shapes(own[name].state_dict())
    }
    return exchanged(converted, alike)


def _over_provisioned(network: nn.Module) -> dict[str, OverProvisioned]:
    return {name: module for name, module in network.named_modules() if isinstance(module, OverProvisioned)}


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


def check_plans(plain: nn.Module, architecture: Architecture, thin: float = 0.0) -> None:
    """Refuse plans and thinning where there is no over-provisioned layer, and plans that do not fit a layer.

    Raises:
        ModelError: Says which genes have nothing to act on, or which layer they do not fit, and why.

    >>> check_plans(nn.Linear(2, 2), PLAIN)
    """
    given = {name: value for name in PLAN_GENES if (value := getattr(architecture, name)) is not None}
    names, layers = [*given, *(["thin"] if thin else [])], _over_provisioned(plain)
    if names and not layers:
        raise ModelError(
            f"genes {', '.join(names)}: the network has no OverProvisionedConv2d or OverProvisionedLinear, whose genes "
            'these are; take them out, or choose a network that has one, such as model = "connected_cnn"'
        )
    for name, layer in layers.items() if given else ():
        try:
            replanned(layer, architecture.plan(layer.genes))
        except EvocompressError as failure:
            values = ", ".join(f"{gene} = {value:g}" for gene, value in given.items())
            raise ModelError(f"genes {values} do not fit layer {name!r}: {failure}") from failure


def formed(plain: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A copy of the plain network in the form of a state dict: LinearConv layers where it has factors, its plans.

    The values are still to be loaded (`loaded`, or `load_state_dict`). What fits no layer is left for that to refuse.

    >>> plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    >>> state = changed(plain, plain, Architecture(0.5)).state_dict()
    >>> formed(plain, state).load_state_dict(state)
    <All keys matched successfully>
    """
    network = copy.deepcopy(plain)
    new: dict[nn.Module, nn.Module] = {}
    for name, module in network.named_modules():
        prefix = f"{name}." if name else ""
        held = {key[len(prefix) :]: tensor for key, tensor in state.items() if key.startswith(prefix)}
        layer: nn.Module | None = None
        if isinstance(module, nn.Conv2d) and "primary" in held:
            layer = _empty_layer(module, held)
        elif isinstance(module, OverProvisioned) and "plan" in held:
            layer = _planned_layer(module, held)
        if layer is not None:
            new[module] = layer
    return exchanged(network, new)


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
        ModelError: Names or shapes differ; lists those that only one side has. Or a layer refuses the values, such as
            those of another plan.
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
        raise ModelError(f"{source} does not fit the network: {' '.join(str(failure).split())}") from failure


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _planned_layer(module: OverProvisioned, held: Mapping[str, Tensor]) -> OverProvisioned | None:
    """The layer with a plan that a file holds; None where it is none, or none for this layer and these values."""
    genes = stored_plan(held["plan"])
    if genes is None or genes == module.genes:
        return None
    try:
        # A plan may make a thousand times as many links as the file has, and those would first be drawn.
        kernel, links = foreseen(genes, module.out_shape, module.in_shape)
        shapes = _shapes(held)
        fits = shapes.get("kernel", ()) == kernel and math.prod(shapes.get("links", (0,))) >= links
        return unset(module, genes) if fits else None
    except ConfigError:
        return None


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

"""Plans of connections as genes: what a genome asks of over-provisioned layers, and what a file holds of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from evocompress.errors import ConfigError, EvocompressError, ModelError
from evocompress.ideas.connections.drawing import foreseen
from evocompress.ideas.connections.overprovisioned import OverProvisioned, stored_plan
from evocompress.ideas.connections.plan import ConnectionPlan
from evocompress.ideas.connections.replan import replanned, unset
from evocompress.ideas.connections.term import NO_LAYERS
from evocompress.protocols import Genes, GeneSpec
from evocompress.support.modules import copied, exchanged

__all__ = ["PlanForm"]

_SHARE_STEPS = {"near": 16, "decay": 8}  # for each unit
_OCTAVE_STEPS = 2  # for each octave of far: small values differ by as much as large ones
_SHARED = "of over-provisioned layers; left out: as the network's factory has it"


class PlanForm:
    """Genes of `ConnectionPlan`, for all over-provisioned layers alike."""

    genes: Sequence[GeneSpec] = (
        GeneSpec(
            "near", f"density of connections next to the kernel, {_SHARED}", None, high=1.0, log=False,
            role="architecture", plain=None,
        ),
        GeneSpec(
            "decay", f"what the density is multiplied with at each step of distance, {_SHARED}", None, high=1.0,
            log=False, role="architecture", plain=None,
        ),
        GeneSpec(
            "far", f"probability of a connection at any distance, {_SHARED}", None, high=1.0, role="architecture",
            plain=None,
        ),
        GeneSpec(
            "kernel", f"length of the kernel, {_SHARED}", None, kind="whole", low=1, log=False, role="architecture",
            plain=None,
        ),
        GeneSpec(
            "period", f"places after which the plan is the same again, {_SHARED}", None, kind="whole", low=1, log=False,
            role="architecture", plain=None,
        ),
    )  # fmt: skip
    #: Another plan has other connections, so a layer that is gathered back computes something else.
    gathers_exactly = False

    def check(self, plain: nn.Module, low: Genes, high: Genes) -> None:
        """Refuse plans where there is no over-provisioned layer, and plans that do not fit a layer.

        Raises:
            ModelError: Says which genes have nothing to act on, or which layer they do not fit, and why.
        """
        layers = _over_provisioned(plain)
        if (names := list(self._plan_genes(low))) and not layers:
            raise ModelError(f"genes {', '.join(names)}: {NO_LAYERS}")
        for genes in (low, high):
            for name, layer in layers.items() if self._plan_genes(genes) else ():
                try:
                    replanned(layer, self.plan(layer.genes, genes))
                except EvocompressError as failure:
                    values = ", ".join(f"{gene} = {value:g}" for gene, value in self._plan_genes(genes).items())
                    raise ModelError(f"genes {values} do not fit layer {name!r}: {failure}") from failure

    def coarse(self, genes: Genes) -> Genes:
        """To the nearest: near in steps of 1/16, decay of 1/8. Upwards: far in half octaves 1, 0.707, 0.5, 0.354, …

        >>> PlanForm().coarse({"near": 0.2, "far": 0.012, "kernel": 3})
        {'near': 0.1875, 'far': 0.015625, 'kernel': 3}
        """
        coarse: dict[str, Any] = dict(genes)
        for name, steps in _SHARE_STEPS.items():
            if coarse.get(name) is not None:
                coarse[name] = round(coarse[name] * steps) / steps
        if coarse.get("far"):
            octaves = math.floor(-math.log2(coarse["far"]) * _OCTAVE_STEPS + 1e-9) / _OCTAVE_STEPS
            coarse["far"] = 2.0**-octaves
        return coarse

    def replace(self, network: nn.Module, plain: nn.Module, genes: Genes) -> nn.Module:
        """Layers with the plan that the genes ask for; they keep the weights of the connections that both plans have.

        Raises:
            ConfigError: The genes are no plan of connections, or one that does not fit a layer.
        """
        base, network = dict(plain.named_modules()), copied(network)
        new: dict[nn.Module, nn.Module] = {}
        for name, layer in _over_provisioned(network).items():
            factory = base.get(name)
            plan = self.plan(factory.genes if isinstance(factory, OverProvisioned) else layer.genes, genes)
            if plan != layer.genes:
                new[layer] = replanned(layer, plan)
        return exchanged(network, new)

    def match(self, plain: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
        """Layers with the plans whose bytes a state dict holds."""
        network = copied(plain)
        new: dict[nn.Module, nn.Module] = {}
        for name, module in _over_provisioned(network).items():
            prefix = f"{name}." if name else ""
            held = {key[len(prefix) :]: tensor for key, tensor in state.items() if key.startswith(prefix)}
            layer = _planned_layer(module, held) if "plan" in held else None
            if layer is not None:
                new[module] = layer
        return exchanged(network, new)

    def stands_for(self, leaf: str) -> str | None:
        """A plan may have a kernel, links, or both: each is in the other's group where that is alone."""
        return {"kernel": "links", "links": "kernel"}.get(leaf)

    def plan(self, factory_plan: ConnectionPlan, genes: Genes) -> ConnectionPlan:
        """The plan of a layer whose factory gives it `factory_plan`.

        Raises:
            ConfigError: Genes that are no plan.

        >>> PlanForm().plan(ConnectionPlan(kernel=5), {"far": 0.01}) == ConnectionPlan(kernel=5, far=0.01)
        True
        """
        return ConnectionPlan.from_genes(factory_plan.genes() | self._plan_genes(genes))

    def _plan_genes(self, genes: Genes) -> dict[str, Any]:
        return {spec.name: genes[spec.name] for spec in self.genes if genes.get(spec.name) is not None}


def _over_provisioned(network: nn.Module) -> dict[str, OverProvisioned]:
    return {name: module for name, module in network.named_modules() if isinstance(module, OverProvisioned)}


def _planned_layer(module: OverProvisioned, held: Mapping[str, Tensor]) -> OverProvisioned | None:
    """The layer with a plan that a file holds; None where it is none, or none for this layer and these values."""
    genes = stored_plan(held["plan"])
    if genes is None or genes == module.genes:
        return None
    try:
        # A plan may make a thousand times as many links as the file has, and those would first be drawn.
        kernel, links = foreseen(genes, module.out_shape, module.in_shape)
        shapes = {name: tuple(tensor.shape) for name, tensor in held.items()}
        fits = shapes.get("kernel", ()) == kernel and math.prod(shapes.get("links", (0,))) >= links
        return unset(module, genes) if fits else None
    except ConfigError:
        return None

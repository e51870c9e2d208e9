"""An over-provisioned layer with another plan: what both plans connect keeps its weight."""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from evocompress.codecs.codec import Floats
from evocompress.ideas.connections.drawing import connect
from evocompress.ideas.connections.overprovisioned import OverProvisioned
from evocompress.ideas.connections.plan import ConnectionPlan, Scalar

__all__ = ["replanned", "unset"]

LayerT = TypeVar("LayerT", bound=OverProvisioned)

#: What a new connection starts with, as a share of a fresh layer's bound. Not zero, which would look like a dropped
#: one; and little, so that the layer computes nearly what it did.
_START = 0.1


@torch.no_grad()
def replanned(layer: LayerT, plan: ConnectionPlan) -> LayerT:
    """A copy of a layer with another plan.

    A value of the new plan is the mean of what its connections had, 0 where there was none: the nearest in least
    squares. So values that both plans have stay bit for bit. Connections are drawn by a hash below a threshold, so a
    denser plan of the same seed, kernel and period has all of a sparser one's. Values of which no connection is old are
    drawn from the plan's seed, uniform up to a tenth of what a fresh layer has; torch's random state is left as it was.
    Dropped values are zeros; that they are dropped is forgotten, until `hold`.

    Raises:
        ConfigError: It is no plan, or one that does not fit the layer's shapes, or makes far too many connections.

    >>> from evocompress.ideas.connections.overprovisioned import OverProvisionedConv2d
    >>> layer = OverProvisionedConv2d(3, 8, ConnectionPlan(kernel=3), in_size=(16, 16))
    >>> wider = replanned(layer, ConnectionPlan(kernel=3, near=0.5))
    >>> torch.equal(wider.kernel, layer.kernel), wider.links.numel()
    (True, 295)
    """
    new = unset(layer, plan)
    values = torch.from_numpy(_carried(layer, new))
    start = 0
    for parameter in (new.kernel, new.links):
        if parameter is not None:
            parameter.copy_(values[start : start + parameter.numel()].reshape(parameter.shape))
            start += parameter.numel()
    return new


@torch.no_grad()
def unset(layer: LayerT, plan: ConnectionPlan) -> LayerT:
    """A copy of a layer with another plan, whose kernel and links are still to be set; the bias is as it was.

    Raises:
        ConfigError: As `replanned`.
    """
    new = copy.deepcopy(layer)
    new.lay(plan, bias=layer.bias is not None, device=layer.plan.device, dtype=layer.dtype)
    trained = any(parameter.requires_grad for parameter in layer.parameters())
    for parameter in (new.kernel, new.links):
        if parameter is not None:
            parameter.requires_grad_(trained)
    if new.bias is not None and layer.bias is not None:
        new.bias.copy_(layer.bias).requires_grad_(layer.bias.requires_grad)
    return new


def _carried(old: OverProvisioned, new: OverProvisioned) -> Floats:
    """The new layer's values, kernel and links one after the other, float64 (n,)."""
    # A kernel that lies as it did needs no list of its connections, which may be many.
    same = _kernel_genes(old.genes) == _kernel_genes(new.genes)
    old_connections, new_connections = (
        connect(layer.genes, layer.out_shape, layer.in_shape, kernel=not same) for layer in (old, new)
    )
    inputs = math.prod(old.in_shape)
    before, after = (listed.outputs * inputs + listed.inputs for listed in (old_connections, new_connections))
    place = np.minimum(np.searchsorted(before, after), max(len(before) - 1, 0))
    kept = before[place] == after if len(before) else np.zeros(len(after), np.bool_)
    values, count = _values(old), new_connections.n_kernel + new_connections.n_links
    sums = np.bincount(new_connections.weights[kept], values[old_connections.weights[place[kept]]], count)
    connections = np.bincount(new_connections.weights, minlength=count)
    carried = np.bincount(new_connections.weights[kept], minlength=count) > 0
    drawn = np.random.default_rng(new.genes.seed).uniform(-1, 1, count) * (_START * new.bound)
    drawn[carried] = sums[carried] / connections[carried]
    if same and new.genes.shared:
        drawn[: new_connections.n_kernel] = values[: new_connections.n_kernel]
    return drawn


def _kernel_genes(plan: ConnectionPlan) -> dict[str, Scalar]:
    """All genes but those that only links have."""
    return {name: value for name, value in plan.genes().items() if name not in ("near", "decay", "far", "seed")}


def _values(layer: OverProvisioned) -> Floats:
    parts: list[Tensor] = [part.flatten() for part in layer.weights() if part is not None]
    return torch.cat(parts).double().cpu().numpy() if parts else np.zeros(0)

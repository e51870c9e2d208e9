"""Forms of a network: what genes may make of its layers, and what a file holds of them.

Which forms there are is in `evocompress.extensions.FORMS`. A file's tensor names, shapes and values say which form it
holds, so whoever loads it needs the plain network only, and no genome.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from evocompress.checkpoint.loading import load_state
from evocompress.extensions import FORMS
from evocompress.protocols import Form, Genes
from evocompress.support.modules import copied

__all__ = ["changed", "formed", "forms", "gathered", "loaded", "stands_for"]


@functools.cache
def forms() -> tuple[Form, ...]:
    """All forms, in the order in which they act."""
    return tuple(kind() for kind in FORMS.values())


def changed(network: nn.Module, plain: nn.Module, genes: Genes) -> nn.Module:
    """A copy of a network, its layers in the form that the genes ask for.

    A layer that has this form already keeps its values bit for bit.

    Args:
        network: `plain`, or that in any form.
        plain: The network as its factory makes it; its values don't matter.
        genes: Of all forms; those that are absent leave layers as the factory makes them.

    Raises:
        ModelError, ConfigError: The genes do not fit a layer.
    """
    network = copied(network)
    for form in forms():
        network = form.replace(network, plain, genes)
    return network


def gathered(network: nn.Module, plain: nn.Module) -> nn.Module:
    """A copy of a network in which the forms that can be gathered exactly are: it computes the same."""
    network = copied(network)
    for form in forms():
        if form.gathers_exactly:
            network = form.replace(network, plain, {})
    return network


def formed(plain: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A copy of the plain network in the form of a state dict.

    The values are still to be loaded (`loaded`, or `load_state_dict`). What fits no layer is left for that to refuse.
    """
    network = copied(plain)
    for form in forms():
        network = form.match(network, state)
    return network


def stands_for(leaf: str) -> Iterable[str]:
    """The tensors of plain layers whose place a tensor has in some form, by the last parts of their names."""
    return (other for form in forms() if (other := form.stands_for(leaf)) is not None)


def loaded(plain: nn.Module, state: Mapping[str, Tensor], source: str) -> nn.Module:
    """A copy of the plain network in the form of a state dict, and with its values; `source` names it in errors.

    Raises:
        ModelError: It does not fit the network in any form.
    """
    network = formed(plain, state)
    load_state(network, state, source)
    return network

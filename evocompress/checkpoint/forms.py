"""Forms of a network: what genes may make of its layers, and what a file holds of them.

Which forms there are is in `evocompress.extensions.FORMS`. A file's tensor names, shapes and values say which form it
holds, so whoever loads it needs the plain network only, and no genome.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from evocompress.errors import ModelError
from evocompress.extensions import FORMS
from evocompress.protocols import Form, Genes

__all__ = ["changed", "forms", "formed", "gathered", "load_weights", "loaded", "stands_for"]


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
    network = copy.deepcopy(network)
    for form in forms():
        network = form.replace(network, plain, genes)
    return network


def gathered(network: nn.Module, plain: nn.Module) -> nn.Module:
    """A copy of a network in which the forms that can be gathered exactly are: it computes the same."""
    network = copy.deepcopy(network)
    for form in forms():
        if form.gathers_exactly:
            network = form.replace(network, plain, {})
    return network


def formed(plain: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A copy of the plain network in the form of a state dict.

    The values are still to be loaded (`loaded`, or `load_state_dict`). What fits no layer is left for that to refuse.
    """
    network = copy.deepcopy(plain)
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

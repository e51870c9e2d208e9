"""Traced graphs of a network's operations, in evaluation and in training mode, kept for the next one built alike."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import Graph
from torch.fx.experimental.proxy_tensor import make_fx

from evocompress.errors import ModelError
from evocompress.support.inputs import Inputs, call_with, mapped, tensors_in

__all__ = ["graphs_of", "named_tensors", "outputs_in"]

#: Graphs of networks by how these are built: tracing takes longer than an epoch on little data, and a search cuts many
#: networks of few kinds.
_KNOWN_GRAPHS: dict[Hashable, Sequence[Graph]] = {}
_MOST_GRAPHS = 16
#: What modules keep beside attributes of their own: tensors and submodules, which are looked at by themselves.
_NOT_ATTRIBUTES = ("training", "_parameters", "_buffers", "_modules")
_SIMPLE = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)


def graphs_of(network: nn.Module, names: Sequence[str], inputs: Inputs) -> Sequence[Graph]:
    """The network's operations in evaluation and in training mode.

    Args:
        network: A copy, since its mode is changed.
        names: Its tensors, which are the first placeholders of the graphs, in this order.
        inputs: What its `forward` takes.

    Raises:
        ModelError: It returns what is no tensor, or anything that its own code raises.
    """
    built = _structure(network, inputs)
    if built is not None and built in _KNOWN_GRAPHS:
        return _KNOWN_GRAPHS[built]
    graphs = tuple(_traced(network, names, inputs, training=training) for training in (False, True))
    if built is not None:
        if len(_KNOWN_GRAPHS) >= _MOST_GRAPHS:
            _KNOWN_GRAPHS.clear()
        _KNOWN_GRAPHS[built] = graphs
    return graphs


def _structure(model: nn.Module, inputs: Inputs) -> Hashable:
    """All that a network's operations depend on, as tensors' values cannot be asked for: classes, attributes, shapes.

    None where a module has an attribute of which nobody knows whether two are the same, such as an object or a tensor.
    """
    first: dict[int, str] = {}
    tensors = [
        (name, first.setdefault(id(tensor), name), tensor.shape, tensor.stride(), tensor.dtype)
        for name, tensor in named_tensors(model, tied=True)
    ]
    modules = []
    for name, module in model.named_modules(remove_duplicate=False):
        attributes = {key: value for key, value in vars(module).items() if key not in _NOT_ATTRIBUTES}
        if not all(map(_is_simple, attributes.values())):
            return None
        modules.append((name, first.setdefault(id(module), name), type(module), repr(attributes)))
    given: list[Hashable] = []

    def without_numbers(tensor: Tensor) -> Tensor:
        given.append((tensor.shape, tensor.stride(), tensor.dtype))
        return tensor.new_empty(0)

    return tuple(tensors), tuple(modules), repr(mapped(inputs, without_numbers)), tuple(given)


def _is_simple(value: object) -> bool:
    """Whether a value is all that its `repr` says."""
    if isinstance(value, tuple | list | set | frozenset):
        return all(map(_is_simple, value))
    if isinstance(value, dict):
        return all(_is_simple(key) and _is_simple(part) for key, part in value.items())
    return type(value) in _SIMPLE


def _traced(model: nn.Module, names: Sequence[str], inputs: Inputs, *, training: bool) -> Graph:
    """The network's operations, as a graph whose first placeholders are the tensors of these names."""

    def forward(tensors: list[Tensor], *given: Tensor) -> list[Tensor]:
        parts = iter(given)
        arguments = mapped(inputs, lambda _: next(parts))
        return list(outputs_in(call_with(model, dict(zip(names, tensors, strict=True)), arguments)))

    members = dict(named_tensors(model))
    # Copies: training mode moves running statistics.
    tensors = [members[name].detach().clone() for name in names]
    model.train(training)
    # Shapes are noted as fake tensors. Of one mode for all of them: else there is a mode for each operation, and torch
    # reads the source of the whole call stack whenever it makes one, which takes far longer than the network.
    with tracing(TracingContext(FakeTensorMode())):
        return make_fx(forward)(tensors, *(tensor.clone() for tensor in tensors_in(inputs))).graph


def named_tensors(model: nn.Module, *, tied: bool = False) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by name; with `tied`, the same tensor under each of its names."""
    yield from model.named_parameters(remove_duplicate=not tied)
    yield from model.named_buffers(remove_duplicate=not tied)


def outputs_in(result: object) -> Iterator[Tensor]:
    """All tensors in what a network returns."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, tuple | list | Mapping):
        for part in result.values() if isinstance(result, Mapping) else result:
            yield from outputs_in(part)
    elif result is not None and not isinstance(result, bool | int | float | str):
        raise ModelError(f"the network returns a {type(result).__name__}")

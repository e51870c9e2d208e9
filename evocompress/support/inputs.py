"""Inputs of a network: one tensor, several in order, or several by name.

A batch of a data set is a tensor, `model(x)`; a tuple or list, `model(*x)`; or a mapping, `model(**x)`, as of token ids
and an attention mask. In these there may be further tuples, lists and mappings, and things that are no tensors.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["HALF_PRECISION", "Inputs", "arguments", "call", "call_with", "count", "described", "mapped", "tensors_in"]

HALF_PRECISION = (torch.float16, torch.bfloat16)

Inputs: TypeAlias = Any
"""A tensor (n, …), or a tuple, list or mapping of such."""


def arguments(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a network is called with, by position and by name.

    >>> arguments({"a": 1}), arguments((1, 2))
    (((), {'a': 1}), ((1, 2), {}))
    """
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs), {}) if isinstance(inputs, tuple | list) else ((inputs,), {})


def call(model: nn.Module, inputs: Inputs) -> Any:
    """What a network returns for a batch; one in half precision is given the batch's floats in its own."""
    args, kwargs = arguments(_in_half_precision(model.parameters(), inputs))
    return model(*args, **kwargs)


def call_with(model: nn.Module, tensors: Mapping[str, Tensor], inputs: Inputs) -> Any:
    """What a network returns for a batch with these parameters and buffers, by name, in the place of its own.

    Half precision is as for `call`.
    """
    args, kwargs = arguments(_in_half_precision(itertools.chain(tensors.values(), model.parameters()), inputs))
    return functional_call(model, dict(tensors), args, kwargs)


def _in_half_precision(parameters: Iterable[Tensor], inputs: Inputs) -> Inputs:
    """Inputs whose floats have the dtype of the first float parameter, where that is float16 or bfloat16."""
    dtype = next((parameter.dtype for parameter in parameters if parameter.is_floating_point()), None)
    if dtype not in HALF_PRECISION:
        return inputs
    return mapped(inputs, lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)


def tensors_in(inputs: Inputs) -> Iterator[Tensor]:
    """Every tensor in a batch, in its order.

    >>> len(list(tensors_in({"ids": torch.ones(2, 3), "more": [torch.ones(2), None]})))
    2
    """
    if isinstance(inputs, Tensor):
        yield inputs
    elif isinstance(inputs, Mapping):
        for part in inputs.values():
            yield from tensors_in(part)
    elif isinstance(inputs, tuple | list):
        for part in inputs:
            yield from tensors_in(part)


def mapped(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """A batch with every tensor in it changed; named tuples and mappings of other classes become plain ones.

    >>> mapped((torch.zeros(2), None), lambda tensor: tensor + 1)
    (tensor([1., 1.]), None)
    """
    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, Mapping):
        return {name: mapped(part, change) for name, part in inputs.items()}
    if isinstance(inputs, tuple | list):
        return (
            type(inputs)(mapped(part, change) for part in inputs)
            if type(inputs) in (tuple, list)
            else tuple(mapped(part, change) for part in inputs)
        )
    return inputs


def count(inputs: Inputs) -> int:
    """How many examples a batch has: the length of its first tensor that has one."""
    return next((len(tensor) for tensor in tensors_in(inputs) if tensor.ndim), 0)


def described(inputs: Inputs) -> str:
    """Shapes, and the types of what is not float32, for error messages.

    >>> described(torch.zeros(2, 3)), described({"ids": torch.zeros(2, 3, dtype=torch.int64)})
    ('shape (2, 3)', 'ids of shape (2, 3), torch.int64')
    """
    if isinstance(inputs, Tensor):
        kind = "" if inputs.dtype == torch.float32 else f", {inputs.dtype}"
        return f"shape {tuple(inputs.shape)}{kind}"
    if isinstance(inputs, Mapping):
        return "; ".join(f"{name} of {described(part)}" for name, part in inputs.items())
    if isinstance(inputs, tuple | list):
        return "; ".join(map(described, inputs))
    return f"kind {type(inputs).__name__}"

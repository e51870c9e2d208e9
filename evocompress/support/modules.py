"""Torch modules: copies, tensors, evaluation mode, what counts of what a network returns, modules for others."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from evocompress.errors import ModelError

__all__ = [
    "AllOutputs",
    "ChosenOutput",
    "check_not_scripted",
    "copied",
    "count_all_outputs",
    "counted_output",
    "evaluation_mode",
    "exchanged",
    "find_tensor",
    "first_tensor",
    "gradients_of_recurrent_layers",
    "keep_output",
    "several_outputs",
    "shapes_of",
    "tensors_of",
]

ModuleT = TypeVar("ModuleT", bound=nn.Module)

#: Where a network that returns several things by name has what counts, the first of these first.
_OUTPUTS = ("logits", "last_hidden_state", "pooler_output")


def check_not_scripted(network: nn.Module) -> None:
    """Refuse what torch.jit has scripted or traced: it can be neither copied nor changed as a module is.

    Raises:
        ModelError: It is such a network.
    """
    if isinstance(network, torch.jit.ScriptModule):
        raise ModelError(
            "the network is a torch.jit.ScriptModule, which cannot be hooked, copied or quantised; "
            "give the module that it was made from, such as before torch.jit.script or torch.jit.trace"
        )


def copied(network: ModuleT) -> ModuleT:
    """An independent copy of a network, its hooks included.

    Hooks such as torch's old `weight_norm` and `spectral_norm` leave a tensor with a history in the module, of which
    torch copies none; they make it anew whenever the network runs, so the copy gets its values alone.
    """
    computed = [
        (module, name, value)
        for module in network.modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor) and not value.is_leaf
    ]
    try:
        for module, name, value in computed:
            vars(module)[name] = value.detach()
        return copy.deepcopy(network)
    finally:
        for module, name, value in computed:
            vars(module)[name] = value


def first_names(network: nn.Module) -> dict[str, str]:
    """Every name of a parameter, and the first of those that it has: shared ones have several."""
    first = {id(parameter): name for name, parameter in network.named_parameters()}
    return {name: first[id(parameter)] for name, parameter in network.named_parameters(remove_duplicate=False)}


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """The tensors of a network's state dict; what else modules keep there (`get_extra_state`) is their own."""
    return {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of the floating-point tensors of a network's state dict."""
    return {name: tuple(tensor.shape) for name, tensor in tensors_of(network).items() if tensor.is_floating_point()}


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Put every module into evaluation mode, and afterwards each back into the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def gradients_of_recurrent_layers(model: nn.Module) -> Iterator[None]:
    """Let recurrent layers have gradients in evaluation mode, too: cuDNN's have them in training mode only."""
    slow = any(isinstance(module, nn.RNNBase) for module in model.modules())
    with torch.backends.cudnn.flags(enabled=False) if slow else contextlib.nullcontext():
        yield


@dataclasses.dataclass(frozen=True)
class ChosenOutput:
    """A forward hook that makes one of a network's several outputs the only one: by its name, or by its place."""

    output: str | int

    def __call__(self, module: nn.Module, _: object, result: object) -> object:
        """The output.

        Raises:
            ModelError: There is none of this name or at this place.
        """
        chosen: object = None
        if isinstance(self.output, int):
            parts = result if isinstance(result, tuple | list) else ()
            chosen = parts[self.output] if -len(parts) <= self.output < len(parts) else None
        elif isinstance(result, Mapping):
            chosen = result.get(self.output)
        else:
            chosen = getattr(result, self.output, None)
        if chosen is None:
            raise ModelError(f"the network has no output {self.output!r}; {_shown_outputs(result)}")
        return chosen


def keep_output(network: ModuleT, *, output: str | int) -> ModuleT:
    """The network itself, which returns one of its several outputs from now on."""
    network.register_forward_hook(ChosenOutput(output))
    return network


@dataclasses.dataclass(frozen=True)
class AllOutputs:
    """A forward hook that makes one output (n, numbers) of several tensors, each divided by its scale."""

    scales: tuple[float, ...]

    def __call__(self, module: nn.Module, _: object, result: object) -> Tensor:
        """All outputs, one after the other."""
        return torch.cat(
            [
                part.reshape(len(part), -1) / scale
                for part, scale in zip(several_outputs(result), self.scales, strict=True)
            ],
            1,
        )


def several_outputs(result: object) -> list[Tensor]:
    """The floating tensors (n, …) of a result that has two or more of them, none of which is known to be the one.

    >>> shapes = [tuple(part.shape) for part in several_outputs({"box": torch.ones(2, 4), "score": torch.ones(2)})]
    >>> shapes, several_outputs({"logits": torch.ones(2), "hidden": torch.ones(2)}), several_outputs(torch.ones(2))
    ([(2, 4), (2,)], [], [])
    """
    names, parts = _outputs_of(result)
    tensors = [part for part in parts if isinstance(part, Tensor) and part.is_floating_point() and part.ndim]
    alike = len({len(tensor) for tensor in tensors}) == 1
    return tensors if len(tensors) > 1 and alike and not set(names) & set(_OUTPUTS) else []


def count_all_outputs(network: nn.Module, results: Iterable[object]) -> int:
    """From now on the network returns all its outputs as one, in which each has the same variance in all.

    Args:
        network: Whose.
        results: What it returned for some batches; by them an output's variance is known.

    Returns:
        How many outputs there are; 0 where the network stays as it is, as it has one, or one that is known to count.
    """
    batches = [several_outputs(result) for result in results]
    if not batches or len({tuple(part.shape[1:] for part in parts) for parts in batches}) != 1 or not batches[0]:
        return 0
    outputs = [
        torch.cat([part.detach().double().reshape(len(part), -1) for part in parts])
        for parts in zip(*batches, strict=True)
    ]
    spreads = [float(output.var(0, correction=0).sum()) ** 0.5 for output in outputs]
    sizes = [float(output.square().mean(0).sum()) ** 0.5 for output in outputs]
    # What does not vary at all is counted by its size.
    scales = [spread if spread > 1e-6 * size else size or 1.0 for spread, size in zip(spreads, sizes, strict=True)]
    network.register_forward_hook(AllOutputs(tuple(scales)))
    return len(scales)


def counted_output(result: object) -> str | None:
    """Which of a network's several outputs counts, as a line for people; None where it returns one thing.

    >>> counted_output({"hidden": torch.ones(2), "logits": torch.ones(2)})
    "of the network's outputs hidden, logits the one that counts is logits; the network option output chooses another"
    """
    counted = find_tensor(result)
    names, parts = _outputs_of(result)
    if counted is None or len(names) < 2:
        return None
    name = next((name for name, part in zip(names, parts, strict=True) if find_tensor(part) is counted), None)
    if name is None:
        return None
    listed = (
        f"outputs {', '.join(names)}"
        if isinstance(result, Mapping) or hasattr(result, names[0])
        else (f"{len(names)} outputs")
    )
    return f"of the network's {listed} the one that counts is {name}; the network option output chooses another"


def _outputs_of(result: object) -> tuple[list[str], list[object]]:
    """Names, or numbers, and values of what a network returns; empty where it is no mapping, tuple or list."""
    if isinstance(result, Mapping):
        return [str(name) for name in result], list(result.values())
    if isinstance(result, tuple | list):
        names = getattr(result, "_fields", range(len(result)))
        return [str(name) for name in names], list(result)
    return [], []


def _shown_outputs(result: object) -> str:
    names, _ = _outputs_of(result)
    return f"it has {', '.join(names)}" if names else f"it returns a {type(result).__name__}"


def first_tensor(result: object) -> Tensor:
    """What counts of a network's result: itself, or its logits, last hidden state, pooled output, or first tensor.

    Raises:
        ModelError: There is no tensor in it.

    >>> import torch
    >>> first_tensor((torch.ones(2), None)).tolist()
    [1.0, 1.0]
    """
    tensor = find_tensor(result)
    if tensor is None:
        raise ModelError(f"the network returned a {type(result).__name__} without a tensor in it")
    return tensor


def find_tensor(result: object) -> Tensor | None:
    """As `first_tensor`, but None where there is no tensor."""
    if isinstance(result, Tensor):
        return result
    if isinstance(result, PackedSequence):
        return result.data
    for name in _OUTPUTS:
        part = result.get(name) if isinstance(result, Mapping) else getattr(result, name, None)
        if isinstance(part, Tensor):
            return part
    parts = result.values() if isinstance(result, Mapping) else result if isinstance(result, tuple | list) else ()
    return next((tensor for tensor in map(find_tensor, parts) if tensor is not None), None)


def exchanged(network: nn.Module, new: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """The network itself, with modules exchanged at every place where they stand; or what replaces it as a whole.

    >>> old = nn.Linear(2, 2)
    >>> exchanged(nn.Sequential(old, nn.ReLU(), old), {old: nn.Identity()})
    Sequential(
      (0): Identity()
      (1): ReLU()
      (2): Identity()
    )
    """
    if network in new:
        return new[network]
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):  # `named_children` passes over a second name
            if child is not None and child in new:
                setattr(parent, name, new[child])
    return network

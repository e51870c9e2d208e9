"""Structured pruning without loss: a network without its dead filters, channels and neurons, to train on faster.

A part is dead whose removal changes no output: nobody reads it, its readers' weights being zero, or what they read is
always zero, or is a constant that their bias can hold. `cut` makes the smaller network, and maps state dicts between
it and the plain one, whose names and shapes a file has.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from evocompress.errors import ConfigError, ModelError
from evocompress.support.inputs import Inputs, call, call_with, mapped
from evocompress.support.modules import ChosenOutput, copied, evaluation_mode, tensors_of
from evocompress.training.channel_graph import ChannelGraph
from evocompress.training.traced_graphs import graphs_of, named_tensors, outputs_in

__all__ = ["LiveNetwork", "cut", "narrow", "put_live_first"]

_LAYERS: tuple[type[nn.Module], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, _BatchNorm)
_OF_ATTENTION = nn.modules.linear.NonDynamicallyQuantizableLinear
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)


@dataclasses.dataclass(frozen=True, eq=False)
class LiveNetwork:
    """A network without its dead parts, and the way to it and back.

    Attributes:
        network: The smaller network, of the same classes, with parameters of its own; the network itself where nothing
            was cut.
        kept: For each tensor of the state dict the indices that remain along its dimensions 0 and 1, as far as it has
            them. The other dimensions remain whole.
        parameters_before: Number of parameters of the plain network.
        parameters_after: Number of parameters of the smaller one.
        reason: Why nothing was cut; None where something was.
        order: For each tensor all indices along these dimensions, in the order of `live_first`; empty where the network
            would compute otherwise.
    """

    network: nn.Module
    kept: Mapping[str, tuple[Tensor, ...]]
    order: Mapping[str, tuple[Tensor, ...]]
    parameters_before: int
    parameters_after: int
    reason: str | None
    _plain: Mapping[str, torch.Size] = dataclasses.field(repr=False)
    _folded: Mapping[str, tuple[str, Tensor]] = dataclasses.field(repr=False)

    def gather(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The smaller network's state dict from one of the plain network.

        The smaller network then computes what the plain one does if the parts that were cut are as dead there as they
        were: with the same constants, or unread.

        Raises:
            ModelError: Other names or shapes than the plain network's.
        """
        self._check(state, {name: tuple(shape) for name, shape in self._plain.items()}, "plain")
        gathered = {name: self._slice(name, tensor) for name, tensor in state.items()}
        for weight, (bias, constants) in self._folded.items():
            # The rows that live, with all columns; the constants are zero where columns remain.
            rows = state[weight].detach().index_select(0, self._indices(weight, state[weight])[0])
            sums = rows.double().reshape(*rows.shape[:2], -1).sum(2)
            gathered[bias] = (gathered[bias].double() + sums @ constants.to(rows.device)).to(gathered[bias].dtype)
        return gathered

    def scatter(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A state dict of the plain network's names and shapes, with which it computes what the smaller network does.

        What was cut is zero, a running variance 1: no reader is left of these parts, so that their biases mean nothing
        either. Constants that the cut has folded into a bias stay there. `gather` of the result is `state` again.

        Raises:
            ModelError: Other names or shapes than the smaller network's.
        """
        shapes = {
            name: (*(len(indices) for indices in self.kept[name]), *shape[2:]) for name, shape in self._plain.items()
        }
        self._check(state, shapes, "smaller")
        return {name: self._spread(name, tensor) for name, tensor in state.items()}

    def live_first(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """As `scatter`, but the live channels come first wherever channels may change places, and running variances of
        dead ones are zero, too.

        The outputs are the same: which of a layer's channels is which means nothing. A bare file then leaves out nearly
        all that is dead. Without an `order` it is `scatter`.

        Raises:
            ModelError: Other names or shapes than the smaller network's.
        """
        ordered = {}
        for name, tensor in self.scatter(state).items():
            if name in self.order and name.endswith("running_var"):
                alive = torch.zeros(len(tensor), dtype=torch.bool, device=tensor.device)
                alive[self._indices(name, tensor)[0]] = True
                tensor = tensor * alive
            for dim, indices in enumerate(self.order.get(name, ())):
                tensor = tensor.index_select(dim, indices.to(tensor.device))
            ordered[name] = tensor
        return ordered

    def _slice(self, name: str, tensor: Any) -> Any:
        if name not in self.kept:
            return tensor  # what a module adds to its state dict and is no tensor
        for dim, indices in enumerate(self._indices(name, tensor)):
            if len(indices) < tensor.shape[dim]:
                tensor = tensor.index_select(dim, indices)
        return tensor

    def _spread(self, name: str, tensor: Any) -> Any:
        if name not in self.kept or tensor.shape == self._plain[name]:
            return tensor
        plain = torch.full(
            self._plain[name],
            float(name.endswith("running_var")),
            dtype=tensor.dtype,
            device=tensor.device,
        )
        indices = self._indices(name, tensor)
        plain[indices[0] if len(indices) == 1 else (indices[0][:, None], indices[1])] = tensor.detach()
        return plain

    def _indices(self, name: str, tensor: Tensor) -> tuple[Tensor, ...]:
        return tuple(indices.to(tensor.device) for indices in self.kept[name])

    def _check(self, state: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], which: str) -> None:
        found = {name: tuple(tensor.shape) for name, tensor in state.items() if isinstance(tensor, Tensor)}
        wrong = sorted(name for name in {*found, *shapes} if found.get(name) != shapes.get(name))
        if wrong:
            name = wrong[0]
            raise ModelError(
                f"{name!r} is {found.get(name, 'missing')} and should be {shapes.get(name, 'missing')}: give a state "
                f"dict of the {which} network"
            )


def cut(model: nn.Module, example_inputs: Inputs, *, fold: bool = True) -> LiveNetwork:
    """A copy of a network without the filters, channels and neurons that its outputs do not depend on.

    Outputs are equal, up to the rounding of sums, in training mode too, but for the draws of dropout. Outputs of
    convolutions, of linear layers and of depthwise convolutions are cut, with what normalises them, through elementwise
    operations, pooling, padding, flattening, sums (all of whose terms lose the same channels) and concatenations.
    What is not known stays: layers of other classes, such as attention, with all that reaches them; parameters that are
    frozen, tied, computed, or watched by hooks. Each layer keeps at least one channel. The model is left as it was, and
    so is torch's random state.

    Where nothing can be cut, or the network cannot be traced, it is itself returned, and `reason` says why.

    Args:
        model: The network, on any one device.
        example_inputs: What its `forward` takes: a tensor, or several in order or by name, as for training. A few
            examples are enough, but two at least where there is batch normalisation. They only tell the shapes; what
            comes out is compared.
        fold: Whether channels that are constant, but not zero, go as well, so that biases change.

    >>> network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> with torch.no_grad():
    ...     network[2].weight[:, 1:7] = 0
    >>> live = cut(network, torch.ones(1, 3))
    >>> live.network[0], live.parameters_before, live.parameters_after
    (Linear(in_features=3, out_features=2, bias=True), 50, 14)
    >>> {name: tuple(tensor.shape) for name, tensor in live.scatter(live.network.state_dict()).items()}["0.weight"]
    (8, 3)
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            return _cut(model, mapped(example_inputs, lambda tensor: tensor.detach().cpu()), fold=fold)
    except _NothingToCut as nothing:
        return _whole(model, str(nothing))
    except Exception as failure:  # a network's own code may fail in any way
        return _whole(model, f"the network cannot be traced: {type(failure).__name__}: {failure}")


def put_live_first(model: nn.Module, example_inputs: Inputs) -> None:
    """Reorder a network's channels in place, live ones first, and make dead ones zero; its outputs stay the same.

    A bare file (`pack(…, Recipe(names=False, shapes=False))`) then holds the corners of tensors that live, where that
    makes it smaller. Weights that lie on a grid stay on it. Where nothing is dead, or the network cannot be traced,
    nothing changes.

    Args:
        model: The network, on any one device.
        example_inputs: As for `cut`.
    """
    live = cut(model, example_inputs, fold=False)
    if live.network is not model and live.order:
        model.load_state_dict(live.live_first(live.network.state_dict()))


def narrow(model: nn.Module, share: float, example_inputs: Inputs, *, seed: int) -> None:
    """Leave a fresh network a share of each layer's channels, in place, so that it learns as a narrower one would.

    The others become zero, and `cut` takes them out. The weights that read the rest grow by the root of what they read
    less, so that outputs keep their scale. Channels that may not change places stay, as do those of layers that `cut`
    does not know; where the network cannot be traced nothing changes.

    Args:
        model: A network of random weights, on any one device.
        share: Of the channels of each layer, above 0 and at most 1; one at least remains.
        example_inputs: As for `cut`.
        seed: Which channels remain.

    Raises:
        ConfigError: A share out of its range.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"share is {share}; it must be above 0 and at most 1.")
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            _refuse(model)
            inputs = mapped(example_inputs, lambda tensor: tensor.detach().cpu())
            channels = next(_followed(copied(model).cpu(), inputs))
    except Exception:  # a network's own code may fail in any way; `cut` says why
        return
    state = tensors_of(model)
    with torch.no_grad():
        for (name, dim), gone in channels.drawn(share, np.random.default_rng(seed)).items():
            tensor = state[name]
            if dim == 1:
                tensor.mul_(math.sqrt(tensor.shape[1] / (tensor.shape[1] - len(gone))))
            tensor.index_fill_(dim, torch.from_numpy(gone).to(tensor.device), 0.0)


class _NothingToCut(Exception):
    """The network stays as it is."""


def _whole(model: nn.Module, reason: str) -> LiveNetwork:
    plain = tensors_of(model)
    kept = {name: _all(tensor) for name, tensor in plain.items()}
    count = _parameters(model)
    return LiveNetwork(model, kept, kept, count, count, reason, {name: t.shape for name, t in plain.items()}, {})


def _cut(model: nn.Module, inputs: Inputs, *, fold: bool) -> LiveNetwork:
    _refuse(model)
    probe = copied(model).cpu()
    cuttable = _cuttable(probe)
    # A network's code may spell out the number of features behind a flattening; the second try leaves those alone.
    for channels in _followed(probe, inputs):
        found = channels.live(fold=fold)
        plain = tensors_of(model)
        kept, order = _by_name(found.kept, plain), _by_name(found.order, plain)
        if all(len(i) == n for name, t in plain.items() for i, n in zip(kept[name], t.shape, strict=False)):
            raise _NothingToCut("no part is dead")
        folded = {weight: (bias, torch.from_numpy(known)) for weight, (bias, known) in found.folded.items()}
        live = LiveNetwork(
            copied(probe),
            kept,
            order,
            _parameters(model),
            0,
            None,
            {name: tensor.shape for name, tensor in plain.items()},
            folded,
        )
        _shrink(live, cuttable)
        if _agree(probe, live.network, inputs):
            live.network.to(next(iter(plain.values())).device)
            for one, other in zip(model.modules(), live.network.modules(), strict=True):
                other.training = one.training
            live = dataclasses.replace(live, parameters_after=_parameters(live.network))
            return live if _same_in_order(probe, live, inputs) else dataclasses.replace(live, order={})
    raise _NothingToCut(
        "the network's code depends on the sizes of its layers: with smaller ones it computes otherwise"
    )


def _followed(probe: nn.Module, inputs: Inputs) -> Iterator[ChannelGraph]:
    """The network's channels, followed through reshapings and then, in a second graph, not through these."""
    names = [name for name, _ in named_tensors(probe)]
    graphs = graphs_of(probe, names, inputs)
    for reshaping in (True, False):
        channels = ChannelGraph(dict(named_tensors(probe)), _cuttable(probe), reshaping=reshaping)
        for graph in graphs:
            channels.add(graph, names)
        yield channels


def _by_name(
    indices: Mapping[tuple[str, int], npt.NDArray[np.int64]], plain: Mapping[str, Tensor]
) -> dict[str, tuple[Tensor, ...]]:
    """Indices by tensor, for each of its dimensions; all of them where there are none for a dimension."""
    return {
        name: tuple(
            torch.from_numpy(indices[name, dim]) if (name, dim) in indices else every
            for dim, every in enumerate(_all(tensor))
        )
        for name, tensor in plain.items()
    }


def _same_in_order(probe: nn.Module, live: LiveNetwork, inputs: Inputs) -> bool:
    """Whether the plain network computes the same in `live`'s order."""
    ordered = copied(probe)
    ordered.load_state_dict(live.live_first({k: v.cpu() for k, v in live.network.state_dict().items()}))
    return _agree(probe, ordered, inputs)


def _refuse(model: nn.Module) -> None:
    for name, module in model.named_modules():
        hooks = [hook for kind in _HOOKS for hook in (getattr(module, kind, None) or {}).values()]
        if any(not isinstance(hook, ChosenOutput) for hook in hooks):
            raise _NothingToCut(f"module {name!r} has hooks, which may depend on its size")
    tensors = dict(named_tensors(model))
    if len({tensor.device for tensor in tensors.values()}) > 1:
        raise _NothingToCut("the network is on several devices")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise _NothingToCut(f"{name!r} has values that are not finite")


def _cuttable(model: nn.Module) -> dict[str, nn.Module]:
    """The layer of each tensor that may be cut: of torch's own layers, learned, and in one place only."""
    state = model.state_dict(keep_vars=True)
    places = Counter(id(tensor) for _, tensor in named_tensors(model, tied=True))
    storages = Counter(tensor.untyped_storage().data_ptr() for _, tensor in named_tensors(model))
    layers: dict[str, nn.Module] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        if not _is_plain(module):
            continue
        for name, tensor in (*module.named_parameters(prefix, False), *module.named_buffers(prefix, False)):
            learned = tensor.requires_grad or not isinstance(tensor, nn.Parameter)
            watched = getattr(tensor, "_backward_hooks", None) or getattr(tensor, "_post_accumulate_grad_hooks", None)
            alone = places[id(tensor)] == 1 and storages[tensor.untyped_storage().data_ptr()] == 1
            if learned and alone and not watched and state.get(name) is tensor:
                layers[name] = module
    return layers


def _is_plain(module: nn.Module) -> bool:
    """Whether a module computes what the layer of torch that it is derived from does, with those tensors."""
    of_torch = any(isinstance(module, layer) and type(module).forward is layer.forward for layer in _LAYERS)
    odd = "forward" in vars(module) or any(module.children()) or isinstance(module, _OF_ATTENTION)
    return of_torch and not odd


def _shrink(live: LiveNetwork, layers: Mapping[str, nn.Module]) -> None:
    """Put what is kept into the copy that `live` has of the plain network."""
    gathered = live.gather(tensors_of(live.network))
    for name in layers:
        path, _, attribute = name.rpartition(".")
        module = live.network.get_submodule(path)
        tensor = getattr(module, attribute)
        if gathered[name].shape == tensor.shape:
            tensor.copy_(gathered[name])
        elif isinstance(tensor, nn.Parameter):
            setattr(module, attribute, nn.Parameter(gathered[name].clone()))
        else:
            setattr(module, attribute, gathered[name].clone())
    for module in {live.network.get_submodule(name.rpartition(".")[0]) for name in layers}:
        _say_sizes(module)


def _say_sizes(module: nn.Module) -> None:
    """The attributes in which a layer keeps the sizes of its tensors."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        outputs, inputs = module.weight.shape[:2]
        if module.groups > 1 and module.groups == module.in_channels == module.out_channels:
            module.groups = outputs
        module.out_channels, module.in_channels = outputs, inputs * module.groups
    elif isinstance(module, _BatchNorm):
        tensor = module.weight if module.affine else module.running_mean
        module.num_features = module.num_features if tensor is None else len(tensor)


def _agree(plain: nn.Module, smaller: nn.Module, inputs: Inputs) -> bool:
    """Whether two networks give the same outputs for these inputs, and the smaller one can be trained on them."""
    results = []
    for network in (plain, smaller):
        torch.default_generator.manual_seed(0)  # the CPU's alone: nobody forks the others
        with evaluation_mode(network):
            try:
                results.append(list(outputs_in(call(network, inputs))))
            except (RuntimeError, ValueError, TypeError, IndexError, AssertionError):
                if network is plain:
                    raise
                return False
    if [tensor.shape for tensor in results[0]] != [tensor.shape for tensor in results[1]]:
        return False
    if not all(map(_close, *results)):
        return False
    buffers = {name: tensor.clone() for name, tensor in smaller.named_buffers()}
    smaller.train()
    try:
        call_with(smaller, buffers, inputs)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError):
        return False
    return True


def _close(one: Tensor, other: Tensor) -> bool:
    if not one.is_floating_point():
        return torch.equal(one, other)
    tolerance = min(1e3 * torch.finfo(one.dtype).eps, 0.05)
    scale = float(one.abs().nan_to_num().max()) if one.numel() else 0.0
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance * scale, equal_nan=True)


def _all(tensor: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.arange(size) for size in tensor.shape[:2])


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())

"""Channel dependency graph: which channels of a network belong together, which are constant, and which are read.

The network's operations are those of a torch.fx graph, with the shapes of its tensors, as `make_fx` traces it on
example inputs: operations of ATen, the same whether a network spells them as modules, functions or methods. Each tensor
is followed along one dimension, the one that holds the channels of the layer it comes from. Indices along dimensions of
parameters and activations that can only go together carry the same label (the dependency graph of Fang et al.,
DepGraph, CVPR 2023, down to single indices). What this module does not know is a barrier: channels that reach it stay.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from evocompress.errors import ModelError

__all__ = ["ChannelGraph", "Live"]

Labels: TypeAlias = npt.NDArray[np.int64]
Constants: TypeAlias = npt.NDArray[np.float64]
_Key: TypeAlias = tuple[str, int]  # a tensor's name in the state dict, and a dimension

_SAME = {"clone.default", "alias.default", "detach.default"}
_ELEMENTWISE = {
    f"{name}.default"
    for name in (
        "abs clamp clamp_max clamp_min elu gelu hardsigmoid hardswish hardtanh leaky_relu mish neg relu sigmoid silu "
        "softplus tanh"
    ).split()
} | {"add.Scalar", "div.Scalar", "mul.Scalar", "pow.Tensor_Scalar", "sub.Scalar"}
_BINARY = {"add.Tensor", "div.Tensor", "maximum.default", "minimum.default", "mul.Tensor", "sub.Tensor"}
#: Noise of the shape of a tensor, and values made of it: dropout.
_RANDOM = {"bernoulli.float", "bernoulli.p", "empty_like.default", "rand_like.default"}
#: Operations on the last dimensions, and on how many of them, that keep a constant what it is.
_SPATIAL = {
    **{f"max_pool{n}d_with_indices.default": n for n in (2, 3)},
    **{f"adaptive_max_pool{n}d.default": n for n in (2, 3)},
    **{f"_adaptive_avg_pool{n}d.default": n for n in (2, 3)},
    **{f"{kind}_pad{n}d.default": n for kind in ("reflection", "replication") for n in (1, 2, 3)},
    **{f"upsample_nearest{n}d.vec": n for n in (1, 2, 3)},
    "upsample_bilinear2d.vec": 2,
}
_AVERAGES = {"avg_pool2d.default": 2, "avg_pool3d.default": 3}
_REDUCTIONS = {"amax.default", "amin.default", "mean.dim", "sum.dim_IntList"}
_RESHAPES = {
    "_unsafe_view.default",
    "reshape.default",
    "squeeze.default",
    "squeeze.dim",
    "squeeze.dims",
    "unsqueeze.default",
    "view.default",
}
_WITH_PARAMETERS = {"addmm.default", "convolution.default", "mm.default", "native_batch_norm.default", "t.default"}


class _UnknownUse(Exception):
    """Channels are used in a way that this module cannot follow: a barrier."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Channels:
    """A tensor's channels: the dimension they are in, the label of each, and its value where that is a constant.

    A constant has the same value in every example and place; NaN: the channel is none, or nobody knows.
    """

    dim: int
    labels: Labels
    constants: Constants


@dataclasses.dataclass(frozen=True)
class _Parameter:
    name: str
    transposed: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class _Reader:
    """One use of a weight matrix or convolution: which channels its columns read, and the constants among them."""

    weight: str
    bias: str | None
    constants: Constants
    padded: bool


class _Channel(NamedTuple):
    """A channel by its label's root, and everywhere that it lies: tensor and dimension, and the index there."""

    root: int
    places: list[tuple[_Key, int]]


@dataclasses.dataclass(frozen=True, eq=False)
class Live:
    """What remains of a network.

    Attributes:
        kept: The indices that remain along dimensions of tensors of the state dict; what is not there remains whole.
        folded: For weights that read constant channels which go: the name of the layer's bias and the constants by
            column, (columns,). The columns that go, times these, belong to the bias.
        order: All indices along these dimensions, in an order in which the network computes the same, and in which of
            channels that may change places those that remain come first.
    """

    kept: Mapping[_Key, Labels]
    folded: Mapping[str, tuple[str, Constants]]
    order: Mapping[_Key, Labels]


class ChannelGraph:
    """Channels of a network, found in one or several graphs of it, such as in training and in evaluation mode.

    Args:
        tensors: Parameters and buffers by name.
        cuttable: Names of those that may be cut; all the others stay as they are.
        reshaping: Whether channels are followed through a reshaping that merges or splits their dimension. A network's
            code may spell out a size there that would have to change.
    """

    def __init__(self, tensors: Mapping[str, Tensor], cuttable: Collection[str], *, reshaping: bool = True) -> None:
        self._tensors, self._cuttable, self._reshaping = tensors, cuttable, reshaping
        self._parents: list[int] = []
        self._staying: set[int] = set()  # labels that must stay
        self._fixed: set[str] = set()  # tensors that somebody uses in an unknown way
        self._labels: dict[_Key, Labels] = {}
        self._users: dict[str, set[str]] = {}  # for each bias the weights that it belongs to
        self._readers: list[_Reader] = []
        self._whole: set[_Key] = set()  # dimensions that some use needs in full
        self._values: dict[fx.Node, _Channels | _Parameter | None] = {}

    def add(self, graph: fx.Graph, names: Sequence[str]) -> None:
        """Follow the channels through a graph whose first placeholders are the tensors of these names.

        Raises:
            ModelError: A tensor is changed in place of which there are views: they change, too, and the graph does not
                say so.
        """
        self._values = {}
        placeholders = iter(names)
        for node in graph.nodes:
            _refuse_changed_views(node)
            if node.op == "placeholder":
                name = next(placeholders, None)
                self._values[node] = None if name is None else _Parameter(name)
            elif node.op == "call_function":
                self._values[node] = self._follow(node)
            else:
                self._stop(node)
                self._values[node] = None
        self._values = {}

    def live(self, *, fold: bool = True) -> Live:
        """What remains: all that somebody reads on the way to an output, and one channel of every layer.

        Reading a channel that is always zero counts for nothing. Nor does, with `fold`, reading another constant, where
        it can be folded into the reader's bias: a convolution must not pad then, or it is another constant at the
        borders.
        """
        roots = {key: self._roots(labels) for key, labels in self._labels.items()}
        living = np.zeros(len(self._parents), bool)
        living[self._roots(np.array(sorted(self._staying), np.int64))] = True
        for key in self._in_full() & set(roots):
            living[roots[key]] = True
        constants = self._foldable(fold)
        reads = {
            weight: self._nonzero(weight) & np.isnan(values)
            for weight, values in constants.items()
            if (weight, 1) in roots
        }
        self._spread(living, reads, roots)
        for labels in roots.values():
            if len(labels) and not living[labels].any():
                living[labels[0]] = True
                self._spread(living, reads, roots)
        kept = {key: np.flatnonzero(living[labels]) for key, labels in roots.items()}
        folded = {}
        for reader in self._readers:
            values = np.nan_to_num(constants[reader.weight])
            if reader.bias is not None and (reader.weight, 1) in kept:
                values[kept[reader.weight, 1]] = 0
                if values.any():
                    folded[reader.weight] = reader.bias, values
        return Live(kept, folded, self._live_first(roots, living))

    def _live_first(self, roots: Mapping[_Key, Labels], living: npt.NDArray[np.bool_]) -> dict[_Key, Labels]:
        """An order along each dimension: of channels that lie alike in the same tensors those that live come first."""
        order = {key: np.arange(len(labels)) for key, labels in roots.items()}
        for channels in self._alike(roots):
            sources = sorted(channels, key=lambda channel: not living[channel.root])  # stable: they keep their order
            for target, source in zip(channels, sources, strict=True):
                for (key, to), (_, at) in zip(target.places, source.places, strict=True):
                    order[key][to] = at
        return order

    def _alike(self, roots: Mapping[_Key, Labels]) -> list[list[_Channel]]:
        """Channels that may change places with each other; those that must stay are in none of these lists."""
        places: dict[int, list[tuple[_Key, int]]] = {}
        for key in sorted(roots):
            for place, root in enumerate(roots[key].tolist()):
                places.setdefault(root, []).append((key, place))
        staying, whole = set(self._roots(np.array(sorted(self._staying), np.int64)).tolist()), self._in_full()
        alike: dict[tuple[_Key, ...], list[_Channel]] = {}
        for root, root_places in places.items():
            names = {name for (name, _), _ in root_places}
            if root not in staying and names <= set(self._cuttable) and not any(key in whole for key, _ in root_places):
                alike.setdefault(tuple(key for key, _ in root_places), []).append(_Channel(root, root_places))
        return list(alike.values())

    def drawn(self, share: float, random: np.random.Generator) -> dict[_Key, Labels]:
        """Indices of channels without a share, drawn at random, of those that may change places; one always remains."""
        roots = {key: self._roots(labels) for key, labels in self._labels.items()}
        gone: dict[_Key, list[int]] = {}
        for channels in self._alike(roots):
            count = max(round(share * len(channels)), 1)
            for place in sorted(random.permutation(len(channels))[count:].tolist()):
                for key, at in channels[place].places:
                    gone.setdefault(key, []).append(at)
        return {key: np.array(sorted(indices)) for key, indices in gone.items()}

    def _in_full(self) -> set[_Key]:
        """Dimensions that some use needs in full."""
        return self._whole | {(name, dim) for name in self._fixed for dim in range(self._tensors[name].ndim)}

    @staticmethod
    def _spread(living: npt.NDArray[np.bool_], reads: Mapping[str, npt.NDArray[np.bool_]], roots: Any) -> None:
        """Let live, in place, what living rows read."""
        before = -1
        while before != (before := int(living.sum())):
            for weight, matrix in reads.items():
                rows = living[roots[weight, 0]]
                living[roots[weight, 1][matrix[rows].any(0)]] = True

    def _foldable(self, fold: bool) -> dict[str, Constants]:
        """For each weight the values, by column, of channels that it need not read; NaN: it must."""
        constants: dict[str, Constants] = {}
        biases: dict[str, set[str | None]] = {}
        for reader in self._readers:
            biases.setdefault(reader.weight, set()).add(reader.bias)
        for reader in self._readers:
            values = reader.constants
            alone = len(biases[reader.weight]) == 1 and self._users.get(str(reader.bias)) == {reader.weight}
            if not fold or reader.padded or not alone or reader.bias in self._fixed:
                values = np.where(values == 0, 0, np.nan)
            earlier = constants.get(reader.weight, values)
            constants[reader.weight] = np.where(earlier == values, values, np.nan)
        return constants

    # Labels: a forest of disjoint sets (Galler and Fischer, 1964).

    def _fresh(self, count: int) -> Labels:
        start = len(self._parents)
        self._parents += range(start, start + count)
        return np.arange(start, start + count)

    def _root(self, label: int) -> int:
        while self._parents[label] != label:
            self._parents[label] = label = self._parents[self._parents[label]]
        return label

    def _roots(self, labels: Labels) -> Labels:
        return np.array([self._root(label) for label in labels.tolist()], np.int64)

    def _tie(self, one: Labels, other: Labels) -> None:
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            self._parents[self._root(a)] = self._root(b)

    def _stay(self, labels: Labels) -> None:
        self._staying |= set(labels.tolist())

    def _register(self, name: str, dim: int, labels: Labels, *, user: str = "") -> None:
        """Give the indices of a tensor along a dimension these labels; what it had before is tied to them."""
        if (name, dim) in self._labels:
            self._tie(self._labels[name, dim], labels)
        self._labels[name, dim] = labels
        self._users.setdefault(name, set()).add(user)

    # Operations.

    def _follow(self, node: fx.Node) -> _Channels | _Parameter | None:
        name = _name(node)
        if name not in _WITH_PARAMETERS:
            self._fix(node)
        inputs = [self._values[argument] for argument in node.all_input_nodes]
        if not any(inputs):
            return None
        try:
            return self._operation(name)(node)
        except _UnknownUse:
            self._stop(node)
            return None

    def _operation(self, name: str) -> Callable[[fx.Node], _Channels | _Parameter | None]:
        kinds: tuple[tuple[Collection[str], Callable[[fx.Node], _Channels | _Parameter | None]], ...] = (
            ({"convolution.default"}, self._convolution),
            ({"addmm.default", "mm.default"}, self._linear),
            ({"t.default"}, self._transposed_matrix),
            ({"native_batch_norm.default"}, self._batch_norm),
            (_SAME | _RANDOM | {"_to_copy.default", "native_dropout.default"}, self._copy),
            (_ELEMENTWISE, self._elementwise),
            (_BINARY, self._binary),
            (_SPATIAL, self._spatial),
            (_AVERAGES, self._average),
            (_REDUCTIONS, self._reduction),
            (_RESHAPES, self._reshape),
            ({"permute.default", "transpose.int"}, self._permute),
            ({"slice.Tensor"}, self._slice),
            ({"constant_pad_nd.default"}, self._pad),
            ({"cat.default"}, self._concatenate),
            ({str(operator.getitem)}, self._item),
        )
        return next((function for names, function in kinds if name in names), self._unknown)

    def _unknown(self, node: fx.Node) -> None:
        raise _UnknownUse

    def _fix(self, node: fx.Node) -> None:
        values = [self._values[argument] for argument in node.all_input_nodes]
        self._fixed |= {value.name for value in values if isinstance(value, _Parameter)}

    def _stop(self, node: fx.Node) -> None:
        """A barrier: what reaches it stays."""
        self._fix(node)
        for argument in node.all_input_nodes:
            if isinstance(channels := self._values[argument], _Channels):
                self._stay(channels.labels)

    def _channels(self, argument: Any) -> _Channels:
        value = self._values[argument] if isinstance(argument, fx.Node) else None
        if not isinstance(value, _Channels):
            raise _UnknownUse
        return value

    def _named(self, argument: Any, *, transposed: bool = False) -> str | None:
        """The name of a tensor that may be cut; None for none."""
        if argument is None:
            return None
        value = self._values[argument]
        if not isinstance(value, _Parameter) or value.transposed != transposed or value.name not in self._cuttable:
            raise _UnknownUse
        return value.name

    def _vector(self, name: str | None, default: float, count: int) -> Constants:
        return np.full(count, default) if name is None else self._tensors[name].detach().double().numpy()

    def _nonzero(self, weight: str) -> npt.NDArray[np.bool_]:
        """(rows, columns): whether any weight of the kernel is not zero."""
        is_nonzero: npt.NDArray[np.bool_] = _kernels(self._tensors[weight] != 0).any(2).numpy()
        return is_nonzero

    def _summed(self, weight: str) -> Constants:
        """(rows, columns): the sum of each kernel."""
        sums: Constants = _kernels(self._tensors[weight].detach().double()).sum(2).numpy()
        return sums

    def _read(self, inputs: Any, weight: str | None, bias: str | None, *, padded: bool) -> _Channels:
        """A linear layer or convolution of all channels: what it puts out along dimension 1."""
        if weight is None or self._tensors[weight].ndim < 2:
            raise _UnknownUse
        rows, columns = self._tensors[weight].shape[:2]
        value = self._values[inputs]
        if isinstance(value, _Parameter) or (value is not None and (value.dim != 1 or len(value.labels) != columns)):
            raise _UnknownUse
        labels = self._labels[weight, 0] if (weight, 0) in self._labels else self._fresh(rows)
        self._register(weight, 0, labels)
        if bias is not None:
            self._register(bias, 0, labels, user=weight)
        if value is None:
            self._whole.add((weight, 1))
            input_constants = np.full(columns, np.nan)
        else:
            self._register(weight, 1, value.labels)
            input_constants = value.constants
            self._readers.append(_Reader(weight, bias, input_constants, padded))
        if padded:
            input_constants = np.where(input_constants == 0, 0, np.nan)
        constants = self._vector(bias, 0, rows) + self._summed(weight) @ np.nan_to_num(input_constants)
        constants[(self._nonzero(weight) & np.isnan(input_constants)).any(1)] = np.nan
        return _Channels(1, labels, constants)

    def _convolution(self, node: fx.Node) -> _Channels:
        inputs, weight_node, bias_node, _, padding, _, transposed, _, groups = node.args
        weight, bias = self._named(weight_node), self._named(bias_node)
        padded = any(_integers(padding))
        if transposed or weight is None:
            raise _UnknownUse
        if groups == 1:
            return self._read(inputs, weight, bias, padded=padded)
        channels = self._channels(inputs)
        count = len(channels.labels)
        if channels.dim != 1 or groups != count or tuple(self._tensors[weight].shape[:2]) != (count, 1):
            raise _UnknownUse
        for name in (weight,) if bias is None else (weight, bias):
            self._register(name, 0, channels.labels)
        input_constants = np.where(channels.constants == 0, 0, np.nan) if padded else channels.constants
        constants = self._summed(weight)[:, 0] * np.nan_to_num(input_constants)
        constants[self._nonzero(weight)[:, 0] & np.isnan(input_constants)] = np.nan
        return _Channels(1, channels.labels, constants + self._vector(bias, 0, count))

    def _linear(self, node: fx.Node) -> _Channels:
        *bias_node, inputs, weight_node = node.args
        bias = self._named(bias_node[0]) if bias_node else None
        if node.kwargs:
            raise _UnknownUse
        return self._read(inputs, self._named(weight_node, transposed=True), bias, padded=False)

    def _transposed_matrix(self, node: fx.Node) -> _Channels | _Parameter | None:
        value = self._values[node.all_input_nodes[0]]
        if isinstance(value, _Parameter):
            return dataclasses.replace(value, transposed=not value.transposed)
        return self._permute(node)

    def _batch_norm(self, node: fx.Node) -> _Channels:
        inputs, *tensor_nodes, training, _, eps = node.args
        channels = self._channels(inputs)
        names = [self._named(tensor) for tensor in tensor_nodes]
        if channels.dim != 1:
            raise _UnknownUse
        for name in names:
            if name is not None:
                self._register(name, 0, channels.labels)
        count = len(channels.labels)
        weight, bias, mean, variance = (
            self._vector(name, default, count) for name, default in zip(names, (1.0, 0.0, 0.0, 1.0), strict=True)
        )
        constants = bias + np.zeros(count)
        if not training:
            scale = weight / np.sqrt(variance + float(eps))  # type: ignore[arg-type]
            constants += scale * np.where(weight == 0, 0, channels.constants - mean)
        # In training a constant is its own mean, and the bias is what is left of it.
        constants[np.isnan(channels.constants) & (weight != 0)] = np.nan
        return _Channels(1, channels.labels, constants)

    def _copy(self, node: fx.Node) -> _Channels:
        channels = self._channels(node.args[0])
        name = _name(node)
        if name in _RANDOM:
            return dataclasses.replace(channels, constants=np.full(len(channels.labels), np.nan))
        return channels if name in _SAME else _zeros_only(channels)

    def _elementwise(self, node: fx.Node) -> _Channels:
        if len(node.all_input_nodes) != 1:
            raise _UnknownUse
        channels = self._channels(node.args[0])
        return dataclasses.replace(channels, constants=_evaluated(node, channels.constants))

    def _binary(self, node: fx.Node) -> _Channels:
        if not all(isinstance(argument, fx.Node) for argument in node.args):
            return self._elementwise(node)
        shape = _shape(node)
        operands: list[_Channels] = []
        others: list[fx.Node] = []
        for argument in node.args:
            assert isinstance(argument, fx.Node)
            value = self._values[argument]
            if isinstance(value, _Channels):
                dim = value.dim + len(shape) - len(_shape(argument))
                operands.append(dataclasses.replace(value, dim=dim))
            else:
                others.append(argument)
        if not operands:
            raise _UnknownUse
        channels = operands[0]
        if any(each.dim != channels.dim or len(each.labels) != shape[channels.dim] for each in operands):
            raise _UnknownUse
        for other in others:
            sizes = (1,) * (len(shape) - len(_shape(other))) + _shape(other)
            if sizes[channels.dim] != 1:
                raise _UnknownUse
        if len(operands) == 2:
            self._tie(operands[0].labels, operands[1].labels)
            constants = _evaluated(node, *(each.constants for each in operands))
        else:
            constants = np.full(len(channels.labels), np.nan)
        if _name(node) == "mul.Tensor":
            for each in operands:
                constants[each.constants == 0] = 0
        return dataclasses.replace(channels, constants=constants)

    def _spatial(self, node: fx.Node) -> _Channels:
        channels = self._channels(node.args[0])
        name = _name(node)
        if channels.dim >= len(_shape(node.args[0])) - (_SPATIAL | _AVERAGES)[name]:
            raise _UnknownUse
        return channels

    def _average(self, node: fx.Node) -> _Channels:
        channels = self._spatial(node)
        if any(any(_integers(argument)) for argument in node.args[3:5]) or node.args[6:] or node.kwargs:
            # Padding or rounding up: the borders may be another constant.
            return _zeros_only(channels)
        return channels

    def _reduction(self, node: fx.Node) -> _Channels:
        channels = self._channels(node.args[0])
        count = len(_shape(node.args[0]))
        dims = {dim % count for dim in _integers(node.args[1] if len(node.args) > 1 else [])} or set(range(count))
        if channels.dim in dims:
            raise _UnknownUse
        if len(_shape(node)) != count:
            channels = dataclasses.replace(channels, dim=channels.dim - sum(dim < channels.dim for dim in dims))
        return _zeros_only(channels) if _name(node) == "sum.dim_IntList" else channels

    def _reshape(self, node: fx.Node) -> _Channels:
        channels = self._channels(node.args[0])
        old, new = _shape(node.args[0]), _shape(node)
        if len(channels.labels) < 2 or 0 in old:
            raise _UnknownUse  # a single channel would be found along any dimension
        inside, outside, start = _group(old, new, channels.dim)
        shape = [old[dim] for dim in inside]
        alone = [size if dim == channels.dim else 1 for dim, size in zip(inside, shape, strict=True)]

        def reshaped(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return np.broadcast_to(values.reshape(alone), shape).reshape(outside)

        labels = reshaped(channels.labels)
        for axis, size in enumerate(outside):
            along = labels[tuple(slice(None) if a == axis else slice(1) for a in range(labels.ndim))]
            if size > 1 and (labels == along).all():
                if size != len(channels.labels) and not self._reshaping:
                    raise _UnknownUse
                others = tuple(a for a in range(labels.ndim) if a != axis)
                values = reshaped(channels.constants)
                least, most = values.min(others), values.max(others)  # NaN if any is
                return _Channels(start + axis, along.reshape(-1), np.where(least == most, least, np.nan))
        raise _UnknownUse

    def _permute(self, node: fx.Node) -> _Channels:
        channels = self._channels(node.args[0])
        order = list(range(len(_shape(node.args[0]))))
        if _name(node) == "permute.default":
            order = [dim % len(order) for dim in _integers(node.args[1])]
        else:
            first, second = _integers(node.args[1:]) if len(node.args) > 1 else (0, 1)
            order[first], order[second] = order[second], order[first]
        return dataclasses.replace(channels, dim=order.index(channels.dim))

    def _slice(self, node: fx.Node) -> _Channels:
        channels = self._channels(node.args[0])
        dim = _integers(node.args[1])[0] % len(_shape(node)) if len(node.args) > 1 else 0
        if dim == channels.dim and _shape(node)[dim] != len(channels.labels):
            raise _UnknownUse
        return channels

    def _pad(self, node: fx.Node) -> _Channels:
        channels = self._channels(node.args[0])
        amounts, value = _integers(node.args[1]), float(node.args[2]) if len(node.args) > 2 else 0.0  # type: ignore[arg-type]
        ends = len(_shape(node)) - 1 - channels.dim
        before, after = (amounts[2 * ends], amounts[2 * ends + 1]) if 2 * ends < len(amounts) else (0, 0)
        if before < 0 or after < 0:
            raise _UnknownUse
        constants = channels.constants
        if any(amount for place, amount in enumerate(amounts) if place // 2 != ends):
            constants = np.where(constants == value, constants, np.nan)
        # The padding puts as many channels to either side, however many there are between: they stay.
        labels = self._fresh(before), self._fresh(after)
        for added in labels:
            self._stay(added)
        padding = np.full(before, value), np.full(after, value)
        return _Channels(
            channels.dim,
            np.concatenate([labels[0], channels.labels, labels[1]]),
            np.concatenate([padding[0], constants, padding[1]]),
        )

    def _concatenate(self, node: fx.Node) -> _Channels:
        parts = [self._channels(part) for part in node.args[0]]  # type: ignore[union-attr]
        dim = _integers(node.args[1])[0] % len(_shape(node)) if len(node.args) > 1 else 0
        if any(part.dim != dim for part in parts):
            raise _UnknownUse
        return _Channels(dim, np.concatenate([p.labels for p in parts]), np.concatenate([p.constants for p in parts]))

    def _item(self, node: fx.Node) -> _Channels | None:
        channels = self._channels(node.args[0])
        if node.args[1] == 0:
            return channels
        if node.users:  # indices of a pooling, moments of a normalisation
            raise _UnknownUse
        return None


def _name(node: fx.Node) -> str:
    """An operation's name and overload, the same where it works in place."""
    name, _, overload = str(node.target).removeprefix("aten.").partition(".")
    return f"{name.removesuffix('_')}.{overload}" if overload else name


def _kernels(weight: Tensor) -> Tensor:
    """(rows, columns, elements of a kernel)."""
    return weight.reshape(*weight.shape[:2], -1)


def _refuse_changed_views(node: fx.Node) -> None:
    schema = getattr(node.target, "_schema", None)
    for argument, value in zip(schema.arguments if schema is not None else (), node.args, strict=False):
        if argument.is_write and isinstance(value, fx.Node) and _has_other_views(value):
            raise ModelError(f"{node.target} changes a tensor in place of which there are views")


def _has_other_views(node: fx.Node) -> bool:
    """Whether a tensor's memory is another's, too, which somebody uses."""
    if any(map(_is_view, node.users)):
        return True
    while _is_view(node):
        base = node.args[0]
        if not isinstance(base, fx.Node) or len(base.users) > 1:
            return True
        node = base
    return False


def _is_view(node: fx.Node) -> bool:
    if node.target is operator.getitem:
        return isinstance(node.args[0], fx.Node) and _is_view(node.args[0])
    schema = getattr(node.target, "_schema", None)
    aliases = [result.alias_info for result in (schema.returns if schema is not None else ())]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _shape(node: Any) -> tuple[int, ...]:
    meta = node.meta.get("tensor_meta", node.meta.get("val"))
    if not hasattr(meta, "shape"):
        raise _UnknownUse
    return tuple(meta.shape)


def _integers(argument: Any) -> list[int]:
    values: Iterable[Any] = argument if isinstance(argument, list | tuple) else (argument,)
    return [int(value) for value in values if value is not None]


def _zeros_only(channels: _Channels) -> _Channels:
    return dataclasses.replace(channels, constants=np.where(channels.constants == 0, 0, np.nan))


def _evaluated(node: fx.Node, *constants: Constants) -> Constants:
    """What an elementwise operation makes of constants."""
    tensors = [torch.tensor(values) for values in constants]  # copies: the operation may be one in place
    assert callable(node.target)
    result = node.target(*tensors, *node.args[len(tensors) :], **node.kwargs).double()
    values: Constants = result.where(result.isfinite(), math.nan).numpy()
    return values


def _group(old: Sequence[int], new: Sequence[int], dim: int) -> tuple[list[int], list[int], int]:
    """The smallest run of dimensions around `dim` that a reshaping turns into dimensions of its own.

    Returns:
        The old dimensions, the sizes of the new ones, and the first of the new ones.
    """
    i = j = 0
    while i < len(old):
        first_old, first_new = i, j
        i, j = i + 1, min(j + 1, len(new))
        while (inside := math.prod(old[first_old:i])) != (outside := math.prod(new[first_new:j])):
            if inside < outside and i < len(old):
                i += 1
            elif j < len(new):
                j += 1
            else:
                raise _UnknownUse
        if i == len(old) or all(size == 1 for size in old[i:]):
            i, j = len(old), len(new)
        if first_old <= dim < i:
            return list(range(first_old, i)), list(new[first_new:j]), first_new
    raise _UnknownUse

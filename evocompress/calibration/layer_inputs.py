"""What layers see of their inputs and gradients: one function for each kind; convolution_inputs.py has those of images.

Such a function reports, for each of the layer's weight matrices (O, K), rows whose products make up H, (groups, n, K),
and, where it can, the sum of squared output gradients of each row of weights, (O,).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from evocompress.calibration.convolution_inputs import (
    Add,
    Call,
    batched,
    convolution,
    linear_conv,
    narrow,
    over_provisioned,
    patches,
)
from evocompress.ideas.connections.overprovisioned import OverProvisionedConv2d
from evocompress.ideas.linearconv.linear_conv import LinearConv2d

__all__ = ["input_rows", "observer"]

_Observer: TypeAlias = Callable[[Any, Call, Add], None]


def observer(module: nn.Module) -> _Observer | None:
    """The function for a module; None for kinds without one, and for subclasses that compute in a way of their own."""
    for kind, look in _OBSERVERS.items():
        if isinstance(module, kind) and type(module).forward is kind.forward:
            return look
    return None


def input_rows(module: nn.Module, inputs: Tensor, every: int = 1) -> Tensor:
    """What each output of a convolution or linear layer sees of its inputs: rows (groups, n, K) of H.

    Of a convolution's positions only so many-th are taken: neighbours see nearly the same.
    """
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return patches(module, batched(module, inputs), every)
    return _rows(inputs)


def _linear(module: nn.Linear, call: Call, add: Add) -> None:
    if not narrow(module.weight):
        return
    inputs = call.first.detach().float()

    def backward(gradients: Tensor) -> None:
        add(module.weight, _rows(inputs), gradients.float().reshape(-1, gradients.shape[-1]).square().sum(dim=0))

    call.output.register_hook(backward)


def _rows(*inputs: Tensor) -> Tensor:
    """Inputs (…, K), one group each, as (groups, n, K)."""
    return torch.stack([x.detach().float().reshape(-1, x.shape[-1]) for x in inputs])


def _embedding(module: nn.Embedding, call: Call, add: Add) -> None:
    """A token's row is the output itself: g says how much of the gradients each token gets, and H is a multiple of 1.

    The gradients' second moment, which would be H, differs from token to token: with one for all, errors go where some
    other token minds them (on all-MiniLM-L6-v2 it is worse than none at all).
    """
    if not narrow(module.weight):
        return
    tokens = call.first.detach().reshape(-1)

    def backward(gradients: Tensor) -> None:
        squares = gradients.float().reshape(len(tokens), -1).square().sum(dim=1)
        size = module.weight.shape[1]
        rows = torch.eye(size, device=squares.device) * torch.sqrt(squares.sum() / size)
        add(
            module.weight, rows[None], squares.new_zeros(len(module.weight)).index_add_(0, tokens, squares), len(tokens)
        )

    call.output.register_hook(backward)


def _attention(module: nn.MultiheadAttention, call: Call, add: Add) -> None:
    given = inspect.signature(nn.MultiheadAttention.forward).bind(module, *call.args, **call.kwargs).arguments
    query, key, value = given["query"], given["key"], given["value"]
    if module._qkv_same_embed_dim:
        same = query is key and key is value
        add(module.in_proj_weight, _rows(query) if same else _stacked(query, key, value))
    else:
        add(module.q_proj_weight, _rows(query))
        add(module.k_proj_weight, _rows(key))
        add(module.v_proj_weight, _rows(value))
    # The output's projection is no call of its own; with an identity in its place the module returns what goes into it.
    weight = module.out_proj.weight
    plain = {"out_proj.weight": torch.eye(len(weight), dtype=weight.dtype, device=weight.device)}
    if module.out_proj.bias is not None:
        plain["out_proj.bias"] = torch.zeros_like(module.out_proj.bias)
    with torch.no_grad():
        inputs = functional_call(module, plain, call.args, dict(call.kwargs))[0]

    def backward(gradients: Tensor) -> None:
        add(weight, _rows(inputs), gradients.float().reshape(-1, gradients.shape[-1]).square().sum(dim=0))

    call.output[0].register_hook(backward)


def _stacked(*inputs: Tensor) -> Tensor:
    """As `_rows`, for inputs of different lengths: zeros change no product."""
    longest = max(x.numel() // x.shape[-1] for x in inputs)
    rows = [_rows(x)[0] for x in inputs]
    return torch.stack([nn.functional.pad(x, (0, 0, 0, longest - len(x))) for x in rows])


def _recurrent(module: nn.RNNBase, call: Call, add: Add) -> None:
    """Each layer is run again for what the next one sees; g is left to the weights' own gradients."""
    x, given = call.first, call.args[1] if len(call.args) > 1 else call.kwargs.get("hx")
    states: tuple[Tensor, ...] | None = given if given is None or isinstance(given, tuple) else (given,)
    directions = 2 if module.bidirectional else 1
    with torch.no_grad():
        for layer in range(module.num_layers):
            here = slice(directions * layer, directions * (layer + 1))
            begin = None if states is None else [state[here] for state in states]
            single = _one_layer(module, layer)
            output = single(x, begin and (tuple(begin) if len(begin) > 1 else begin[0]))[0]
            for direction in range(directions):
                suffix = f"l{layer}" + ("_reverse" if direction else "")
                add(getattr(module, f"weight_ih_{suffix}"), _rows(x.data if isinstance(x, PackedSequence) else x))
                before = _before(output, module.batch_first, direction, directions)
                if begin:
                    before = torch.cat([before, _rows(begin[0][direction])], dim=1)
                add(getattr(module, f"weight_hh_{suffix}"), before)
            x = output


def _before(output: Tensor | PackedSequence, batch_first: bool, direction: int, directions: int) -> Tensor:
    """What a direction's recurrent weights see, (1, n, K): the outputs but for those of the last step."""
    if isinstance(output, PackedSequence):
        output, batch_first = pad_packed_sequence(output)[0], False
    time = 1 if batch_first and output.ndim == 3 else 0
    steps = output.narrow(time, direction, output.shape[time] - 1)
    return _rows(steps.chunk(directions, dim=-1)[direction])


def _one_layer(module: nn.RNNBase, layer: int) -> nn.RNNBase:
    """A module of the same kind that holds copies of one layer's weights."""
    first: Tensor = getattr(module, f"weight_ih_l{layer}")
    options: dict[str, Any] = {"bidirectional": module.bidirectional, "bias": module.bias, "dtype": first.dtype}
    options["batch_first"] = module.batch_first
    if isinstance(module, nn.RNN):
        options["nonlinearity"] = module.mode.removeprefix("RNN_").lower()
    if isinstance(module, nn.LSTM):
        options["proj_size"] = module.proj_size
    kind = next(kind for kind in (nn.LSTM, nn.GRU, nn.RNN) if isinstance(module, kind))
    # On the meta device nothing is drawn for weights that are overwritten anyway.
    single = kind(first.shape[1], module.hidden_size, device="meta", **options).to_empty(device=first.device)
    for name, parameter in single.named_parameters():
        parameter.copy_(module.get_parameter(name.replace("_l0", f"_l{layer}")))
    return single.eval()


def _cell(module: nn.RNNCellBase, call: Call, add: Add) -> None:
    given = call.args[1] if len(call.args) > 1 else call.kwargs.get("hx")
    add(module.weight_ih, _rows(call.first))
    hidden = given[0] if isinstance(given, tuple) else given
    if hidden is not None:
        add(module.weight_hh, _rows(hidden))


_OBSERVERS: dict[type[nn.Module], _Observer] = {
    nn.Conv1d: convolution,
    nn.Conv2d: convolution,
    LinearConv2d: linear_conv,
    OverProvisionedConv2d: over_provisioned,
    nn.Linear: _linear,
    nn.Embedding: _embedding,
    nn.MultiheadAttention: _attention,
    nn.LSTM: _recurrent,
    nn.GRU: _recurrent,
    nn.RNN: _recurrent,
    nn.LSTMCell: _cell,
    nn.GRUCell: _cell,
    nn.RNNCell: _cell,
}

"""Recurrent layers (LSTM, GRU and plain ones, with several layers and both directions), and recurrent cells."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from evocompress.calibration.layer_views.base import LayerViewBase, flat_rows
from evocompress.protocols import Add, Call

__all__ = ["RecurrentCellView", "RecurrentView"]


class RecurrentView(LayerViewBase):
    """Each layer is run again for what the next one sees; g is left to the weights' own gradients."""

    kinds = (nn.LSTM, nn.GRU, nn.RNN)

    def observe(self, module: nn.RNNBase, call: Call, add: Add) -> None:
        """Report the matrices of all layers and directions."""
        x, hidden = call.first, call.args[1] if len(call.args) > 1 else call.kwargs.get("hx")
        states: tuple[Tensor, ...] | None = hidden if hidden is None or isinstance(hidden, tuple) else (hidden,)
        directions = 2 if module.bidirectional else 1
        with torch.no_grad():
            for layer in range(module.num_layers):
                layer_states = slice(directions * layer, directions * (layer + 1))
                begin = None if states is None else [state[layer_states] for state in states]
                single = _one_layer(module, layer)
                output = single(x, begin and (tuple(begin) if len(begin) > 1 else begin[0]))[0]
                for direction in range(directions):
                    suffix = f"l{layer}" + ("_reverse" if direction else "")
                    add(
                        getattr(module, f"weight_ih_{suffix}"),
                        flat_rows(x.data if isinstance(x, PackedSequence) else x),
                    )
                    before = _previous_outputs(output, module.batch_first, direction, directions)
                    if begin:
                        before = torch.cat([before, flat_rows(begin[0][direction])], dim=1)
                    add(getattr(module, f"weight_hh_{suffix}"), before)
                x = output


def _previous_outputs(output: Tensor | PackedSequence, batch_first: bool, direction: int, directions: int) -> Tensor:
    """What a direction's recurrent weights see, (1, n, K): the outputs but for those of the last step."""
    if isinstance(output, PackedSequence):
        output, batch_first = pad_packed_sequence(output)[0], False
    time = 1 if batch_first and output.ndim == 3 else 0
    steps = output.narrow(time, direction, output.shape[time] - 1)
    return flat_rows(steps.chunk(directions, dim=-1)[direction])


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


class RecurrentCellView(LayerViewBase):
    """Rows of H are the inputs and the hidden states; g is left to the weights' own gradients."""

    kinds = (nn.LSTMCell, nn.GRUCell, nn.RNNCell)

    def observe(self, module: nn.RNNCellBase, call: Call, add: Add) -> None:
        """Report both matrices."""
        state = call.args[1] if len(call.args) > 1 else call.kwargs.get("hx")
        add(module.weight_ih, flat_rows(call.first))
        hidden = state[0] if isinstance(state, tuple) else state
        if hidden is not None:
            add(module.weight_hh, flat_rows(hidden))

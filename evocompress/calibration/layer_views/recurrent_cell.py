"""Recurrent cells, which networks call step by step."""

from __future__ import annotations

from torch import nn

from evocompress.calibration.layer_views.base import LayerViewBase, flat_rows
from evocompress.protocols import Add, Call

__all__ = ["RecurrentCellView"]


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

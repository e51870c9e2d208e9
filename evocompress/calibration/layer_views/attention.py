"""Multi-head attention of torch: the projections of query, key and value, and that of the output."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn
from torch.func import functional_call

from evocompress.calibration.layer_views.base import LayerViewBase, flat_rows
from evocompress.protocols import Add, Call

__all__ = ["AttentionView"]


class AttentionView(LayerViewBase):
    """Rows of H are what each projection takes in."""

    kinds = (nn.MultiheadAttention,)

    def observe(self, module: nn.MultiheadAttention, call: Call, add: Add) -> None:
        """Report all projections."""
        arguments = inspect.signature(nn.MultiheadAttention.forward).bind(module, *call.args, **call.kwargs).arguments
        query, key, value = arguments["query"], arguments["key"], arguments["value"]
        if module._qkv_same_embed_dim:
            is_self_attention = query is key and key is value
            add(module.in_proj_weight, flat_rows(query) if is_self_attention else _stacked(query, key, value))
        else:
            add(module.q_proj_weight, flat_rows(query))
            add(module.k_proj_weight, flat_rows(key))
            add(module.v_proj_weight, flat_rows(value))
        # The output's projection is no call of its own; with an identity there the module returns what goes into it.
        weight = module.out_proj.weight
        plain = {"out_proj.weight": torch.eye(len(weight), dtype=weight.dtype, device=weight.device)}
        if module.out_proj.bias is not None:
            plain["out_proj.bias"] = torch.zeros_like(module.out_proj.bias)
        with torch.no_grad():
            inputs = functional_call(module, plain, call.args, dict(call.kwargs))[0]

        def backward(gradients: Tensor) -> None:
            add(weight, flat_rows(inputs), gradients.float().reshape(-1, gradients.shape[-1]).square().sum(dim=0))

        call.output[0].register_hook(backward)


def _stacked(*inputs: Tensor) -> Tensor:
    """As `flat_rows`, for inputs of different lengths: zeros change no product."""
    longest = max(x.numel() // x.shape[-1] for x in inputs)
    rows = [flat_rows(x)[0] for x in inputs]
    return torch.stack([nn.functional.pad(x, (0, 0, 0, longest - len(x))) for x in rows])

"""Embeddings: a row of the matrix for each token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evocompress.calibration.layer_views.base import LayerViewBase, narrow
from evocompress.protocols import Add, Call

__all__ = ["EmbeddingView"]


class EmbeddingView(LayerViewBase):
    """A token's row is the output itself: g says how much of the gradients each token gets, H is a multiple of 1.

    The gradients' second moment, which would be H, differs from token to token: with one for all, errors go where some
    other token minds them (on all-MiniLM-L6-v2 it is worse than none at all).
    """

    kinds = (nn.Embedding,)

    def observe(self, module: nn.Embedding, call: Call, add: Add) -> None:
        """Report the table."""
        if not narrow(module.weight):
            return
        tokens = call.first.detach().reshape(-1)

        def backward(gradients: Tensor) -> None:
            squares = gradients.float().reshape(len(tokens), -1).square().sum(dim=1)
            size = module.weight.shape[1]
            rows = torch.eye(size, device=squares.device) * torch.sqrt(squares.sum() / size)
            of_tokens = squares.new_zeros(len(module.weight)).index_add_(0, tokens, squares)
            add(module.weight, rows[None], of_tokens, len(tokens))

        call.output.register_hook(backward)

"""Small language models of bytes: a recurrent one, and a transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ByteGRU", "ByteTransformer"]


class ByteGRU(nn.Module):
    """An embedding, gated recurrent layers (Cho et al., 2014), a linear layer; bytes (n, L) to logits (n, L, 256)."""

    def __init__(self, *, width: int = 128, embedding: int = 32, layers: int = 1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, embedding)
        self.recurrent = nn.GRU(embedding, width, layers, batch_first=True)
        self.output = nn.Linear(width, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next byte at each place."""
        logits: Tensor = self.output(self.recurrent(self.embedding(tokens))[0])
        return logits


class ByteTransformer(nn.Module):
    """A causal transformer (Vaswani et al., 2017), norm first, with learned positions; bytes (n, L) to (n, L, 256).

    `length` is the longest window that it takes.
    """

    def __init__(self, *, width: int = 64, heads: int = 4, layers: int = 2, length: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.output = nn.Linear(width, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next byte at each place."""
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device)
        hidden = self.embedding(tokens) + self.positions[:length]
        logits: Tensor = self.output(self.body(hidden, mask=mask, is_causal=True))
        return logits

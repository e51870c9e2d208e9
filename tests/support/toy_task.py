"""A task that is not classification: how far the class that a network expects lies from the label, as numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from evocompress.data import Examples
from evocompress.errors import ModelError
from evocompress.protocols import Genes, GeneSpec, Measured
from evocompress.search.quality import Quality

__all__ = ["DigitError", "expected"]


def expected(outputs: Tensor) -> Tensor:
    """The mean number of the class, (n,), by logits (n, classes)."""
    return outputs.float().softmax(-1) @ torch.arange(outputs.shape[-1], device=outputs.device).float()


class DigitError:
    """RMSE of the expected digit; its interval is of the mean square, 1.96 standard errors on both sides."""

    quality: Quality = Quality("RMSE", unit="steps", direction="minimise", digits=3)
    genes: Sequence[GeneSpec] = ()

    def loss(
        self, outputs: Any, targets: Tensor, genes: Genes, *, reduction: Literal["mean", "sum"] = "mean"
    ) -> Tensor:
        squares = (expected(outputs) - targets).square()
        return squares.mean() if reduction == "mean" else squares.sum()

    def draw(self, outputs: Any, targets: Tensor, generator: torch.Generator) -> Tensor:
        mean = expected(outputs.detach())
        drawn = mean.cpu() + torch.randn(mean.shape, generator=generator)
        return drawn.round().clamp(0, outputs.shape[-1] - 1).long().to(outputs.device)

    def meter(self) -> _Meter:
        return _Meter()

    def check(self, model: nn.Module, examples: Examples, classes: int) -> None:
        outputs = model(examples.batch(slice(0, 2))[0])
        if outputs.ndim != 2:
            raise ModelError(f"the network returned shape {tuple(outputs.shape)}; it must return (n, classes)")


class _Meter:
    def __init__(self) -> None:
        self.squares: list[Tensor] = []

    def add(self, outputs: Any, targets: Tensor) -> None:
        self.squares.append((expected(outputs.detach()) - targets).square().double())

    def measured(self) -> Measured:
        squares = torch.cat(self.squares)
        mean = float(squares.mean())
        half = 1.96 * float(squares.std(correction=0)) / math.sqrt(len(squares))
        low, high = (math.sqrt(max(end, 0.0)) for end in (mean - half, mean + half))
        value = math.sqrt(mean)
        return Measured(value, low, high, value, mean, len(squares), {"worst": float(squares.max().sqrt())})

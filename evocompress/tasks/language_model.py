"""Language models of bytes: the next byte of a text; the quality is bits per byte."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from evocompress.data.examples import IGNORED, Examples
from evocompress.errors import DataError, ModelError
from evocompress.protocols import Genes, GeneSpec, Measured
from evocompress.search.quality import Quality
from evocompress.support.modules import find_tensor
from evocompress.tasks.classification import Classification

__all__ = ["CausalLanguageModel", "LanguageModel"]


class LanguageModel:
    """Labels (n, L), the next token at each place, of logits (n, L, tokens); -100 asks for nothing.

    The loss is the cross-entropy in nats per token. The quality and the error are its mean in bits per byte, as many
    bytes as tokens unless a subclass says how many bytes a token of its vocabulary stands for (`bytes_per_token`). The
    interval is 1.96 standard errors over the sequences on both sides.
    """

    quality: Quality = Quality("bits per byte", direction="minimise", digits=3)
    genes: Sequence[GeneSpec] = Classification.genes
    bytes_per_token: float = 1.0

    def loss(
        self, outputs: Any, targets: Tensor, genes: Genes, *, reduction: Literal["mean", "sum"] = "mean"
    ) -> Tensor:
        """Cross-entropy over the labels that are not -100, in float32 at least."""
        return Classification().loss(outputs, targets, genes, reduction=reduction)

    def draw(self, outputs: Any, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Tokens drawn from the softmax."""
        return Classification().draw(outputs, targets, generator)

    def imitation(self, outputs: Any, teacher: Any, targets: Tensor, temperature: float) -> Tensor:
        """T²·KL(teacher ‖ outputs), as classification's, in nats per token."""
        return Classification().imitation(outputs, teacher, targets, temperature)

    def meter(self) -> _Meter:
        """Sums of the loss by sequence."""
        return _Meter(self.bytes_per_token)

    def check(self, model: nn.Module, examples: Examples, classes: int) -> None:
        """Refuse examples that are no sequences of tokens with a label each, and a network without logits for them.

        Raises:
            DataError: There is not one label for each token, or none at all.
            ModelError: The network fails on the examples, or gives something else than at least `classes` logits each.
        """
        labels = examples.labels
        if examples.has_numbers or labels.ndim != 2:
            raise DataError(
                f"the labels are {labels.dtype} {tuple(labels.shape)}; a language model needs the next token at each "
                "place, int64 (n, L)"
            )
        Classification().check(model, examples, classes)


class CausalLanguageModel(LanguageModel):
    """Labels (n, L) are the tokens themselves, and the logits at each place are for the next one.

    As transformers' causal models and their collators have it: the network is not told the labels, and what it returns
    is shifted here. The quality is in bits per token.
    """

    quality: Quality = Quality("bits per token", direction="minimise", digits=3)

    def loss(
        self, outputs: Any, targets: Tensor, genes: Genes, *, reduction: Literal["mean", "sum"] = "mean"
    ) -> Tensor:
        """Cross-entropy over the labels that are not -100, but for the first place, which nothing predicts."""
        return super().loss(*_shifted(outputs, targets), genes, reduction=reduction)

    def draw(self, outputs: Any, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Tokens drawn from the softmax before them; the first place asks for nothing."""
        drawn = super().draw(outputs, targets, generator)
        return nn.functional.pad(drawn[:, :-1], (1, 0), value=IGNORED)

    def imitation(self, outputs: Any, teacher: Any, targets: Tensor, temperature: float) -> Tensor:
        """T²·KL(teacher ‖ outputs), in nats per token that is predicted."""
        ours, labels = _shifted(outputs, targets)
        return super().imitation(ours, _shifted(teacher, targets)[0], labels, temperature)

    def meter(self) -> _Meter:
        """Sums of the loss by sequence."""
        return _ShiftedMeter(self.bytes_per_token)


def _shifted(outputs: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = find_tensor(outputs)
    if logits is None or logits.ndim != 3 or logits.shape[:2] != targets.shape or targets.shape[1] < 2:
        shown = "no tensor" if logits is None else f"shape {tuple(logits.shape)}"
        raise ModelError(
            f"the network returned {shown} for tokens {tuple(targets.shape)}; it must return logits (n, L, tokens), "
            "and L must be 2 at least"
        )
    return logits[:, :-1], targets[:, 1:]


class _Meter:
    def __init__(self, bytes_per_token: float) -> None:
        self._bytes = bytes_per_token
        self._nats: list[Tensor] = []
        self._tokens: list[Tensor] = []
        self._correct: Tensor | int = 0

    def add(self, outputs: Any, targets: Tensor) -> None:
        logits = find_tensor(outputs)
        assert logits is not None
        logits = logits.detach().flatten(0, -2).float()
        each = nn.functional.cross_entropy(logits, targets.reshape(-1), ignore_index=IGNORED, reduction="none")
        self._nats.append(each.view(targets.shape).double().sum(1))
        self._tokens.append((targets != IGNORED).sum(1))
        self._correct = self._correct + (logits.argmax(-1) == targets.reshape(-1)).sum()

    def measured(self) -> Measured:
        if not self._nats:
            return Measured(math.nan, math.nan, math.nan, math.nan, math.nan, 0)
        nats, tokens = torch.cat(self._nats), torch.cat(self._tokens)
        total = int(tokens.sum())
        loss = float(nats.sum()) / max(total, 1)
        bits = loss / math.log(2) / self._bytes
        # The ratio's error by the sequences' deviations from it.
        spread = (nats - loss * tokens).square().sum().sqrt() / max(total, 1)
        half = 1.96 * float(spread) / math.log(2) / self._bytes
        details = {"accuracy": int(self._correct) / max(total, 1), "perplexity": math.exp(min(loss, 700.0))}
        return Measured(bits, max(bits - half, 0.0), bits + half, bits, loss, total, details)


class _ShiftedMeter(_Meter):
    def add(self, outputs: Any, targets: Tensor) -> None:
        super().add(*_shifted(outputs, targets))

"""L1 penalty by its proximal step, which makes exact zeros."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from evocompress.protocols import GeneSpec, TermContext, TrainingStep
from evocompress.training.terms.base import TermBase, weights_of

__all__ = ["L1"]


class L1(TermBase):
    """After a step each weight moves to zero by learning rate · `l1` and stops there.

    The proximal step of iterative soft thresholding (Daubechies et al., 2004). Weights are parameters of two or more
    dimensions.
    """

    genes: ClassVar[Sequence[GeneSpec]] = (
        GeneSpec("l1", "pull of each weight towards zero in a step, over the learning rate", 0.0),
    )

    def __init__(self, l1: float) -> None:
        self._l1 = l1
        self._weights: list[nn.Parameter] = []

    def start(self, model: nn.Module, context: TermContext) -> Sequence[Mapping[str, Any]]:
        """Remember the weights."""
        self._weights = weights_of(model)
        return ()

    def after(self, step: TrainingStep) -> None:
        """Soft-threshold."""
        for weight in self._weights:
            weight.copy_(nn.functional.softshrink(weight, step.learning_rate * self._l1))

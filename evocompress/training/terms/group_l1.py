"""Group penalty by its proximal step, which empties whole filters and whole inputs of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from evocompress.protocols import GeneSpec, TermContext, TrainingStep
from evocompress.training.terms.base import TermBase, weights_of

__all__ = ["GroupL1"]


class GroupL1(TermBase):
    """After a step each slice of a weight, along outputs and inputs, loses learning rate · `group_l1` of its norm.

    The norm is the root mean square's: of a slice of n weights the pull is √n times that of one, so that long slices
    are emptied as readily as short ones (Yuan and Lin, 2006). The two proximal steps follow each other, which is near
    that of their sum while steps are small. Weights are parameters of two or more dimensions; a slice that is empty
    costs a bare file nothing, and is cut out of the next segment's network.
    """

    genes: ClassVar[Sequence[GeneSpec]] = (
        GeneSpec(
            "group_l1", "pull of each layer's slices of outputs and of inputs towards zero in a step, over the "
            "learning rate", 0.0,
        ),
    )  # fmt: skip

    def __init__(self, group_l1: float) -> None:
        self._group_l1 = group_l1
        self._weights: list[nn.Parameter] = []

    def start(self, model: nn.Module, context: TermContext) -> Sequence[Mapping[str, Any]]:
        """Remember the weights."""
        self._weights = weights_of(model)
        return ()

    def after(self, step: TrainingStep) -> None:
        """Shrink the slices along both axes."""
        pull = step.learning_rate * self._group_l1
        for weight in self._weights:
            for axis in (0, 1):
                others = [other for other in range(weight.ndim) if other != axis]
                norms = torch.linalg.vector_norm(weight, dim=others, keepdim=True)
                length = weight.numel() / weight.shape[axis]
                weight.mul_((1 - pull * length**0.5 / norms.clamp_min(1e-30)).clamp_min(0))

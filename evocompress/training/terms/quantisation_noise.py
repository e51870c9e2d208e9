"""Quantisation noise: uniform noise on the weights while gradients are taken (Baskin et al., 2021)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from evocompress.protocols import GeneSpec, TermContext, TrainingStep
from evocompress.training.terms.base import TermBase, weights_of

__all__ = ["Noise"]


class Noise(TermBase):
    """Each step sees weights disturbed uniformly by ± `noise`/2 of their tensor's root mean square.

    That is the error of a quantiser with that relative step (Baskin et al., 2021), so that training finds weights that
    bear it. Weights are parameters of two or more dimensions.
    """

    genes: ClassVar[Sequence[GeneSpec]] = (
        GeneSpec("noise", "width of uniform noise on each weight, in root mean squares of its tensor", 0.0),
    )

    def __init__(self, noise: float) -> None:
        self._noise = noise
        self._weights: list[nn.Parameter] = []
        self._generator = torch.Generator()

    def start(self, model: nn.Module, context: TermContext) -> Sequence[Mapping[str, Any]]:
        """Remember the weights."""
        self._weights = weights_of(model)
        self._generator = torch.Generator(context.device).manual_seed(context.seed)
        return ()

    @contextlib.contextmanager
    def during(self, step: TrainingStep) -> Iterator[None]:
        """Disturbed weights; exactly the old ones afterwards."""
        with torch.no_grad():
            before = [weight.clone() for weight in self._weights]
            for weight in self._weights:
                width = self._noise * weight.square().mean().sqrt()
                weight.add_((torch.rand(weight.shape, generator=self._generator, device=weight.device) - 0.5) * width)
        yield
        with torch.no_grad():
            for weight, old in zip(self._weights, before, strict=True):
                weight.copy_(old)

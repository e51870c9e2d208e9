"""Distillation: a network learns from what a teacher says of each example, beside its label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from evocompress.errors import ModelError
from evocompress.protocols import GeneSpec, Imitation, TermContext, TrainingStep
from evocompress.training.terms.base import TermBase

__all__ = ["Distillation"]


class Distillation(TermBase):
    """A share of the task's loss is exchanged for the loss of imitating the teacher (Hinton, Vinyals and Dean, 2015).

    With share a the loss is (1 - a)·loss + a·imitation; what imitating means is the task's to say. A loss in nats stays
    one, so that λ means nearly what it means without a teacher.
    """

    genes: ClassVar[Sequence[GeneSpec]] = (
        GeneSpec(
            "distillation", "share of the loss that is exchanged for that of imitating the teacher, which [teacher] "
            "names", 0.0, high=1.0, log=False, needs_teacher=True,
        ),
        GeneSpec(
            "teacher_temperature", "what logits of teacher and network are divided by where one imitates the other; "
            "above 1 unlikely classes count more", 2.0, low_open=True, plain=2.0,
        ),
    )  # fmt: skip

    def __init__(self, distillation: float, teacher_temperature: float) -> None:
        self._share, self._temperature = distillation, teacher_temperature
        self._imitation: Imitation | None = None

    def start(self, model: nn.Module, context: TermContext) -> Sequence[Mapping[str, Any]]:
        """Take the teacher.

        Raises:
            ModelError: There is none.
        """
        self._imitation = context.imitation
        if self._share and self._imitation is None:
            raise ModelError("distillation needs a teacher, and there is none: name one in [teacher]")
        return ()

    def loss(self, step: TrainingStep) -> Tensor | None:
        """a·(imitation - loss)."""
        if self._imitation is None or not self._share:
            return None
        assert step.loss is not None
        return self._share * (self._imitation(step, self._temperature) - step.loss)

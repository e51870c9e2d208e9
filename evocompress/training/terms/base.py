"""Base of terms, which does nothing: what others start from, so that they hold only what they do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from evocompress.protocols import GeneSpec, TermContext, TrainingStep

__all__ = ["TermBase", "weights_of"]


class TermBase:
    """All methods of `evocompress.protocols.Term`, each without effect."""

    genes: ClassVar[Sequence[GeneSpec]] = ()

    def check(self, networks: Iterable[nn.Module]) -> None:
        """It acts on any network."""

    def start(self, model: nn.Module, context: TermContext) -> Sequence[Mapping[str, Any]]:
        """It has no parameters."""
        return ()

    def during(self, step: TrainingStep) -> contextlib.AbstractContextManager[None]:
        """It changes nothing while gradients are taken."""
        return contextlib.nullcontext()

    def loss(self, step: TrainingStep) -> Tensor | None:
        """It adds nothing."""
        return None

    def after(self, step: TrainingStep) -> None:
        """It changes nothing after a step."""

    def finish(self, *, diverged: bool) -> Mapping[str, float] | None:
        """It leaves nothing behind."""
        return None


def weights_of(model: nn.Module) -> list[nn.Parameter]:
    """Trained parameters of two or more dimensions: all but biases and norms."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.ndim >= 2]

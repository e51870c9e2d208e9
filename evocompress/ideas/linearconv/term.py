"""The correlation loss as a term of training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from evocompress.errors import ModelError
from evocompress.ideas.linearconv.correlation import correlation_loss
from evocompress.ideas.linearconv.linear_conv import LinearConv2d
from evocompress.protocols import GeneSpec, TermContext, TrainingStep
from evocompress.training.terms.base import TermBase

__all__ = ["CorrelationTerm"]


class CorrelationTerm(TermBase):
    """`correlation_loss` of the network with the scale `correlation`; nothing where it has no primary filters."""

    genes: ClassVar[Sequence[GeneSpec]] = (
        GeneSpec("correlation", "strength of the correlation loss of primary filters", 0.0),
    )

    def __init__(self, correlation: float) -> None:
        self._scale = correlation
        self._model: nn.Module | None = None

    def check(self, networks: Iterable[nn.Module]) -> None:
        """Raise ModelError where no form of the network has primary filters."""
        if not any(map(_has_primary_filters, networks)):
            raise ModelError(
                "gene correlation: no convolution has primary filters, on which it acts; take it out, or let alpha be "
                "below 1, such as alpha = [0.25, 1.0]"
            )

    def start(self, model: nn.Module, context: TermContext) -> Sequence[Mapping[str, Any]]:
        """Remember the network, where there is something to act on."""
        self._model = model if _has_primary_filters(model) else None
        return ()

    def loss(self, step: TrainingStep) -> Tensor | None:
        """The loss; None without primary filters."""
        return None if self._model is None else correlation_loss(self._model, self._scale)


def _has_primary_filters(network: nn.Module) -> bool:
    return any(isinstance(module, LinearConv2d) for module in network.modules())

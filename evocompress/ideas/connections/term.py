"""Thinning of over-provisioned layers as a term of training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from evocompress.errors import ModelError
from evocompress.ideas.connections.overprovisioned import OverProvisioned, hold, thin
from evocompress.protocols import GeneSpec, TermContext
from evocompress.training.terms.base import TermBase

__all__ = ["NO_LAYERS", "ThinTerm"]

NO_LAYERS = (
    "the network has no OverProvisionedConv2d or OverProvisionedLinear, whose genes these are; take them out, or "
    'choose a network that has one, such as model = "connected_cnn"'
)


class ThinTerm(TermBase):
    """`thin`: share of the living weights of over-provisioned layers that is dropped when training ends.

    The least in magnitude go first. Those that are zero when training starts are dropped already, and stay so.
    """

    genes: ClassVar[Sequence[GeneSpec]] = (
        GeneSpec(
            "thin", "share of the living weights of over-provisioned layers that is dropped when training ends", 0.0,
            high=1.0, high_open=True,
        ),
    )  # fmt: skip

    def __init__(self, thin: float) -> None:
        self._share = thin
        self._model: nn.Module | None = None

    def check(self, networks: Iterable[nn.Module]) -> None:
        """Raise ModelError where there is nothing to thin."""
        if not any(isinstance(module, OverProvisioned) for network in networks for module in network.modules()):
            raise ModelError(f"genes thin: {NO_LAYERS}")

    def start(self, model: nn.Module, context: TermContext) -> Sequence[Mapping[str, Any]]:
        """Take zeros for dropped.

        Raises:
            ModelError: There is nothing to thin.
        """
        hold(model)
        self._model = model
        return ()

    def finish(self, *, diverged: bool) -> None:
        """Drop."""
        if self._model is not None and not diverged:
            thin(self._model, 1 - self._share)

"""Penalties that a network brings with it: methods `penalty()` of its modules."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from evocompress.protocols import TermContext, TrainingStep
from evocompress.training.terms.base import TermBase

__all__ = ["NetworkPenalty"]


class NetworkPenalty(TermBase):
    """A module with a method `penalty()` that returns a scalar tensor brings its own term.

    It is called after the network has run on a training batch.
    """

    def __init__(self) -> None:
        self._methods: list[Callable[[], Tensor]] = []

    def start(self, model: nn.Module, context: TermContext) -> Sequence[Mapping[str, Any]]:
        """Find the methods."""
        methods = (getattr(module, "penalty", None) for module in model.modules())
        self._methods = [method for method in methods if inspect.ismethod(method)]
        return ()

    def loss(self, step: TrainingStep) -> Tensor | None:
        """Their sum; None where there are none."""
        return torch.stack([method().reshape(()) for method in self._methods]).sum() if self._methods else None

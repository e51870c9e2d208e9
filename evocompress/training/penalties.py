"""What training adds to its loss: terms that a network brings with it, and terms that genes switch on."""

from __future__ import annotations

import inspect
from typing import Protocol

import torch
from torch import Tensor, nn

from evocompress.ideas.linearconv.correlation import correlation_loss
from evocompress.ideas.linearconv.linear_conv import LinearConv2d
from evocompress.ideas.symmetry.penalties import KernelPenalties

__all__ = ["PenaltyGenes", "penalty"]


class PenaltyGenes(Protocol):
    """Strengths of the terms, each at least 0; 0 switches one off (training.TrainingGenes says what they are)."""

    @property
    def correlation(self) -> float:
        """Of the primary filters' correlation."""
        ...

    @property
    def symmetry(self) -> float:
        """Of kernels' distance to the nearest symmetry."""
        ...

    @property
    def entropy(self) -> float:
        """Of the entropy of quantised weights."""
        ...

    @property
    def distinct(self) -> float:
        """Of the number of distinct values in a kernel."""
        ...


def penalty(model: nn.Module, genes: PenaltyGenes) -> Tensor | None:
    """The sum of all terms, differentiable, or None where there are none.

    A module with a method `penalty()` that returns a scalar tensor brings its own term (networks/saccade_cnn.py has
    one): it is called after the network has run on a training batch.
    """
    methods = [getattr(module, "penalty", None) for module in model.modules()]
    terms: list[Tensor] = [method() for method in methods if inspect.ismethod(method)]
    if genes.symmetry or genes.entropy or genes.distinct:
        terms.append(KernelPenalties(genes.symmetry, genes.entropy, genes.distinct)(model))
    if genes.correlation and any(isinstance(module, LinearConv2d) for module in model.modules()):
        terms.append(correlation_loss(model, genes.correlation))
    return torch.stack([term.reshape(()) for term in terms]).sum() if terms else None

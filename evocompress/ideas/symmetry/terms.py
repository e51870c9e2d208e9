"""Terms of training that make kernels symmetric: penalties, and kernels that are snapped and frozen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from evocompress.errors import ModelError
from evocompress.ideas.symmetry.penalties import KernelPenalties
from evocompress.ideas.symmetry.snap import FrozenKernels, snap
from evocompress.ideas.symmetry.trained_kernels import trained_kernels
from evocompress.protocols import GeneSpec, TermContext, TrainingStep
from evocompress.training.terms.base import TermBase

__all__ = ["KernelPenaltyTerm", "SnapTerm"]


def _check_kernels(genes: Sequence[str], networks: Iterable[nn.Module]) -> None:
    """Refuse networks without kernels. Plans of connections may bring some, so all forms count."""
    if genes and not any(True for network in networks for _ in trained_kernels(network)):
        raise ModelError(
            f"genes {', '.join(genes)}: the network trains no kernels of more than one place, on which they act; "
            "take them out, or choose a network with such convolutions"
        )


class KernelPenaltyTerm(TermBase):
    """`KernelPenalties` of the network: `symmetry`, `entropy` and `distinct` are its strengths."""

    genes: ClassVar[Sequence[GeneSpec]] = (
        GeneSpec("symmetry", "strength of the penalty on kernels' distance to the nearest symmetry", 0.0),
        GeneSpec("entropy", "strength of the penalty on the entropy of quantised weights, in bits", 0.0),
        GeneSpec("distinct", "strength of the penalty on the number of distinct values in a kernel", 0.0),
    )

    def __init__(self, symmetry: float, entropy: float, distinct: float) -> None:
        self._penalties = KernelPenalties(symmetry, entropy, distinct)
        self._model: nn.Module | None = None

    def check(self, networks: Iterable[nn.Module]) -> None:
        """Raise ModelError where `symmetry` or `distinct` has no kernels to act on."""
        _check_kernels([name for name in ("symmetry", "distinct") if getattr(self._penalties, name)], networks)

    def start(self, model: nn.Module, context: TermContext) -> Sequence[Mapping[str, Any]]:
        """Remember the network."""
        self._model = model
        return ()

    def loss(self, step: TrainingStep) -> Tensor | None:
        """The penalties' sum."""
        return None if self._model is None else self._penalties(self._model)


class SnapTerm(TermBase):
    """Share of all kernels that are snapped to symmetries when training starts, those that lose least.

    They do not change while the rest trains. A mask and `thin` may still put zeros into them.
    """

    genes: ClassVar[Sequence[GeneSpec]] = (
        GeneSpec(
            "snap", "share of the kernels that is snapped to symmetries and frozen when training starts", 0.0,
            high=1.0, log=False,
        ),
    )  # fmt: skip

    def __init__(self, snap: float) -> None:
        self._share = snap
        self._frozen: FrozenKernels | None = None

    def check(self, networks: Iterable[nn.Module]) -> None:
        """Raise ModelError where there are no kernels."""
        _check_kernels(["snap"], networks)

    def start(self, model: nn.Module, context: TermContext) -> Sequence[Mapping[str, Any]]:
        """Snap and freeze.

        Raises:
            ModelError: There are no kernels.
        """
        self._frozen = snap(model, self._share)
        return ()

    def after(self, step: TrainingStep) -> None:
        """Put the frozen kernels back."""
        if self._frozen is not None:
            self._frozen.hold()

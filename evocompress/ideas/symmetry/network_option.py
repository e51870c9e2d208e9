"""Networks' option `kernels`: convolutions with a symmetry from the beginning."""

from __future__ import annotations

from torch import nn

from evocompress.ideas.symmetry.layers import Kernels, constrained

__all__ = ["with_kernels"]


def with_kernels(network: nn.Module, *, kernels: Kernels = "free") -> nn.Module:
    """The network with its convolutions constrained (`constrained` says what `kernels` may be); changed in place.

    Raises:
        ModelError: Unknown `kernels`, a list of another length than there are convolutions, or one that they cannot be.
    """
    return constrained(network, kernels)

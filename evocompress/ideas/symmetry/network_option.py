"""Networks' option `kernels`: convolutions with a symmetry from the beginning."""

from __future__ import annotations

from torch import nn

from evocompress.errors import ModelError
from evocompress.ideas.symmetry.layers import Kernels, constrained

__all__ = ["with_kernels"]


def with_kernels(network: nn.Module, *, kernels: Kernels = "free") -> nn.Module:
    """The network with its convolutions constrained (`constrained` says what `kernels` may be); changed in place.

    Raises:
        ModelError: Unknown `kernels`, a list of another length than there are convolutions, one that they cannot be, or
            a network without a plain convolution.
    """
    if kernels != "free" and not any(isinstance(layer, nn.Conv2d) for layer in network.modules()):
        raise ModelError(
            f"kernels is {kernels!r}, but the network has no plain convolution to constrain; filters that are made of "
            "others (alpha) cannot be constrained."
        )
    return constrained(network, kernels)

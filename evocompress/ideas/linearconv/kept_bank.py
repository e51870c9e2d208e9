"""The combined bank of a LinearConv layer, kept for inference as long as nothing that it was made of has changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

__all__ = ["KeptBank", "are_differentiated"]

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclasses.dataclass(frozen=True, eq=False)
class KeptBank:
    """A bank of filters, and copies of the `factors` and the `sparsity` that it was made of.

    torch counts the writes to a tensor (`_version`), but not those of a fused optimiser or through `.data`. So the
    factors' values are compared: all are read at each call, and on a GPU the caller waits for the answer. The count
    serves for the bank itself, which nobody should write to.
    """

    bank: Tensor
    factors: tuple[Tensor, ...]
    sparsity: float
    version: int

    @classmethod
    def of(cls, bank: Tensor, factors: Sequence[Tensor], sparsity: float) -> KeptBank:
        """What is to be kept; the bank must be a tensor of its own, made outside inference mode."""
        return cls(bank, tuple(factor.clone() for factor in factors), sparsity, bank._version)

    def holds(self, factors: Sequence[Tensor], sparsity: float) -> bool:
        """Whether the bank is as it was made, and of factors with these values, bit for bit, and this sparsity."""
        if self.sparsity != sparsity or self.bank._version != self.version:
            return False
        kinds = [[(t.shape, t.dtype, t.device) for t in tensors] for tensors in (factors, self.factors)]
        if kinds[0] != kinds[1]:
            return False
        try:
            return all(torch.equal(_bits(a), _bits(b)) for a, b in zip(factors, self.factors, strict=True))
        except RuntimeError:  # under torch.func.vmap there are no values to look at
            return False


def are_differentiated(factors: Sequence[Tensor]) -> bool:
    """Whether derivatives by any of them are asked for, backwards or forwards: a kept bank lacks them."""
    if torch.is_grad_enabled() and any(factor.requires_grad for factor in factors):
        return True
    duals = (forward_ad.unpack_dual(factor) for factor in factors)  # type: ignore[no-untyped-call]
    return any(dual.tangent is not None for dual in duals)


def _bits(x: Tensor) -> Tensor:
    """The same memory as integers, which torch compares several times as fast; and NaN is then equal to itself."""
    return x.detach().view(_INTEGERS.get(x.element_size(), x.dtype))

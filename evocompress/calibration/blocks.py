"""Second moments of rows; of a wide layer only blocks along the diagonal, as `Sensitivity` keeps them."""

from __future__ import annotations

from torch import Tensor

__all__ = ["BLOCK", "WIDE", "blocked_columns", "second_moment"]

#: Columns beyond which a layer is wide. Time grows with the cube of K, memory with its square: 8192 columns would take
#: minutes and gigabytes, for feedback between columns that lie far apart.
WIDE = 4096
BLOCK = 1024  # columns of a block; a multiple of the 64 that are searched at a time


def blocked_columns(groups: int, columns: int) -> int:
    """K of a layer that is wide, as `Sensitivity.columns` has it; 0 of one that is not."""
    return columns if groups == 1 and columns > WIDE else 0


def second_moment(left: Tensor, right: Tensor) -> Tensor:
    """leftᵀ·right (groups, K, K) of rows (groups, n, K); of a wide layer its blocks (K/1024 rounded up, 1024, 1024).

    >>> import torch
    >>> second_moment(torch.ones(2, 5, 3), torch.ones(2, 5, 3)).shape
    torch.Size([2, 3, 3])
    >>> rows = torch.ones(1, 5, 4200)
    >>> second_moment(rows, rows).shape
    torch.Size([5, 1024, 1024])
    """
    groups, _, columns = left.shape
    if not blocked_columns(groups, columns):
        return left.mT @ right
    moments = left.new_zeros(-(-columns // BLOCK), BLOCK, BLOCK)
    for block, first in zip(moments, range(0, columns, BLOCK), strict=True):
        size = min(BLOCK, columns - first)
        part = slice(first, first + size)
        block[:size, :size] = left[0, :, part].mT @ right[0, :, part]
    return moments

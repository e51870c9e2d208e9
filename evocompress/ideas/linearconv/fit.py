"""Primary filters and coefficients of a LinearConv layer from filters that are trained already."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are first used, which takes half a second
import torch
from torch import Tensor

from evocompress.codecs.codec import Floats
from evocompress.codecs.lowrank import least_squares
from evocompress.ideas.linearconv.linear_conv import LinearConv2d

__all__ = ["fit"]


@torch.no_grad()
def fit(layer: LinearConv2d, weight: Tensor) -> None:
    """Set the primary filters and coefficients of a layer from a bank (out_channels, in_channels/groups, *kernel)."""
    bank = weight.reshape(layer.geometry.groups, -1, layer.geometry.fan_in).double().cpu().numpy()
    parts = [_choose(filters, layer.primaries) for filters in bank]
    chosen = torch.from_numpy(np.concatenate([mask for mask, _ in parts])).to(weight.device)
    layer.primary.copy_(weight[chosen])
    if bool(chosen.all()):
        return
    layer.is_primary = chosen
    # The primaries as the layer holds them, which is what the coefficients multiply.
    fitted = [(filters[mask], a) for filters, (mask, a) in zip(bank, parts, strict=True)]
    if layer.coefficients is not None:
        coefficients = _sparse(fitted, layer.entries) if layer.sparsity else [a for _, a in fitted]
        _write(layer.coefficients, coefficients)
    if layer.coefficients_left is not None and layer.coefficients_right is not None:
        factors = [_low_rank(primaries, a, layer.components) for primaries, a in fitted]
        _write(layer.coefficients_left, [left for left, _ in factors])
        _write(layer.coefficients_right, [right for _, right in factors])


def _write(parameter: Tensor, blocks: list[Floats]) -> None:
    """One block of rows for each group."""
    parameter.copy_(torch.from_numpy(np.concatenate(blocks)))


def _choose(filters: Floats, count: int) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Which of the filters (O, K) are primary, (O,), and the coefficients (O - count, count) of the others."""
    _, pivots = scipy.linalg.qr(filters.T, mode="r", pivoting=True, check_finite=False)
    mask = np.zeros(len(filters), np.bool_)
    mask[pivots[:count]] = True
    return mask, least_squares(filters[mask], filters[~mask])


def _sparse(fitted: list[tuple[Floats, Floats]], count: int) -> list[Floats]:
    """The coefficients (n, p) of every group with all but `count` of them zero, the others solved for anew.

    Those stay that make the longest parts of a filter: a coefficient alone says little, for primary filters differ in
    length.
    """
    parts = np.concatenate([np.abs(a) * np.linalg.norm(primaries, axis=1) for primaries, a in fitted])
    kept = np.zeros(parts.size, np.bool_)
    kept[np.argsort(-parts, axis=None, kind="stable")[:count]] = True
    solved = []
    for (primaries, a), mask in zip(fitted, np.split(kept.reshape(parts.shape), len(fitted)), strict=True):
        # Within the span of the primaries, where all combinations lie, they have as few weights as there are of them.
        small = scipy.linalg.qr(primaries.T, mode="r", check_finite=False)[0][: len(primaries)].T
        sparse = np.zeros_like(a)
        for row, target, used in zip(sparse, a @ small, mask, strict=True):
            if used.any():
                row[used] = least_squares(small[used].astype(np.float64), target[None])[0]
        solved.append(sparse)
    return solved


def _low_rank(primaries: Floats, coefficients: Floats, rank: int) -> tuple[Floats, Floats]:
    """Factors (n, r) and (r, p) whose product times the primaries is nearest to what the coefficients make.

    The singular vectors of the filters that come out are cut off, not those of the coefficients: an error in a
    coefficient costs as much as its primary filter is long.
    """
    left, sizes, right = scipy.linalg.svd(coefficients @ primaries, full_matrices=False, check_finite=False)
    count = min(rank, len(sizes))  # fewer than asked for where a filter has fewer weights than that
    roots = np.sqrt(sizes[:count])
    factor, components = np.zeros((len(coefficients), rank)), np.zeros((rank, primaries.shape[1]))
    factor[:, :count] = left[:, :count] * roots
    components[:count] = right[:count] * roots[:, None]
    return factor, least_squares(primaries, components)

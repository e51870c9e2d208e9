"""Trained networks with LinearConv layers in place of convolutions, and plain convolutions again for inference."""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter

import numpy as np
import numpy.typing as npt
import scipy.linalg
import torch
from torch import Tensor, nn

from evocompress.codecs.codec import Floats
from evocompress.codecs.lowrank import least_squares
from evocompress.errors import ModelError
from evocompress.layers.exchange import exchanged, linear_conv_like
from evocompress.layers.geometry import share
from evocompress.layers.linear_conv import LinearConv2d

__all__ = ["LayerConversion", "compare", "convert", "fold"]


@dataclasses.dataclass(frozen=True)
class LayerConversion:
    """What became of one convolution: `reason` says why it was left alone and is empty where it was replaced.

    `primaries` of its `filters` are primary. `relative_error` is ‖W - W'‖ / ‖W‖ over all of its weights.
    """

    name: str
    reason: str
    filters: int
    primaries: int
    parameters_before: int
    parameters_after: int
    relative_error: float


def convert(model: nn.Module, alpha: float = 0.5, rank: float | None = None, *, skip_first: bool = True) -> nn.Module:
    """A copy of a trained network with `LinearConv2d` in place of its convolutions; `model` is left as it was.

    The primary filters are chosen by pivoted QR: at each step the one that those already taken explain least (Businger
    and Golub, 1965). Coefficients are the least-squares ones; with `rank` they are the best of that rank for the
    filters (reduced-rank regression; Eckart and Young, 1936). Outputs stay in their order, so nothing else changes:
    all other tensors keep name and value. With alpha = 1 no weight changes.

    Left alone are: the first convolution, unless `skip_first` is False; depthwise ones, where a group has one filter
    and so nothing to combine; those that would not have fewer parameters, such as narrow 1×1 ones; and those that
    share their weights with another layer, have hooks, or compute in a way of their own. `compare` says which.

    Args:
        model: Any network; its `torch.nn.Conv2d` are looked for at every depth. It may itself be one.
        alpha: Share of primary filters, in (0, 1].
        rank: Rank of the coefficients as a share of their full rank, in (0, 1]; None or 1: full.
        skip_first: Leave the convolution alone that was registered first.

    Raises:
        ModelError: alpha or rank is out of range, or a convolution has weights that are infinite or NaN.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    >>> print(convert(network, 0.5)[2])
    LinearConv2d(8, 8, kernel_size=(3, 3), stride=(1, 1), alpha=0.5, primaries=4)
    """
    share("alpha", alpha)
    if rank is not None:
        share("rank", rank)
    network = copy.deepcopy(model)
    reasons = _reasons(network, skip_first)
    new: dict[nn.Module, nn.Module] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and name not in reasons:
            layer = _converted(name, module, alpha, rank)
            if layer is not None:
                new[module] = layer
    return exchanged(network, new)


def fold(model: nn.Module) -> nn.Module:
    """A copy of a network with plain convolutions in place of its `LinearConv2d`, for inference; outputs are equal.

    All other tensors keep their names; of a layer's, `weight` replaces the factors.

    >>> print(fold(nn.Sequential(LinearConv2d(3, 8, 5)))[0])
    Conv2d(3, 8, kernel_size=(5, 5), stride=(1, 1))
    """
    network = copy.deepcopy(model)
    found = [module for module in network.modules() if isinstance(module, LinearConv2d)]
    return exchanged(network, {module: module.folded() for module in found})


def compare(original: nn.Module, converted: nn.Module) -> tuple[LayerConversion, ...]:
    """What `convert` did to each convolution of `original`, in the order of their names in the network.

    Raises:
        ModelError: `converted` has no layer of that name.
    """
    reasons = _reasons(original, skip_first=True)
    rows = []
    for name, before in original.named_modules():
        if not isinstance(before, nn.Conv2d):
            continue
        try:
            after = converted.get_submodule(name)
        except AttributeError as failure:
            raise ModelError(f"the converted network has no layer {name!r}; was it made of this network?") from failure
        done = isinstance(after, LinearConv2d)
        reason = "" if done else reasons.get(name, "would not have fewer parameters")
        rows.append(_row(name, reason, before, after))
    return tuple(rows)


def _row(name: str, reason: str, before: nn.Conv2d, after: nn.Module) -> LayerConversion:
    filters, error, primaries = before.out_channels, 0.0, before.out_channels
    if isinstance(after, LinearConv2d):
        with torch.no_grad():
            exact = before.weight.double()
            error = float((after.weight.double() - exact).norm() / exact.norm().clamp_min(1e-300))
        primaries = after.primaries * before.groups
    sizes = [sum(p.numel() for p in module.parameters(recurse=False)) for module in (before, after)]
    return LayerConversion(name, reason, filters, primaries, sizes[0], sizes[1], error)


def _reasons(network: nn.Module, skip_first: bool) -> dict[str, str]:
    """Names of the convolutions that stay, and why."""
    convolutions = {name: m for name, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    holders = Counter(id(p) for module in network.modules() for p in module.parameters(recurse=False))
    found: dict[str, str] = {}
    for place, (name, module) in enumerate(convolutions.items()):
        if type(module) is not nn.Conv2d:
            found[name] = f"a {type(module).__name__} may compute in a way of its own"
        elif module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
            found[name] = "it has hooks"
        elif holders[id(module.weight)] > 1:
            found[name] = "another layer shares its weights"
        elif module.out_channels == module.groups:
            found[name] = "one filter for each group: nothing to combine"
        elif skip_first and place == 0:
            found[name] = "the first layer"
    return found


def _converted(name: str, module: nn.Conv2d, alpha: float, rank: float | None) -> LinearConv2d | None:
    """The layer in place of a convolution; None where it would not have fewer parameters."""
    weight = module.weight
    if not weight.isfinite().all():
        raise ModelError(f"layer {name!r} has weights that are infinite or NaN; train it anew, or load other weights")
    layer = linear_conv_like(module, alpha, rank)
    others = layer.primaries * layer.geometry.groups < module.out_channels
    if others and sum(p.numel() for p in layer.parameters()) >= sum(p.numel() for p in module.parameters()):
        return None
    layer.to_empty(device=weight.device)
    _fit(layer, weight.detach())
    if module.bias is not None:
        layer.bias = nn.Parameter(module.bias.detach(), requires_grad=module.bias.requires_grad)
    return layer


@torch.no_grad()
def _fit(layer: LinearConv2d, weight: Tensor) -> None:
    """Primary filters and coefficients for a bank (out_channels, in_channels/groups, height, width)."""
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
        _write(layer.coefficients, [a for _, a in fitted])
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

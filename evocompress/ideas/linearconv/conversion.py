"""Trained networks with LinearConv layers in place of convolutions, and plain convolutions again for inference."""

from __future__ import annotations

import dataclasses
from collections import Counter

import torch
from torch import nn

from evocompress.errors import ModelError
from evocompress.ideas.linearconv.exchange import additions, linear_conv_like, tagged
from evocompress.ideas.linearconv.fit import fit
from evocompress.ideas.linearconv.linear_conv import LinearConv2d
from evocompress.support.modules import copied, exchanged

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


def convert(
    model: nn.Module,
    alpha: float = 0.5,
    rank: float | None = None,
    *,
    sparsity: float | None = None,
    skip_first: bool = True,
) -> nn.Module:
    """A copy of a trained network with `LinearConv2d` in place of its convolutions; `model` is left as it was.

    The primary filters are chosen by pivoted QR: at each step the one that those already taken explain least (Businger
    and Golub, 1965). Coefficients are the least-squares ones; with `rank` they are the best of that rank for the
    filters (reduced-rank regression; Eckart and Young, 1936); with `sparsity` the largest stay, each counted as long as
    its primary filter is, and are solved for anew. Outputs stay in their order, so nothing else changes: all other
    tensors keep name and value. With alpha = 1 no weight changes its value, but `weight` is called `primary`.

    Left alone are: the first convolution, unless `skip_first` is False; depthwise ones, where a group has one filter
    and so nothing to combine; those that would not have fewer parameters, such as narrow 1×1 ones; and those that
    share a parameter with another layer, have hooks, attributes or tensors that torch's layer does not have, or compute
    in a way of their own. `compare` says which. Layers that are `LinearConv2d` already stay what they are too: to give
    them another form, convert `fold(model)`. The copy (`support.modules.copied`) has no hooks on parameters.
    A network that calls its layers from a plain list calls the old ones: use `torch.nn.ModuleList`.

    Args:
        model: Any network; its `torch.nn.Conv2d` are looked for at every depth. It may itself be one.
        alpha: Share of primary filters, in (0, 1].
        rank: Rank of the coefficients as a share of their full rank, in (0, 1]; None or 1: full.
        sparsity: Share of the coefficients that is zero, in [0, 1); None: 0. Zeros count as parameters.
        skip_first: Leave the convolution alone that was registered first.

    Raises:
        ModelError: A share is out of range, `rank` and `sparsity` are given together, or a convolution has weights that
            are infinite or NaN.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    >>> print(convert(network, 0.5)[2])
    LinearConv2d(8, 8, kernel_size=(3, 3), stride=(1, 1), alpha=0.5, primaries=4)
    """
    LinearConv2d(1, 1, 1, alpha=alpha, rank=rank, sparsity=sparsity, device="meta")  # refuses shares that are none
    reasons = _reasons(model, skip_first)
    network = copied(model)
    new: dict[nn.Module, nn.Module] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and name not in reasons:
            layer = _converted(name, module, alpha, rank, sparsity)
            if layer is not None:
                new[module] = layer
    return exchanged(network, new)


def fold(model: nn.Module) -> nn.Module:
    """A copy of a network with plain convolutions in place of its `LinearConv2d`, for inference; outputs are equal.

    All other tensors keep their names; of a layer's, `weight` replaces the factors. Layers that share factors have
    weights of their own afterwards.

    Raises:
        ModelError: A `LinearConv2d` has hooks or a forward of its own, which a plain convolution would not have.

    >>> print(fold(nn.Sequential(LinearConv2d(3, 8, 5)))[0])
    Conv2d(3, 8, kernel_size=(5, 5), stride=(1, 1))
    """
    for name, module in model.named_modules():
        if isinstance(module, LinearConv2d) and (behaviour := _behaviour(module)):
            raise ModelError(f"layer {name!r} has {behaviour}, and fold would drop that; remove it first")
    network = copied(model)
    layers = [module for module in network.modules() if isinstance(module, LinearConv2d)]
    return exchanged(network, {module: tagged(module.folded(), module) for module in layers})


def compare(original: nn.Module, converted: nn.Module, *, skip_first: bool = True) -> tuple[LayerConversion, ...]:
    """What `convert` did to each convolution of `original`, in the order of their names in the network.

    Args:
        original: The network.
        converted: What `convert` made of it.
        skip_first: As `convert` was given it.

    Raises:
        ModelError: `converted` has no layer of that name, or one that is no convolution or has other shapes.
    """
    reasons = _reasons(original, skip_first)
    rows = []
    for name, before in original.named_modules():
        if not isinstance(before, nn.Conv2d):
            continue
        try:
            after = converted.get_submodule(name)
        except AttributeError as failure:
            raise ModelError(f"the converted network has no layer {name!r}; was it made of this network?") from failure
        if not isinstance(after, LinearConv2d | nn.Conv2d) or _shape(after) != _shape(before):
            raise ModelError(f"layer {name!r} was {before} and is {after}; was the converted network made of this one?")
        done = isinstance(after, LinearConv2d)
        reason = "" if done else reasons.get(name, "would not have fewer parameters")
        rows.append(_row(name, reason, before, after))
    return tuple(rows)


def _row(name: str, reason: str, before: nn.Conv2d, after: LinearConv2d | nn.Conv2d) -> LayerConversion:
    filters, error = before.out_channels, 0.0
    primaries = filters
    if isinstance(after, LinearConv2d):
        with torch.no_grad():
            exact = before.weight.double()
            error = float((after.weight.double() - exact).norm() / exact.norm().clamp_min(1e-300))
        primaries = after.primaries * before.groups
    sizes = [sum(p.numel() for p in module.parameters(recurse=False)) for module in (before, after)]
    return LayerConversion(name, reason, filters, primaries, sizes[0], sizes[1], error)


def _shape(module: LinearConv2d | nn.Conv2d) -> tuple[object, ...]:
    return module.in_channels, module.out_channels, module.groups, module.kernel_size


def _reasons(network: nn.Module, skip_first: bool) -> dict[str, str]:
    """Names of the convolutions that stay, and why."""
    convolutions = {name: m for name, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    holders = Counter(id(p) for module in network.modules() for p in module.parameters(recurse=False))
    reasons: dict[str, str] = {}
    for place, (name, module) in enumerate(convolutions.items()):
        shared = [parameter_name for parameter_name, p in module.named_parameters(recurse=False) if holders[id(p)] > 1]
        if type(module) is not nn.Conv2d:
            reasons[name] = f"a {type(module).__name__} may compute in a way of its own"
        elif more := _behaviour(module) or _additions(module):
            reasons[name] = f"it has {more}"
        elif shared:
            reasons[name] = f"another layer shares its {shared[0]}"
        elif module.out_channels == module.groups:
            reasons[name] = "one filter for each group: nothing to combine"
        elif skip_first and place == 0:
            reasons[name] = "the first layer"
    return reasons


def _behaviour(module: nn.Module) -> str:
    """Hooks on a call, or a forward that was put into the instance; empty where it behaves as its class."""
    if any(value for name, value in vars(module).items() if name.startswith(("_forward", "_backward"))):
        return "hooks"
    return "a forward of its own" if "forward" in vars(module) else ""


def _additions(module: nn.Conv2d) -> str:
    """What torch's own convolution does not have and a layer in its place would lack; empty where there is nothing."""
    hooked = [name for name, parameter in module.named_parameters(recurse=False) if parameter._backward_hooks]
    if hooked or any(value for name, value in vars(module).items() if name.endswith("_hooks")):
        return f"hooks on its {hooked[0] if hooked else 'state dict'}"
    plain = nn.Conv2d(1, 1, 1, device="meta")
    named = {**module._parameters, **module._buffers, **module._modules}
    more = sorted(named.keys() - plain._parameters.keys())
    more += additions(module)[1]
    return f"{', '.join(more[:3])} of its own" if more else ""


def _converted(
    name: str, module: nn.Conv2d, alpha: float, rank: float | None, sparsity: float | None
) -> LinearConv2d | None:
    """The layer in place of a convolution; None where it would not have fewer parameters."""
    weight = module.weight
    if not weight.isfinite().all():
        raise ModelError(f"layer {name!r} has weights that are infinite or NaN; train it anew, or load other weights")
    layer = linear_conv_like(module, alpha, rank, sparsity)
    others = layer.primaries * layer.geometry.groups < module.out_channels
    if others and sum(p.numel() for p in layer.parameters()) >= sum(p.numel() for p in module.parameters()):
        return None
    layer.to_empty(device=weight.device)
    fit(layer, weight.detach())
    if module.bias is not None:
        layer.bias = nn.Parameter(module.bias.detach(), requires_grad=module.bias.requires_grad)
    return tagged(layer, module)

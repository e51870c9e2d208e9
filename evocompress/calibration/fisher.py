"""How much the loss minds an error in each tensor, from a few training images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from evocompress.data.examples import Examples
from evocompress.support.diagnosis import check_gradient
from evocompress.support.modules import evaluation_mode

__all__ = ["sensitivities"]

_GROUPS = 16
_FLOOR = 1e-6  # of the largest scale: a dead tensor is cheap to damage, not free
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def sensitivities(
    model: nn.Module, examples: Examples, *, samples: int = 256, seed: int, device: torch.device | str = "cpu"
) -> dict[str, float]:
    """A positive scale for every floating tensor of the state dict: its mean diagonal of the Fisher information.

    The squared gradient of the loss at a label drawn from the network's own prediction, averaged over the tensor's
    elements and over `samples` images (Martens, 2014, section 5). Such gradients have mean zero for each image, so the
    squared gradient of a group's summed loss estimates the sum of the squared gradients of its members without bias;
    16 groups cost a fraction of an epoch and leave a relative error of about a tenth. The scales are normalised so
    that their geometric mean, weighted by the number of elements, is 1: the rate weight λ then means what it means
    without data.

    Batch normalisation's running statistics have no gradient in torch; theirs follows exactly from those of its weight
    and bias. Any other float buffer gets the neutral 1, a tensor without gradient a small floor. `model` is moved to
    `device`, its weights, gradients and mode are left as they were. Raises ModelError where no output depends on a
    parameter by a gradient.
    """
    model.to(device)
    examples = examples.to(device)
    parameters = {name: parameter.detach().requires_grad_() for name, parameter in model.named_parameters()}
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(examples), generator=generator)[:samples].to(device)
    groups = chosen.tensor_split(min(_GROUPS, len(chosen)))
    sums: dict[str, Tensor] = {}
    with evaluation_mode(model):
        for index in groups:
            gradients = _gradients(model, parameters, examples.batch(index)[0], generator)
            for name, square in _mean_squares(model, gradients):
                sums[name] = sums[name] + square if name in sums else square
    found = torch.stack([*sums.values()]).tolist() if sums else []  # one wait for the device, not one a tensor
    return _normalised(model, dict(zip(sums, found, strict=True)))


def _gradients(
    model: nn.Module, parameters: Mapping[str, Tensor], images: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    logits: Tensor = functional_call(model, dict(parameters), (images,))
    if parameters:
        check_gradient(model, images, logits)
    chances = (
        logits.detach().float().softmax(1).nan_to_num(0.0) + 1e-12
    )  # a draw needs some chance, even after overflow
    labels = torch.multinomial(chances.cpu(), 1, generator=generator)[:, 0].to(logits.device)
    loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(parameters, found, strict=True) if gradient is not None}


def _mean_squares(model: nn.Module, gradients: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, gradient in gradients.items():
        yield name, gradient.square().mean().float()
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        weight, bias = gradients.get(f"{prefix}weight"), gradients.get(f"{prefix}bias")
        if isinstance(module, _NORMS) and module.running_var is not None and weight is not None and bias is not None:
            # y = weight · (x - mean) / sqrt(var + eps) + bias, so these are the chain rule and nothing else.
            spread, slope = module.running_var + module.eps, module.weight.detach()
            yield f"{prefix}running_mean", (bias * slope * spread.rsqrt()).square().mean().float()
            yield f"{prefix}running_var", (weight * slope / (2 * spread)).square().mean().float()


def _normalised(model: nn.Module, sums: Mapping[str, float]) -> dict[str, float]:
    state = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    shared = dict(_aliases(model))
    found = {name: sums.get(shared.get(name, name)) for name in state}
    trained = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    usable = [scale for scale in found.values() if scale is not None and 0 < scale < math.inf]
    if not usable:
        return dict.fromkeys(state, 1.0)
    top = max(usable)
    scales: dict[str, float] = {}
    for name, scale in found.items():
        if scale is not None and not math.isfinite(scale):
            scales[name] = top
        elif scale is not None or name in trained:
            scales[name] = max(scale or 0.0, _FLOOR * top)
    total = sum(state[name].numel() for name in scales)
    mean = sum(state[name].numel() * math.log(scale) for name, scale in scales.items()) / total
    return {name: math.exp(math.log(scales[name]) - mean) if name in scales else 1.0 for name in state}


def _aliases(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Pairs of a shared parameter's other name and the name it is counted under."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        yield name, first[id(parameter)]

"""Diagonal Fisher information of each tensor: first-order sensitivities from a few training examples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from evocompress.calibration.running_statistics import statistics_gradients
from evocompress.data.examples import Examples
from evocompress.protocols import Task
from evocompress.support.diagnosis import check_gradient
from evocompress.support.inputs import Inputs, call_with
from evocompress.support.modules import (
    evaluation_mode,
    first_names,
    first_tensor,
    gradients_of_recurrent_layers,
    tensors_of,
)
from evocompress.tasks import DEFAULT_TASK, build

__all__ = ["sensitivities"]

_GROUPS = 16
_FLOOR = 1e-6  # of the largest scale: a dead tensor is cheap to damage, not free


def sensitivities(
    model: nn.Module,
    examples: Examples,
    *,
    samples: int = 256,
    seed: int,
    device: torch.device | str = "cpu",
    task: Task | None = None,
    in_nats: bool = False,
) -> dict[str, float]:
    """A positive scale for every floating tensor of the state dict: its mean diagonal of the Fisher information.

    The squared gradient of the loss at a target drawn from the network's own prediction (`task.draw`), averaged over
    the tensor's elements and over `samples` images (Martens, 2014, section 5). Such gradients have mean zero for each
    image, so the squared gradient of a group's summed loss estimates the sum of the squared gradients of its members
    without bias; 16 groups cost a fraction of an epoch and leave a relative error of about a tenth. The scales are
    normalised so that their geometric mean, weighted by the number of elements, is 1: the rate weight λ then means
    what it means without data. `in_nats`: not normalised, but half of the information, so that scale times squared
    error is the expected rise of the task's mean loss, which λ in nats is exchanged for.

    Batch normalisation's running statistics have no gradient in torch; theirs follows exactly from those of its weight
    and bias. Any other float buffer gets the neutral 1, a tensor without gradient a small floor. `model` is moved to
    `device`, its weights, gradients and mode are left as they were. Raises ModelError where no output depends on a
    parameter by a gradient.
    """
    task = build(DEFAULT_TASK) if task is None else task
    model.to(device)
    examples = examples.to(device)
    parameters = {name: parameter.detach().requires_grad_() for name, parameter in model.named_parameters()}
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(examples), generator=generator)[:samples].to(device)
    groups = chosen.tensor_split(min(_GROUPS, len(chosen)))
    sums: dict[str, Tensor] = {}
    with evaluation_mode(model), gradients_of_recurrent_layers(model):
        for index in groups:
            gradients = _gradients(model, task, parameters, *examples.batch(index), generator)
            for name, square in _mean_squares(model, gradients):
                sums[name] = sums[name] + square if name in sums else square
    means = torch.stack([*sums.values()]).tolist() if sums else []  # one wait for the device, not one a tensor
    return _scales(model, dict(zip(sums, means, strict=True)), in_nats)


def _gradients(
    model: nn.Module,
    task: Task,
    parameters: Mapping[str, Tensor],
    inputs: Inputs,
    targets: Tensor,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    outputs = call_with(model, parameters, inputs)
    if parameters:
        check_gradient(model, inputs, first_tensor(outputs))
    loss = task.loss(outputs, task.draw(outputs, targets, generator), {}, reduction="sum")
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None}


def _mean_squares(model: nn.Module, gradients: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, gradient in gradients.items():
        yield name, gradient.square().mean().float()
    for name, gradient in statistics_gradients(model, gradients):
        yield name, gradient.square().mean().float()


def _scales(model: nn.Module, sums: Mapping[str, float], in_nats: bool) -> dict[str, float]:
    state = {name: tensor for name, tensor in tensors_of(model).items() if tensor.is_floating_point()}
    shared = first_names(model)
    measured = {name: sums.get(shared.get(name, name)) for name in state}
    trained = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    usable = [scale for scale in measured.values() if scale is not None and 0 < scale < math.inf]
    if not usable:
        return dict.fromkeys(state, 1.0)
    top = max(usable)
    scales: dict[str, float] = {}
    for name, scale in measured.items():
        if scale is not None and not math.isfinite(scale):
            scales[name] = top
        elif scale is not None or name in trained:
            scales[name] = max(scale or 0.0, _FLOOR * top)
    total = sum(state[name].numel() for name in scales)
    mean = sum(state[name].numel() * math.log(scale) for name, scale in scales.items()) / total
    neutral = 0.5 * math.exp(mean) if in_nats else 1.0
    return {name: neutral * math.exp(math.log(scales[name]) - mean) if name in scales else neutral for name in state}

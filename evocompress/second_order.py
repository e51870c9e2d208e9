"""Second-order sensitivities from a few examples: which errors of a layer's weights the network's outputs mind.

Labels are not used. For each example one random direction of the outputs is drawn, and its gradient gives an unbiased
sample of what errors cost in squared outputs (a Gauss-Newton matrix: Martens, 2014). On a network that is nearly always
right on what it was trained on, this says more than the Fisher information, which is nearly zero there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn

from evocompress.codecs import Sensitivity
from evocompress.data.examples import Examples
from evocompress.errors import ModelError
from evocompress.evaluation import evaluation_mode

__all__ = ["second_order_sensitivities"]

_BATCH = 64
_FLOOR = 1e-6  # of the largest scale: a dead tensor is cheap to damage, not free
_MAX_COLUMNS = 8192  # a matrix with more columns gets a scale only; H would take more than half a gigabyte
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
#: A module's inputs and output gradients to rows of H's inputs (groups, n, K) and squared gradients (O,).
_Moments: TypeAlias = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]


def second_order_sensitivities(
    model: nn.Module,
    examples: Examples,
    *,
    samples: int = 1024,
    seed: int,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> dict[str, float | Sensitivity]:
    """A `Sensitivity` for the weights of convolutions and linear layers, a scale for every other floating tensor.

    H is the second moment of the layer's inputs, g that of its output gradients, and their product is scaled so that
    its trace is that of the Gauss-Newton matrix, which the Kronecker product misses by a factor of 0.2 to 3. All are
    normalised together so that the geometric mean of the scales, weighted by the number of elements, is 1.

    Args:
        model: The network; moved to `device`; weights, gradients and mode are left as they were.
        examples: Calibration examples, as the network was trained on.
        samples: How many of them to draw, without replacement.
        seed: Of the draws.
        progress: Called with the share that is done, from 0 to 1.

    Raises:
        ModelError: The network fails on the examples, or its outputs are not finite.
    """
    model.to(device)
    examples = examples.to(device)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(examples), generator=generator)[:samples].to(device)
    moments, squares = _Collector(model), dict[str, Tensor]()
    parameters = dict(model.named_parameters())
    needs = {name: parameter.requires_grad for name, parameter in parameters.items()}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    try:
        with evaluation_mode(model), moments:
            for start in range(0, len(chosen), _BATCH):
                images = examples.batch(chosen[start : start + _BATCH])[0]
                gradients = _gradients(model, parameters, images, generator)
                for name, square in _squares(model, gradients):
                    squares[name] = squares.get(name, torch.zeros((), dtype=torch.float64)) + square
                if progress is not None:
                    progress(min((start + _BATCH) / len(chosen), 1.0))
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad_(needs[name])
    return _normalised(model, moments, squares, len(chosen))


def _gradients(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], images: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    outputs = model(images)
    if not isinstance(outputs, Tensor) or not outputs.isfinite().all():
        what = "outputs that are not finite" if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
        raise ModelError(f"the network gives {what} on calibration examples of shape {tuple(images.shape)}")
    direction = torch.randn(outputs.shape, generator=generator).to(outputs)
    direction -= direction.mean(dim=-1, keepdim=True)  # a constant added to all logits changes nothing
    found = torch.autograd.grad((outputs * direction).sum(), list(parameters.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(parameters, found, strict=True) if gradient is not None}


def _squares(model: nn.Module, gradients: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Sums of squared gradients. Directions of a batch's examples are independent, so the sum's square is fair."""
    for name, gradient in gradients.items():
        yield name, gradient.double().square().sum().cpu()
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        weight, bias = gradients.get(f"{prefix}weight"), gradients.get(f"{prefix}bias")
        if isinstance(module, _NORMS) and module.running_var is not None and weight is not None and bias is not None:
            # y = weight · (x - mean) / sqrt(var + eps) + bias, so these are the chain rule and nothing else.
            spread, slope = module.running_var + module.eps, module.weight.detach()
            yield f"{prefix}running_mean", (bias * slope * spread.rsqrt()).double().square().sum().cpu()
            yield f"{prefix}running_var", (weight * slope / (2 * spread)).double().square().sum().cpu()


def _convolution(module: nn.Module, inputs: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    assert isinstance(module, nn.Conv1d | nn.Conv2d)
    kernel, stride, dilation = module.kernel_size, module.stride, module.dilation
    padding = module._reversed_padding_repeated_twice
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    padded = nn.functional.pad(inputs, padding, mode=mode)
    if isinstance(module, nn.Conv1d):
        padded, kernel, stride, dilation = padded[:, :, None], (1, *kernel), (1, *stride), (1, *dilation)
    patches = nn.functional.unfold(padded, kernel, dilation=dilation, stride=stride)  # (n, C·k, positions)
    patches = patches.view(len(inputs), module.groups, -1, patches.shape[2]).permute(1, 0, 3, 2)
    # Summed over positions on the side of the gradients, so averaged over them here.
    rows = patches.reshape(module.groups, -1, patches.shape[3]) / math.sqrt(patches.shape[2])
    return rows, gradients.flatten(2).square().sum(dim=(0, 2))


def _linear(module: nn.Module, inputs: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    inputs, gradients = inputs.reshape(-1, inputs.shape[-1]), gradients.reshape(-1, gradients.shape[-1])
    return inputs[None], gradients.square().sum(dim=0)


_MOMENTS: dict[type[nn.Module], _Moments] = {nn.Conv1d: _convolution, nn.Conv2d: _convolution, nn.Linear: _linear}


def _columns(module: nn.Module) -> int:
    """K of a layer's weights."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.numel() // max(len(weight), 1)


class _Collector:
    """Adds up H and g of every layer that has them, while it is entered."""

    def __init__(self, model: nn.Module) -> None:
        self.H: dict[str, Tensor] = {}
        self.g: dict[str, Tensor] = {}
        self._layers = {
            f"{path}.weight" if path else "weight": module
            for path, module in model.named_modules()
            if type(module) in _MOMENTS and _columns(module) <= _MAX_COLUMNS
        }
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> _Collector:
        for name, module in self._layers.items():
            self._handles.append(module.register_forward_hook(self._hook(name)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def forward(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            x = inputs[0].detach()
            if output.requires_grad:
                output.register_hook(lambda gradients: self._add(name, module, x, gradients))  # type: ignore[no-untyped-call]

        return forward

    def _add(self, name: str, module: nn.Module, inputs: Tensor, gradients: Tensor) -> None:
        rows, squares = _MOMENTS[type(module)](module, inputs.float(), gradients.float())
        H, g = (rows.mT @ rows).double().cpu(), squares.double().cpu()
        self.H[name] = self.H[name] + H if name in self.H else H
        self.g[name] = self.g[name] + g if name in self.g else g


def _normalised(
    model: nn.Module, moments: _Collector, squares: Mapping[str, Tensor], count: int
) -> dict[str, float | Sensitivity]:
    """Sums over `count` examples to sensitivities: ½·squared gradient per element, Kronecker factors of that trace."""
    state = {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    scales = {
        name: 0.5 * float(squares[name]) / (count * max(state[name].numel(), 1)) for name in squares if name in state
    }
    for name, scale in scales.items():
        if not math.isfinite(scale):
            raise ModelError(f"the gradient of {name!r} is not finite on the calibration examples")
    usable = {name: scale for name, scale in scales.items() if scale > 0}
    if not usable:
        return dict.fromkeys(state, 1.0)
    total = sum(state[name].numel() for name in usable)
    middle = math.exp(sum(state[name].numel() * math.log(scale) for name, scale in usable.items()) / total)
    least = _FLOOR * max(usable.values())
    found: dict[str, float | Sensitivity] = {}
    for name in state:
        # A buffer without gradient (not of batch normalisation) is neither dead nor known: the neutral 1.
        scale = max(scales[name], least) / middle if name in scales else 1.0
        found[name] = _kronecker(moments, name, scale) or scale
    return found


def _kronecker(moments: _Collector, name: str, scale: float) -> Sensitivity | None:
    """Factors of this mean; None where the layer has none, or they are zero (it never ran, or its input is dead)."""
    if name not in moments.H:
        return None
    factors = Sensitivity(moments.H[name].numpy(), moments.g[name].numpy())
    return factors.scaled(scale / factors.scale) if factors.scale > 0 else None

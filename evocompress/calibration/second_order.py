"""Second-order sensitivities from a few examples: which errors of a layer's weights the network's outputs mind.

Of labels only the kind is used: where they are classes, a constant added to all outputs changes nothing. For each
example one random direction of the outputs is drawn, and its gradient gives an unbiased sample of what errors cost in
squared outputs (a Gauss-Newton matrix: Martens, 2014). On a network that is nearly always right on what it was trained
on, this says more than the Fisher information, which is nearly zero there.

Where a layer's view says so (`LayerView.is_output`), what that layer returns counts as an output too.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from evocompress.calibration.layer_views import view_of
from evocompress.calibration.moments import Moments
from evocompress.calibration.output_change import are_logits, scales_of_numbers
from evocompress.calibration.running_statistics import statistics_gradients
from evocompress.codecs import Sensitivity
from evocompress.data.examples import Examples
from evocompress.errors import ModelError
from evocompress.support.diagnosis import check_gradient, failure, overflow
from evocompress.support.inputs import HALF_PRECISION, Inputs, call, count, described
from evocompress.support.modules import (
    evaluation_mode,
    first_names,
    first_tensor,
    gradients_of_recurrent_layers,
    tensors_of,
)

__all__ = ["second_order_sensitivities"]

_BATCH = 64
_OUTPUTS = 1 << 24  # numbers that the network may return at a time
_FLOOR = 1e-6  # of the largest scale: a dead tensor is cheap to damage, not free


def second_order_sensitivities(
    model: nn.Module,
    examples: Examples,
    *,
    samples: int = 1024,
    seed: int,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> dict[str, float | Sensitivity]:
    """A `Sensitivity` for the weight matrices of layers that have a view, a scale for other float tensors.

    These are convolutions, linear, recurrent and attention layers, embeddings, and layers of ideas (layer_views/). H
    is the second moment of the layer's inputs (of an embedding: a multiple of the identity), g that of its output
    gradients (of an embedding: by token), and their product is scaled so that its trace is that of the Gauss-Newton
    matrix, which the Kronecker product misses by a factor of 0.2 to 3. All are normalised together so that the
    geometric mean of the scales, weighted by the number of elements, is 1. A tensor that goes by several names has
    the same under each.

    Args:
        model: The network; moved to `device`; weights, gradients and mode are left as they were. It may return a tensor
            of any shape (n, …), or what `first_tensor` finds one in.
        examples: Calibration examples, as the network was trained on.
        samples: How many of them to draw, without replacement.
        seed: Of the draws.
        progress: Called with the share that is done, from 0 to 1.

    Raises:
        ModelError: The network fails on the examples, or its outputs or gradients are not finite, or have no gradient.
    """
    model.to(device)
    examples = examples.to(device)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(examples), generator=generator)[:samples].to(device)
    moments, squares = Moments(model), dict[str, Tensor]()
    kind = _Kind(are_logits(examples), scales_of_numbers(examples))
    with evaluation_mode(model), _differentiable(model) as parameters:
        size = _batch_size(model, examples)
        with moments:
            for start in range(0, len(chosen), size):
                inputs = examples.batch(chosen[start : start + size])[0]
                gradients = _gradients(model, parameters, inputs, generator, kind)
                moments.gradients(gradients)
                for name, square in _squares(model, gradients):
                    if not square.isfinite() or moments.overflown:
                        raise ModelError(
                            f"inputs or gradients of the layer of {moments.overflown or name!r} are too large to "
                            f"square, or NaN, on the calibration examples: {overflow(model, inputs)}"
                        )
                    squares[name] = squares.get(name, torch.zeros((), dtype=torch.float64)) + square
                if progress is not None:
                    progress(min((start + size) / len(chosen), 1.0))
    return _normalised(model, moments, squares, len(chosen))


@contextlib.contextmanager
def _differentiable(model: nn.Module) -> Iterator[dict[str, nn.Parameter]]:
    """The float parameters, all of them with gradients meanwhile."""
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.is_floating_point()}
    needs = {name: parameter.requires_grad for name, parameter in parameters.items()}
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        with gradients_of_recurrent_layers(model):
            yield parameters
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad_(needs[name])


def _batch_size(model: nn.Module, examples: Examples) -> int:
    """So many examples that their outputs are not too large: a language model's are, with a number for each word."""
    with torch.no_grad():
        outputs = _outputs(model, examples.batch(slice(0, 2))[0])
    return min(max(_OUTPUTS * len(outputs) // max(outputs.numel(), 1), 1), _BATCH)


def _outputs(model: nn.Module, inputs: Inputs) -> Tensor:
    """The network's outputs (n, …).

    Raises:
        ModelError: It fails, or its outputs are not finite or not one for each example.
    """
    subject = f"calibration examples of {described(inputs)}"
    try:
        outputs = first_tensor(call(model, inputs))
    except ModelError:
        raise
    except Exception as cause:
        raise failure(model, inputs, subject, cause) from cause
    if not outputs.ndim or len(outputs) != count(inputs) or not outputs.is_floating_point():
        raise ModelError(
            f"the network gives {outputs.dtype} {tuple(outputs.shape)} on {subject}; must be floats (n, …)"
        )
    if not outputs.isfinite().all():
        raise ModelError(f"the network gives outputs that are not finite on {subject}: {overflow(model, inputs)}")
    return outputs.float() if outputs.dtype in HALF_PRECISION else outputs


def _gradients(
    model: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    inputs: Inputs,
    generator: torch.Generator,
    kind: _Kind,
) -> dict[str, Tensor]:
    if not parameters:
        return {}
    with _further_outputs(model) as further:
        outputs = _outputs(model, inputs)
    check_gradient(model, inputs, outputs)
    total = _along(outputs, generator, kind)
    # All of them together count as much as the outputs do, however large they are.
    share = math.sqrt(outputs.numel() / max(sum(output.numel() for output in further), 1))
    for output in further:
        total = total + share * _along(output.movedim(1, -1), generator, _Kind(logits=True))
    gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    pairs = zip(parameters, gradients, strict=True)
    return {name: gradient.to_dense() for name, gradient in pairs if gradient is not None}


@contextlib.contextmanager
def _further_outputs(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what layers that count as outputs (n, channels, …) return while the network runs."""
    outputs: list[Tensor] = []

    def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        outputs.append(output)

    modules = [module for module in model.modules() if (view := view_of(module)) is not None and view.is_output]
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


class _Kind(NamedTuple):
    """What outputs are: logits, or numbers, each of its own standard deviation; or neither."""

    logits: bool
    scales: Tensor | None = None


def _along(outputs: Tensor, generator: torch.Generator, kind: _Kind) -> Tensor:
    """The outputs (n, …) along a random direction, a scalar."""
    direction = torch.randn(outputs.shape, generator=generator).to(outputs)
    if kind.logits and outputs.ndim > 1 and outputs.shape[-1] > 1:
        direction -= direction.mean(dim=-1, keepdim=True)  # a constant added to all logits changes nothing
    if kind.scales is not None and outputs[0].numel() == kind.scales.numel():
        direction /= kind.scales.to(direction).view(direction.shape[1:])  # each number counts by its own variance
    return (outputs * direction).sum()


def _squares(model: nn.Module, gradients: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Sums of squared gradients. Directions of a batch's examples are independent, so the sum's square is fair."""
    for name, gradient in gradients.items():
        yield name, gradient.double().square().sum().cpu()
    for name, gradient in statistics_gradients(model, gradients):
        yield name, gradient.double().square().sum().cpu()


def _normalised(
    model: nn.Module, moments: Moments, squares: Mapping[str, Tensor], count: int
) -> dict[str, float | Sensitivity]:
    """Sums over `count` examples to sensitivities: ½·squared gradient per element, Kronecker factors of that trace."""
    state = {name: tensor for name, tensor in tensors_of(model).items() if tensor.is_floating_point()}
    scales = {
        name: 0.5 * float(squares[name]) / (count * max(state[name].numel(), 1)) for name in squares if name in state
    }
    usable = {name: scale for name, scale in scales.items() if scale > 0}
    if not usable:
        return dict.fromkeys(state, 1.0)
    total = sum(state[name].numel() for name in usable)
    middle = math.exp(sum(state[name].numel() * math.log(scale) for name, scale in usable.items()) / total)
    least = _FLOOR * max(usable.values())
    by_name: dict[str, float | Sensitivity] = {}
    for name, scale in scales.items():
        scale = max(scale, least) / middle
        by_name[name] = moments.sensitivity(name, scale) or scale
    names = first_names(model)
    # A buffer without gradient (not of batch normalisation) is neither dead nor known: the neutral 1.
    return {name: by_name.get(names.get(name, name), 1.0) for name in state}

"""Temperature scaling: the confidence of a classifier, fitted on held-out examples by a scale of its logits.

Networks are surer of new examples than they should be (Guo et al., "On Calibration of Modern Neural Networks", 2017),
and coarser weights make that worse. A scale of the last layer mends it, moves no decision and costs no byte. Against
examples that the network was trained on it looks unneeded, so that it takes others to fit it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import scipy  # its parts are imported when they are first used, which takes half a second
import torch
from torch import Tensor, nn

from evocompress.data.examples import IGNORED, Examples
from evocompress.errors import DataError, ModelError
from evocompress.support.devices import check_device
from evocompress.support.inputs import Inputs, call
from evocompress.support.modules import evaluation_mode, first_tensor
from evocompress.tasks.classification import check_fit

__all__ = ["Confidence", "fit_confidence", "output_layer"]

_LEAST = 0.05  # scales are looked for between this and 1
_EXAMPLES = 4096
_NUMBERS = 1 << 26  # logits that are held at a time
_BATCH = 128
_PROPORTIONAL = 1e-3  # of the largest output: rounding, and no more
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Confidence(NamedTuple):
    """A scale of the logits in (0, 1], the path of the layer that makes them, held-out loss without and with it."""

    scale: float
    layer: str
    before: float
    after: float

    def scaled(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A checkpoint with the layer's weight and bias multiplied by the scale."""
        names = {f"{self.layer}.{leaf}" if self.layer else leaf for leaf in ("weight", "bias")}
        return {name: tensor * self.scale if name in names else tensor for name, tensor in state.items()}


def fit_confidence(model: nn.Module, held_out: Examples, device: torch.device | str = "cpu") -> Confidence:
    """The scale of a classifier's logits at which held-out cross-entropy is least; 1 where none below 1 is better.

    It is never above 1: on examples that the network has seen, more confidence always seems better.

    Args:
        model: A network that gives logits (n, classes) or (n, L, classes); moved to `device`, otherwise left as it was.
        held_out: Labelled examples that the network was not trained on; at most 4 096 of them are used.
        device: Where to compute.

    Raises:
        ConfigError: There is no such device.
        DataError: The examples have no labels.
        ModelError: No single layer makes the logits, or the outputs are no logits for these labels.
    """
    check_device(device)
    if not held_out.is_labelled:
        raise DataError(
            "the held-out examples have no labels (all are -100), so no confidence can be fitted; "
            "give labels, or fit none"
        )
    check_fit(model, held_out, 1 + int(held_out.labels.max()))
    layer = output_layer(model, held_out, device)
    logits, labels = _logits(model, held_out, device)

    def loss(log_scale: float) -> float:
        return float(nn.functional.cross_entropy(logits * math.exp(log_scale), labels, ignore_index=IGNORED))

    fit = scipy.optimize.minimize_scalar(loss, bounds=(math.log(_LEAST), 0.0), method="bounded")
    before = loss(0.0)
    if not fit.fun < before:  # NaN too
        return Confidence(1.0, layer, before, before)
    return Confidence(math.exp(fit.x), layer, before, float(fit.fun))


def output_layer(model: nn.Module, examples: Examples, device: torch.device | str = "cpu") -> str:
    """The path of the layer to whose weight and bias all outputs are proportional.

    Raises:
        ModelError: There is none: outputs are normalised, or come from several layers, or the weight is used elsewhere.
    """
    model.to(device)
    inputs = examples.to(device).batch(slice(0, 2))[0]
    called: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, path=path: called.append(path))
        for path, module in model.named_modules()
        if isinstance(module, _LAYERS)
    ]
    with evaluation_mode(model), torch.no_grad():
        try:
            outputs = first_tensor(call(model, inputs))
        finally:
            for handle in handles:
                handle.remove()
        if not called:
            raise ModelError("no linear or convolutional layer makes the network's outputs, so no scale can be fitted")
        path = called[-1]
        layer = model.get_submodule(path)
        if called.count(path) > 1 or _is_tied(model, layer) or not _is_proportional(model, layer, inputs, outputs):
            raise ModelError(
                f"the network's outputs are not proportional to the weights of its last layer, {path!r}, "
                "or these serve elsewhere too, so no scale can be fitted"
            )
    return path


def _is_tied(model: nn.Module, layer: nn.Module) -> bool:
    """Whether another module has one of the layer's parameters too."""
    parameters = {id(parameter) for parameter in layer.parameters(recurse=False)}
    uses = sum(id(parameter) in parameters for _, parameter in model.named_parameters(remove_duplicate=False))
    return uses > len(parameters)


def _is_proportional(model: nn.Module, layer: nn.Module, inputs: Inputs, outputs: Tensor) -> bool:
    """Whether half the layer's parameters give half the outputs; the parameters are left as they were."""
    parameters = list(layer.parameters(recurse=False))
    kept = [parameter.detach().clone() for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.mul_(0.5)
        halved = first_tensor(call(model, inputs))
    finally:
        for parameter, values in zip(parameters, kept, strict=True):
            parameter.copy_(values)
    deviation = (2 * halved - outputs).abs().max() / outputs.abs().max().clamp_min(1e-30)
    return bool(deviation < _PROPORTIONAL)  # not where outputs are not finite


def _logits(model: nn.Module, examples: Examples, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Logits (m, classes) in float32 and labels (m,) of as many examples as are used."""
    examples = examples.to(device)
    batches: list[Tensor] = []
    labels: list[Tensor] = []
    with evaluation_mode(model), torch.inference_mode():
        while (start := _BATCH * len(batches)) < min(len(examples), _EXAMPLES):
            inputs, targets = examples.batch(slice(start, start + _BATCH))
            batches.append(first_tensor(call(model, inputs)).flatten(0, -2).float())
            labels.append(targets.flatten())
            if sum(logits.numel() for logits in batches) > _NUMBERS:
                break
    return torch.cat(batches), torch.cat(labels)

"""Diagnosis of networks that cannot be measured on some examples: no gradient, overflow, a failing forward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from evocompress.errors import ModelError
from evocompress.support.inputs import Inputs, call, tensors_in

__all__ = ["check_gradient", "failure", "overflow"]


def failure(model: nn.Module, inputs: Inputs, what: str, cause: Exception) -> ModelError:
    """The error for a network that raised `cause` on inputs that `what` describes, with a hint where one is known."""
    others = sorted({str(p.dtype) for p in model.parameters() if p.is_floating_point() and p.dtype != torch.float32})
    hint = ""
    if all(tensor.is_floating_point() for tensor in tensors_in(inputs)) and "indices" in str(cause):
        hint = "; it looks up tokens, which must be integers (int64): noise has none, so give data"
    elif others:
        hint = f"; its parameters are {' and '.join(others)}: return it with .float(), if it can compute so"
    return ModelError(f"the network fails on {what}: {cause}{hint}")


def overflow(model: nn.Module, inputs: Inputs) -> str:
    """Where numbers first are not finite, or too large for float32 to square, and what helps."""
    large = [tensor for tensor in tensors_in(inputs) if _is_large(tensor)]
    if large:
        return f"inputs are as large as {_largest(large[0])}; normalise them, to a variance of 1, say"
    faults: list[str] = []

    def hook(path: str) -> Any:
        def forward(module: nn.Module, _: Any, output: Any) -> None:
            if not faults and isinstance(output, Tensor) and _is_large(output):
                broken = any(_is_large(tensor) for tensor in module.parameters(recurse=False))
                why = "its weights are as large, or NaN" if broken else "normalise the inputs"
                faults.append(f"first the outputs of {_named(path, module)}, as large as {_largest(output)}; {why}")

        return forward

    _run(model, inputs, hook)
    return faults[0] if faults else "no layer's outputs are; so gradients are: of a root or a quotient at 0, perhaps"


def check_gradient(model: nn.Module, inputs: Inputs, outputs: Tensor) -> None:
    """Raise ModelError where the outputs, computed from the inputs with gradients on, have no gradient."""
    if outputs.requires_grad:
        return
    cuts: list[str] = []

    def hook(path: str) -> Any:
        def forward(module: nn.Module, _: Any, output: Any) -> None:
            trainable = [parameter for parameter in module.parameters(recurse=False) if parameter.requires_grad]
            if not cuts and trainable and isinstance(output, Tensor) and not output.requires_grad:
                cuts.append(_named(path, module))

        return forward

    _run(model, inputs, hook)
    why = (
        f"gradients are off in {cuts[0]}; take @torch.no_grad() or torch.inference_mode() out of the forward"
        if cuts
        else "its layers have gradients, but its forward detaches them; take .detach(), .data or the like out of it"
    )
    raise ModelError(f"the network's outputs depend on none of its parameters by a gradient, as they must: {why}")


def _run(model: nn.Module, inputs: Inputs, hook: Any) -> None:
    """Run the network once more with a forward hook on every module; hooks get the module's path."""
    handles = [module.register_forward_hook(hook(path)) for path, module in model.named_modules()]
    try:
        call(model, inputs)
    finally:
        for handle in handles:
            handle.remove()


def _is_large(x: Tensor) -> bool:
    return not bool(x.detach().float().square().sum().isfinite())


def _largest(x: Tensor) -> str:
    return f"{float(x.detach().float().abs().max()):.3g}"


def _named(path: str, module: nn.Module) -> str:
    return f"{path!r} ({type(module).__name__})" if path else f"the network itself ({type(module).__name__})"

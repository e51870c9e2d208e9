"""Trained parameters of a network: weights, kernels of convolutions, and places that are dropped."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from evocompress.codecs.symmetry import kernel_shape

__all__ = ["living_places", "trained_kernels", "trained_weights"]

_PLAIN = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def trained_kernels(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters that hold kernels of more than one place and are trained, with their names.

    They are those of torch's convolutions and what is derived from them, and of layers that say `has_kernels`, such as
    those of LinearConv. Whatever else has three or more dimensions (an embedding of positions, say) is
    no kernel. Nor are the free numbers that a parametrisation makes a weight of, and parameters without a shape yet.

    >>> class Tokens(nn.Conv1d):
    ...     pass
    >>> [name for name, _ in trained_kernels(nn.Sequential(Tokens(4, 4, 3), nn.Conv2d(4, 4, 1), nn.Bilinear(4, 4, 4)))]
    ['0.weight']
    """
    layers = (m for m in model.modules() if isinstance(m, _PLAIN) or getattr(m, "has_kernels", False))
    held = {id(parameter) for layer in layers for parameter in layer.parameters(recurse=False)}
    for name, parameter in model.named_parameters():
        if id(parameter) in held and parameter.requires_grad and not is_lazy(parameter):
            if kernel_shape(tuple(parameter.shape)) is not None:
                yield name, parameter


def trained_weights(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters of two dimensions or more that are trained, with their names: all but biases and norms.

    >>> [name for name, _ in trained_weights(nn.Sequential(nn.Linear(4, 2), nn.Conv2d(4, 4, 1)))]
    ['0.weight', '1.weight']
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not is_lazy(parameter) and parameter.ndim >= 2:
            yield name, parameter


def living_places(model: nn.Module) -> dict[str, Tensor]:
    """For trained weights of which some may be dropped: which are not, bool, of the weight's shape, by its name.

    Layers that drop weights say so by a method `living_weights()`, which gives pairs of a parameter and such a mask.
    What is dropped is computed with as zero, whatever the parameter holds there.
    """
    alive: dict[int, Tensor] = {}
    for module in model.modules():
        living_weights: Callable[[], Iterator[tuple[nn.Parameter, Tensor]]] | None = getattr(
            module, "living_weights", None
        )
        alive |= {id(parameter): places for parameter, places in living_weights()} if living_weights else {}
    return {name: alive[id(parameter)] for name, parameter in trained_weights(model) if id(parameter) in alive}

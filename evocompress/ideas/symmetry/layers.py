"""Layers whose kernels have a symmetry by construction: torch parametrisations of ordinary convolutions.

The parameter is then the free numbers of each kernel, in the orthonormal basis of codecs/symmetry_groups.py, so that a
gradient step is the projection of the one that the whole kernel would have made. `release` makes plain weights again,
which the codec "symmetry" finds to be exactly symmetric. `constrained` does it to a whole network, as an option asks.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from evocompress.codecs.symmetry_groups import SYMMETRIES, group
from evocompress.errors import ConfigError, ModelError
from evocompress.support.user_objects import one_of

__all__ = [
    "Axis",
    "Kernels",
    "RankOneKernel",
    "SymmetricKernel",
    "constrain",
    "constrained",
    "make_radial",
    "make_separable",
    "make_separable_1d",
    "release",
]

#: The direction in which a kernel varies: "x" along a row, "y" down a column.
Axis: TypeAlias = Literal["x", "y"]
#: What kernels are to be like: one word for all convolutions of a network, or one for each (`constrained`).
Kernels: TypeAlias = str | Sequence[str]

Layer = TypeVar("Layer", bound=nn.Module)


class SymmetricKernel(nn.Module):
    """Free numbers (O, I, n_free) to kernels (O, I, …) of a symmetry; `right_inverse` is the orthogonal projection.

    Those of one-dimensional kernels are (O, I, 1, w) or (O, I, h, 1), so that a codec, and a network constrained along
    the other axis, can tell which axis it is.
    """

    index: Tensor
    sign: Tensor
    scale: Tensor

    def __init__(self, symmetry: str, kernel_size: tuple[int, ...]) -> None:
        super().__init__()
        size = (math.prod(kernel_size[:-1]), kernel_size[-1])
        try:
            symmetry_group = group(symmetry, *size)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if not symmetry_group.n_free:
            raise ConfigError(
                f"Kernels of {size[0]} × {size[1]} places that are {symmetry!r} are all zero; take another."
            )
        self.symmetry, self.kernel_size = symmetry, kernel_size
        self.free_shape: tuple[int, ...] = {
            "identical-rows": (*(1 for _ in kernel_size[1:]), size[1]),
            "identical-columns": (*kernel_size[:-1], 1),
        }.get(symmetry, (symmetry_group.n_free,))
        live = symmetry_group.index < symmetry_group.n_free
        self.register_buffer("index", torch.from_numpy(symmetry_group.index * live), persistent=False)
        self.register_buffer("sign", torch.from_numpy(symmetry_group.sign), persistent=False)
        self.register_buffer("scale", torch.from_numpy(symmetry_group.size).double().rsqrt(), persistent=False)

    def forward(self, free: Tensor) -> Tensor:
        """Each number to all places of its orbit, with their signs: equal places are equal bit for bit."""
        kernels = (free.flatten(2) * self.scale.to(free.dtype))[..., self.index] * self.sign.to(free.dtype)
        return kernels.reshape(*free.shape[:2], *self.kernel_size)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The free numbers of the nearest kernels of this symmetry."""
        flat = weight.flatten(2) * self.sign.to(weight.dtype)
        free = weight.new_zeros(*weight.shape[:2], len(self.scale))
        free = free.index_add(2, self.index, flat) * self.scale.to(weight.dtype)
        return free.reshape(*weight.shape[:2], *self.free_shape)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{self.symmetry!r}, kernel_size={self.kernel_size}"


class RankOneKernel(nn.Module):
    """Columns (O, I, h) and rows (O, I, w) to their outer products (h·w numbers of rank one)."""

    def forward(self, column: Tensor, row: Tensor) -> Tensor:
        """Kernels (O, I, h, w)."""
        return column[..., :, None] * row[..., None, :]

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest kernels of rank one (Eckart and Young, 1936), both factors of equal norm.

        A zero kernel has a row that is not zero: with two zero factors it could never learn.
        """
        wide = weight.to(torch.promote_types(weight.dtype, torch.float32))  # half precision has no decomposition
        left, sizes, right = torch.linalg.svd(wide, full_matrices=False)
        root = sizes[..., :1].sqrt()
        column, row = left[..., 0] * root, right[..., 0, :] * torch.where(root > 0, root, 1.0)
        return column.to(weight.dtype), row.to(weight.dtype)


def _check(layer: nn.Module) -> Tensor:
    weight, kind = getattr(layer, "weight", None), type(layer).__name__
    if not isinstance(weight, Tensor) or weight.ndim < 3:
        raise ModelError(f"{kind} has no kernels to constrain; give a convolution.")
    if parametrize.is_parametrized(layer, "weight"):
        raise ModelError(f"The weight of this {kind} has a parametrisation already; release it first.")
    if "weight" not in dict(layer.named_parameters(recurse=False)):
        raise ModelError(f"The weight of this {kind} is made of other parameters; give a convolution that learns it.")
    if not weight.isfinite().all():
        raise ModelError(f"The weight of this {kind} holds NaN or infinity; train it anew, or load other weights.")
    return weight


def constrain(layer: Layer, symmetry: str) -> Layer:
    """Give all kernels of a convolution a symmetry, for good: its weight becomes the nearest such one and stays so.

    Args:
        layer: A convolution of any number of dimensions; those before the last count as height.
        symmetry: A name of `evocompress.codecs.symmetry_groups.SYMMETRIES`.

    Returns:
        The same layer.

    Raises:
        ModelError: A layer without kernels, or whose weight is parametrised, made of other parameters, infinite or NaN.
        ConfigError: No such symmetry, one that the kernels cannot have, or one that leaves nothing but zeros.

    >>> layer = constrain(nn.Conv2d(3, 8, 5), "both-mirrors")
    >>> layer.parametrizations.weight.original.shape, bool((layer.weight == layer.weight.flip(3)).all())
    (torch.Size([8, 3, 9]), True)
    """
    weight = _check(layer)
    kernel = SymmetricKernel(symmetry, tuple(weight.shape[2:])).to(weight.device)
    parametrize.register_parametrization(layer, "weight", kernel)
    return layer


def make_radial(layer: Layer) -> Layer:
    """Kernels that depend on the distance from their centre alone (see `constrain`)."""
    return constrain(layer, "radial")


def make_separable_1d(layer: Layer, axis: Axis) -> Layer:
    """One-dimensional kernels: they vary along `axis` alone, "x" (identical rows) or "y" (identical columns).

    Such a convolution is a box filter along the other axis after a one-dimensional one along this.

    Raises:
        ConfigError: Another axis. (And see `constrain`.)

    >>> layer = make_separable_1d(nn.Conv2d(1, 1, 3), "x")
    >>> bool((layer.weight[..., 0, :] == layer.weight[..., 2, :]).all())
    True
    """
    if axis not in get_args(Axis):
        raise ConfigError(f'axis is {axis!r}; it must be "x" (kernels vary along rows) or "y" (down columns).')
    return constrain(layer, "identical-rows" if axis == "x" else "identical-columns")


def make_separable(layer: Layer) -> Layer:
    """Kernels of rank one: the outer product of a column and a row, h + w numbers in place of h·w.

    Raises:
        ModelError: Not a two-dimensional convolution. (And see `constrain`.)
    """
    weight = _check(layer)
    if weight.ndim != 4:
        raise ModelError(f"A weight of shape {tuple(weight.shape)} has no rank-one kernels; give a Conv2d.")
    parametrize.register_parametrization(layer, "weight", RankOneKernel())
    return layer


_MADE: dict[str, Callable[[nn.Module], nn.Module]] = {
    "free": lambda layer: layer,
    "x": functools.partial(make_separable_1d, axis="x"),
    "y": functools.partial(make_separable_1d, axis="y"),
    "separable": make_separable,
}


def constrained(network: Layer, kernels: Kernels = "free") -> Layer:
    """Constrain the convolutions of a network, as networks' option `kernels` asks.

    Args:
        network: Changed in place. Its `torch.nn.Conv2d` count, in the order in which it has them.
        kernels: "free" (as they are), "radial", "x" or "y" (`make_separable_1d`), "separable" (`make_separable`), or
            any symmetry that `constrain` takes; one for all convolutions, or a list with one for each.

    Returns:
        The same network.

    Raises:
        ModelError: An unknown word, a list of another length, or one that these kernels cannot have.

    >>> network = constrained(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)), ["free", "radial"])
    >>> [tuple(parameter.shape) for parameter in network.parameters()]
    [(4, 1, 3, 3), (4,), (4,), (4, 4, 3)]
    """
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)}
    words = [kernels] * len(layers) if isinstance(kernels, str) else kernels
    if not isinstance(words, Sequence) or len(words) != len(layers):
        layer_list = f"the network has {len(layers)} convolutions, {', '.join(layers)}"
        raise ModelError(
            f"kernels is {kernels!r}; give one word, or a list with one for each convolution: {layer_list}."
        )
    kinds = [*_MADE, *(name for name in SYMMETRIES if name not in ("none", "zero"))]
    for word in words:
        if word not in kinds:
            raise ModelError(f"kernels is {kernels!r}, and {word!r} is no kind of kernel. {one_of(kinds, str(word))}")
    for (name, layer), word in zip(layers.items(), words, strict=True):
        try:
            _MADE.get(word, functools.partial(constrain, symmetry=word))(layer)
        except (ConfigError, ModelError) as error:
            raise ModelError(f"kernels is {kernels!r}; layer {name!r} cannot be {word!r}: {error}") from error
    return network


def release(model: nn.Module) -> int:
    """Turn every constrained convolution in a network into a plain one with the weights that it has; how many.

    Train no further with an optimiser that was made before: it holds the parameters that are gone.
    """
    count = 0
    for layer in list(model.modules()):
        if not parametrize.is_parametrized(layer, "weight"):
            continue
        chain: Any = layer.parametrizations
        if any(isinstance(step, SymmetricKernel | RankOneKernel) for step in chain["weight"]):
            _give_separate_class(layer)
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
            count += 1
    return count


def _give_separate_class(layer: nn.Module) -> None:
    """Give a parametrised layer a class that no other has: torch's deep copies share one, and removal empties it."""
    shared = type(layer)
    separate: Any = type(shared.__name__, shared.__bases__, dict(shared.__dict__))
    layer.__class__ = separate

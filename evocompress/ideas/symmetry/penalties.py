"""Penalties on the information in kernels and other weights, to train networks that a codec finds cheap.

Three measures, each differentiable, each of one weight: the distance to the nearest symmetry (of
codecs/symmetry_groups.py), the entropy of the quantised values, and how many values are different. The last two take a
weight between two levels to be on either with the probability of stochastic rounding, so that moving it changes them
(soft assignment: Agustsson et al., "Soft-to-Hard Vector Quantization", 2017; here the two nearest levels only).
`KernelPenalties` adds them up over a network.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from evocompress.codecs.symmetry import kernel_shape
from evocompress.codecs.symmetry_groups import group, groups
from evocompress.errors import ConfigError, ModelError
from evocompress.ideas.symmetry.trained_kernels import living_places, trained_kernels, trained_weights

__all__ = [
    "KernelPenalties",
    "Pool",
    "finite_number",
    "flat_kernels",
    "nearest_symmetry_distance",
    "relative_weight",
    "soft_distinct_values",
    "soft_entropy",
    "symmetry_names",
    "symmetry_residuals",
    "trained_kernels",
]

#: Whether values are counted within each kernel (and averaged over kernels), or over a whole tensor.
Pool: TypeAlias = Literal["kernel", "tensor"]

_SURE = 1 - 1e-6  # the most certain that an assignment counts as, so that logarithms stay finite
_SPAN = 1024  # levels from the least to the largest, up to which each has a place in the histogram
_LEAST = 0.01  # of a tensor's mean kernel energy: a kernel with less is not seen as if it had that much


def finite_number(name: str, value: object, low: float = 0.0, high: float = math.inf, *, zero: bool = True) -> None:
    """Check that an argument is a finite number in [low, high]; without `zero`, and not 0. Raises ConfigError."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if number and math.isfinite(value) and low <= value <= high and (zero or value):  # type: ignore[arg-type,operator]
        return
    rule = (
        f"in [{low:g}, {high:g}]" if high < math.inf else "finite and not negative" if zero else "positive and finite"
    )
    raise ConfigError(f"{name} is {value!r}; it must be {rule}.")


def flat_kernels(weight: Tensor) -> Tensor:
    """A weight (O, I, …, w) as kernels (O·I, places). Raises ModelError for fewer than three dimensions."""
    if weight.ndim < 3:
        shape = tuple(weight.shape)
        raise ModelError(f"A weight of shape {shape} has no kernels; give one of a convolution, (O, I, h, w).")
    return weight.reshape(-1, math.prod(weight.shape[2:]))


def relative_weight(weight: Tensor) -> Tensor:
    """A weight in units of the power of two below its largest magnitude, in float32 or float64.

    So squares neither overflow nor vanish, sums have more than the few digits of half precision, and nothing is
    rounded. The unit is not part of the gradient.
    """
    wide = _wide(weight)
    if not wide.numel():
        return wide
    largest = wide.detach().abs().max()
    unit = largest / (2 * largest.frexp().mantissa)
    return wide / torch.where(largest >= torch.finfo(wide.dtype).tiny, unit, 1.0)  # smaller units have no inverse


def _wide(weight: Tensor) -> Tensor:
    return weight.to(torch.promote_types(weight.dtype, torch.float32))


def symmetry_names(weight: Tensor, names: Sequence[str] | None = None) -> list[str]:
    """The symmetries that a weight's kernels can have, without "none"; or those asked for, checked.

    Raises:
        ConfigError: A name is unknown, or not one that kernels of this shape can have.
    """
    size = kernel_shape(tuple(weight.shape))
    if size is None:
        return []
    if names is None:
        return [name for name in groups(*size) if name != "none"]
    if isinstance(names, str):
        raise ConfigError(f"names is {names!r}; give a list of names, such as [{names!r}].")
    try:
        return [group(name, *size).name for name in names]
    except ValueError as error:
        raise ConfigError(str(error)) from None


@functools.lru_cache(maxsize=256)
def _bases(size: tuple[int, int], names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Bases one below the other (rows, places), and which of `names` a row belongs to, (rows,)."""
    chosen = [group(name, *size) for name in names]
    with torch.inference_mode(False):  # they are kept, and training cannot use tensors that were made for inference
        rows = torch.cat([torch.from_numpy(g.basis) for g in chosen])
        return rows, torch.repeat_interleave(torch.tensor([g.n_free for g in chosen]))


def symmetry_residuals(weight: Tensor, names: Sequence[str]) -> Tensor:
    """Squared norms of what is left of each kernel when it is snapped, (O·I, len(names)); differentiable.

    In at least float32, whatever the weight is in. The residual is orthogonal to the projection, so that its energy is
    the kernel's less that of its coefficients.
    """
    kernels = flat_kernels(_wide(weight))
    size = kernel_shape(tuple(weight.shape))
    if size is None or not names:
        return kernels.new_zeros(len(kernels), len(names))
    rows, owner = _bases(size, tuple(names))
    with torch.autocast(kernels.device.type, enabled=False):  # it would multiply in half precision
        energy = (kernels @ rows.to(kernels).T).square()
    inside = kernels.new_zeros(len(kernels), len(names)).index_add(1, owner.to(kernels.device), energy)
    return (kernels.square().sum(1, keepdim=True) - inside).clamp_min(0)


def _free_shares(weight: Tensor, names: Sequence[str]) -> Tensor:
    size = kernel_shape(tuple(weight.shape))
    shares = [group(name, *size).n_free / math.prod(size) for name in names] if size else []
    return torch.tensor(shares, dtype=weight.dtype, device=weight.device)


def nearest_symmetry_distance(weight: Tensor, names: Sequence[str] | None = None, *, price: float = 0.0) -> Tensor:
    """How far kernels are from their nearest symmetries: mean of squared residual / squared norm, in [0, 1].

    Which one is nearest to a kernel is the least of that ratio + `price` · free numbers / places. With 0 it is one that
    keeps many numbers; with 1 white noise is equally near to all, and simple symmetries attract from further away than
    they are. Zero kernels, and weights whose kernels have one place, are at distance 0, with gradient 0; kernels with
    less than a hundredth of the mean energy of all are weighed as if they had that much, so that gradients stay small.

    Args:
        weight: (O, I, h, w), or with other than two spatial dimensions.
        names: The symmetries to choose from; None for all that the shape allows.
        price: Not negative.

    Raises:
        ModelError: A weight without kernels.
        ConfigError: An unknown symmetry, one that the shape rules out, or a negative price.

    >>> sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    >>> nearest_symmetry_distance(sobel[None, None]).item()
    0.0
    """
    finite_number("price", price)
    relative, chosen = relative_weight(weight), symmetry_names(weight, names)
    kernels = flat_kernels(relative)
    if not chosen or not kernels.numel():
        return kernels.sum() * 0
    norm = kernels.square().sum(1, keepdim=True)
    least = (_LEAST * norm.detach().mean()).clamp_min(torch.finfo(norm.dtype).tiny)  # all may be zero
    ratio = symmetry_residuals(relative, chosen) / norm.clamp_min(least)
    nearest = (ratio + price * _free_shares(relative, chosen)).detach().argmin(1, keepdim=True)
    return ratio.gather(1, nearest).mean()


def _assigned(weight: Tensor, step: float | Tensor, pool: Pool) -> tuple[Tensor, Tensor, int, int]:
    """Shares (2n,) of n weights on the levels below and above, the bin of each (2n,), how many bins and pools."""
    if pool not in get_args(Pool):
        raise ConfigError(f"pool is {pool!r}; it must be one of {', '.join(get_args(Pool))}.")
    finite_number("step", step.item() if isinstance(step, Tensor) and step.numel() == 1 else step, zero=False)
    # A bin's expected count, and the difference of two levels, need more digits than half precision has.
    weight = _wide(weight)
    kernels = flat_kernels(weight) if pool == "kernel" else weight.reshape(1, -1)
    levels = kernels / step
    below = levels.detach().floor()
    above = levels - below
    places, count = _numbered(below)
    bins = places + count * torch.arange(len(kernels), device=weight.device)[:, None]
    return torch.stack([1 - above, above]).reshape(-1), bins.reshape(-1), len(kernels) * count, len(kernels)


def _numbered(levels: Tensor) -> tuple[Tensor, int]:
    """Where whole numbers and those one above them, (2, …), are in one list of them all, and that list's length."""
    if levels.numel():
        least, most = torch.aminmax(levels)
        count = float(most - least) + 2
        if count <= _SPAN:
            place = (levels - least).long()
            return torch.stack([place, place + 1]), int(count)
    # Some weights are far from all others: a list of those numbers alone that occur, which takes sorting them.
    numbers, places = torch.unique(torch.stack([levels, levels + 1]), return_inverse=True)
    return places, len(numbers)


def soft_entropy(weight: Tensor, step: float | Tensor, pool: Pool = "tensor") -> Tensor:
    """Entropy of a weight's quantised values in bits per value, under stochastic rounding to multiples of `step`.

    The histogram is that of the expected counts. `pool` "kernel" takes one histogram for each kernel and averages their
    entropies. 0 for an empty weight.

    Raises:
        ConfigError: A step that is not positive, an unknown pool.
        ModelError: `pool` is "kernel" and the weight has none.

    >>> soft_entropy(torch.tensor([0.0, 1.0, 1.0, 2.0]), 1.0).item()
    1.5
    """
    shares, bins, count, pools = _assigned(weight, step, pool)
    if not weight.numel():
        return weight.sum() * 0
    expected = shares.new_zeros(count).index_add(0, bins, shares) * (pools / weight.numel())
    # x·log x has slope -∞ at 0; a level that nothing is on must not pull at what is just beside it.
    present = expected.clamp_min(torch.finfo(expected.dtype).tiny)
    return -(expected * present.log2()).sum() / pools


def soft_distinct_values(weight: Tensor, step: float | Tensor, pool: Pool = "kernel") -> Tensor:
    """How many different values a kernel (or tensor) is expected to have after stochastic rounding to a `step`.

    Σ over levels of 1 - Π over weights of (1 - share), averaged over kernels. 0 for an empty weight.

    Raises:
        ConfigError: A step that is not positive, an unknown pool.
        ModelError: `pool` is "kernel" and the weight has none.

    >>> round(soft_distinct_values(torch.tensor([[[0.0, 1.0, 1.0]], [[0.0, 0.0, 0.5]]]), 1.0).item(), 3)
    1.75
    """
    shares, bins, count, pools = _assigned(weight, step, pool)
    if not weight.numel():
        return weight.sum() * 0
    missing = torch.log1p(-shares.clamp_max(_SURE))
    absent = shares.new_zeros(count).index_add(0, bins, missing)
    return -torch.expm1(absent).sum() / pools


@dataclasses.dataclass(frozen=True)
class KernelPenalties:
    """Weights of the three terms; 0 switches one off. Each term is a mean over tensors, weighted by their numbers.

    - `symmetry`: of `nearest_symmetry_distance` at `price`, of the network's kernels
    - `entropy`: of `soft_entropy` over each tensor, in bits per weight, of all weights: kernels and matrices
    - `distinct`: of `soft_distinct_values` of each kernel, over its number of places
    - `step`: the quantiser's step that the last two assume, in root mean squares of the tensor
    """

    symmetry: float = 0.0
    entropy: float = 0.0
    distinct: float = 0.0
    step: float = 0.25
    price: float = 0.5

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            finite_number(field.name, getattr(self, field.name), zero=field.name != "step")

    def __call__(self, model: nn.Module) -> Tensor:
        """The sum of the terms over a network's weights as they are computed with; 0 if it has none.

        To be added to the network's loss. Not finite where a weight is infinite or NaN, as that loss is.
        """
        alive = living_places(model)
        penalised = trained_weights(model) if self.entropy else trained_kernels(model)
        weights = {name: weight * alive[name] if name in alive else weight for name, weight in penalised}
        kernels = {name for name, _ in trained_kernels(model)}
        total = sum(weight.numel() for weight in weights.values())
        kernel_total = sum(weights[name].numel() for name in kernels)
        terms = [
            self._tensor_terms(
                weight, weight.numel() / total, weight.numel() / kernel_total if name in kernels else 0.0
            )
            for name, weight in weights.items()
            if weight.numel()
        ]
        if terms:
            return torch.stack(terms).sum()
        return torch.zeros((), device=next((parameter.device for parameter in model.parameters()), None))

    def _tensor_terms(self, weight: Tensor, share: float, kernel_share: float) -> Tensor:
        """One tensor's part of the terms; it has this share of the weights, and of the kernels (0: it has none)."""
        relative = relative_weight(weight)  # none of the terms changes with a weight's scale
        term = relative.new_zeros(())
        if self.symmetry and kernel_share:
            term = term + self.symmetry * kernel_share * nearest_symmetry_distance(relative, price=self.price)
        step = self.step * relative.detach().square().mean().sqrt()
        if not step.isfinite():
            return relative.sum() * math.nan
        if (self.entropy or self.distinct) and float(step) > 0:  # a zero weight has no information to take away
            if self.entropy:
                term = term + self.entropy * share * soft_entropy(relative, step)
            if self.distinct and kernel_share:
                places = math.prod(weight.shape[2:])
                term = term + self.distinct * kernel_share * soft_distinct_values(relative, step) / places
        return term

"""Freeze and fine-tune: some kernels are snapped to symmetries and frozen, the rest adapts, then the next ones follow.

Kernels of a trained network are co-adapted, so that snapping all of them at once breaks what they do together; one
after the other, those that are left can make up for the error (as incremental quantisation does with weights: Zhou et
al., "Incremental Network Quantization", 2017).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from evocompress.codecs.symmetry import kernel_shape
from evocompress.codecs.symmetry_groups import SYMMETRIES, Group, group, needs_square
from evocompress.errors import ConfigError, ModelError
from evocompress.ideas.symmetry.penalties import finite_number, flat_kernels, relative_weight, symmetry_names
from evocompress.ideas.symmetry.trained_kernels import living_places, trained_kernels

__all__ = ["FrozenKernels", "freeze_and_fine_tune", "snap"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class _Choice(NamedTuple):
    """For each kernel of one parameter: the place of its best symmetry in `names`, and what snapping it gains."""

    names: list[str]
    best: Tensor
    gain: Tensor


class FrozenKernels:
    """The kernels of a network that are snapped, and the values that they are held at.

    `masks` and `values` are by parameter name: bool (O, I), True where frozen, and the weight as it is to be there.
    The network's parameters are looked up by name whenever they are held, and masks and values follow them to their
    device and dtype, so that it may be moved, converted, or given new ones.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        kernels = dict(trained_kernels(model))
        self.masks = {name: torch.zeros(p.shape[:2], dtype=torch.bool, device=p.device) for name, p in kernels.items()}
        self.values = {name: p.detach().clone() for name, p in kernels.items()}

    def parameters(self) -> dict[str, nn.Parameter]:
        """The network's parameters of those names as they are now.

        Raises:
            ModelError: One is gone, or has another shape.
        """
        parameters = dict(self.model.named_parameters())
        for name, values in self.values.items():
            if name not in parameters or parameters[name].shape != values.shape:
                raise ModelError(f"The network has no parameter {name!r} of shape {tuple(values.shape)} any more.")
            self.masks[name] = self.masks[name].to(parameters[name].device)
            self.values[name] = values.to(parameters[name])
        return {name: parameters[name] for name in self.values}

    @property
    def fraction(self) -> float:
        """The share of all kernels that is frozen, in [0, 1]; 1 for a network without kernels."""
        total = sum(mask.numel() for mask in self.masks.values())
        return sum(int(mask.sum()) for mask in self.masks.values()) / total if total else 1.0

    @torch.no_grad()
    def freeze(self, name: str, chosen: Tensor, values: Tensor) -> None:
        """Hold the kernels of a parameter where `chosen` (O, I) is True at those of `values` (of its shape)."""
        self.parameters()
        self.masks[name] |= chosen
        self.values[name][chosen] = values[chosen]
        self.hold()

    @torch.no_grad()
    def hold(self) -> None:
        """Put the frozen kernels back: after an optimiser's step, whatever its momentum or decay did to them."""
        for name, parameter in self.parameters().items():
            frozen = self.masks[name][(...,) + (None,) * (parameter.ndim - 2)]
            parameter.copy_(torch.where(frozen, self.values[name], parameter))

    def attach(self, optimiser: torch.optim.Optimizer) -> Callable[[], None]:
        """Hold after each step of an optimiser from now on; call what comes back to end that."""

        def after(optimiser: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            self.hold()

        return optimiser.register_step_post_hook(after).remove

    def state_dict(self) -> dict[str, Tensor]:
        """Masks and values as tensors: what `load_state_dict` of the same network's takes."""
        masks = {f"mask.{name}": mask.clone() for name, mask in self.masks.items()}
        return masks | {f"value.{name}": value.clone() for name, value in self.values.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over a stored state, and hold it.

        Raises:
            ModelError: It is that of another network.
        """
        expected = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if expected != shapes:
            names = sorted(n for n in expected.keys() | shapes.keys() if expected.get(n) != shapes.get(n))
            raise ModelError(f"The stored frozen kernels are those of another network; they differ in {names[:4]}.")
        for name, parameter in self.parameters().items():
            self.masks[name] = state[f"mask.{name}"].to(parameter.device, torch.bool)
            self.values[name] = state[f"value.{name}"].to(parameter)
        self.hold()


def _fitting_symmetries(weight: Tensor, names: Sequence[str]) -> list[str]:
    """Those of the names that this weight's kernels can have."""
    size = kernel_shape(tuple(weight.shape)) or (1, 1)
    square = size[0] == size[1]
    return [name for name in names if name != "none" and (square or not needs_square(name))]


def _coefficients(symmetry: Group, kernels: Floats, alive: Bools) -> tuple[Floats, Bools]:
    """Coefficients (n, n_free) of kernels (n, places), and which are free: the others would fill a dropped place."""
    free = symmetry.coefficients(np.where(alive, 0.0, symmetry.sign)) == 0
    return np.where(free, symmetry.coefficients(kernels), 0.0), free


def _flat(weight: Tensor) -> Any:
    """An array of its own (kernels, places)."""
    return flat_kernels(weight).cpu().numpy().copy()


def _choose(weight: Tensor, alive: Tensor, names: Sequence[str] | None, price: float) -> _Choice:
    """Energy lost + price · free numbers / places, in mean energies of the layer's kernels; against losing nothing."""
    chosen = symmetry_names(weight) if names is None else _fitting_symmetries(weight, names)
    kernels, alive_places = _flat(relative_weight(weight * alive).double()), _flat(alive)
    size = kernel_shape(tuple(weight.shape))
    if not chosen or size is None:
        return _Choice([], torch.zeros(len(kernels)).long(), torch.full((len(kernels),), -math.inf).double())
    energies = (kernels**2).sum(axis=1)
    scores = np.empty((len(chosen), len(kernels)))
    for row, name in zip(scores, chosen, strict=True):
        kept, free = _coefficients(group(name, *size), kernels, alive_places)
        energy_lost = np.maximum(energies - (kept**2).sum(axis=1), 0.0)
        row[:] = energy_lost / (energies.mean() or 1.0) + price * free.sum(axis=1) / kernels.shape[1]
    return _Choice(chosen, torch.from_numpy(scores.argmin(axis=0)), torch.from_numpy(price - scores.min(axis=0)))


def _snapped(weight: Tensor, alive: Tensor, choice: _Choice) -> Tensor:
    """The weight with every kernel at its best symmetry: free numbers, then copies, so that equals are equal."""
    size = kernel_shape(tuple(weight.shape)) or (1, 1)
    kernels, alive_places, best = _flat(weight.double()), _flat(alive), choice.best.numpy()
    for place, name in enumerate(choice.names):
        symmetry, members = group(name, *size), best == place
        kernels[members] = symmetry.kernels(_coefficients(symmetry, kernels[members], alive_places[members])[0])
    return torch.from_numpy(kernels).to(weight).reshape(weight.shape)


def snap(
    model: nn.Module,
    fraction: float = 1.0,
    symmetries: Sequence[str] | None = None,
    *,
    price: float = 1.0,
    frozen: FrozenKernels | None = None,
) -> FrozenKernels:
    """Snap and freeze the kernels that lose least, until `fraction` of all kernels of the network are frozen.

    A kernel takes the symmetry of least energy lost + `price` · free numbers / places, energies in means of its layer's
    kernels: with price 1, snapping an average kernel that is white noise gains nothing, whatever the symmetry.
    Places that an over-provisioned layer has dropped stay zero, and so does every place that a symmetry ties to them.

    Args:
        model: Changed in place. Kernels are those of its convolutions (`trained_kernels`), of more than one place.
        fraction: In [0, 1], of the kernels of all layers together, those that are frozen already included. Of
            `LinearConv2d` they are the primary filters' kernels; the other filters are made of those.
        symmetries: Names to choose from; None for all. Layers of kernels that are not square leave out those that
            need it; kernels that can have none of them are never frozen.
        price: Positive; larger ones take simpler symmetries.
        frozen: What an earlier call returned, to go on from.

    Raises:
        ConfigError: A fraction or price out of range, no or unknown symmetries.
        ModelError: The network has no kernels, or ones that are infinite or NaN; or `frozen` is of another network.
    """
    finite_number("fraction", fraction, high=1.0)
    finite_number("price", price, zero=False)
    _check_names(symmetries)
    parameters = _kernels(model)
    frozen = FrozenKernels(model) if frozen is None else frozen
    if frozen.model is not model or frozen.parameters().keys() != parameters.keys():
        raise ModelError("frozen belongs to another network, or one that trained others; start with frozen=None.")
    alive = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in parameters.items()}
    alive |= living_places(model)
    choices = {name: _choose(weight.detach(), alive[name], symmetries, price) for name, weight in parameters.items()}
    gains = torch.cat([_gain(choice, frozen.masks[name]) for name, choice in choices.items()])
    order = torch.argsort(gains, descending=True, stable=True)
    to_freeze = torch.zeros(len(gains), dtype=torch.bool)
    to_freeze[order[: round(fraction * len(gains))]] = True
    to_freeze &= gains > -math.inf
    start = 0
    for name, parameter in parameters.items():
        mask = frozen.masks[name]
        fresh = to_freeze[start : start + mask.numel()].reshape(mask.shape).to(mask.device) & ~mask
        frozen.freeze(name, fresh, _snapped(parameter.detach(), alive[name], choices[name]))
        start += mask.numel()
    return frozen


def _kernels(model: nn.Module) -> dict[str, nn.Parameter]:
    parameters = dict(trained_kernels(model))
    if not parameters:
        raise ModelError("The network has no trained kernels of more than one place, so there is nothing to snap.")
    for name, parameter in parameters.items():
        if not parameter.isfinite().all():
            raise ModelError(f"{name!r} has weights that are infinite or NaN; train it anew, or load other weights.")
    return parameters


def _check_names(symmetries: Sequence[str] | None) -> None:
    if symmetries is None:
        return
    listed = not isinstance(symmetries, str) and all(name in SYMMETRIES for name in symmetries)
    if not listed or not set(symmetries) - {"none"}:
        names = ", ".join(name for name in SYMMETRIES if name != "none")
        raise ConfigError(f"symmetries is {symmetries!r}; give None for all, or a list of at least one of {names}.")


def _gain(choice: _Choice, mask: Tensor) -> Tensor:
    """Gains (O·I,), infinite for kernels that are frozen: they count first."""
    return torch.where(mask.flatten().cpu(), math.inf, choice.gain)


def freeze_and_fine_tune(
    model: nn.Module,
    fractions: Sequence[float],
    fine_tune: Callable[[FrozenKernels], object],
    symmetries: Sequence[str] | None = None,
    *,
    price: float = 1.0,
) -> FrozenKernels:
    """Snap up to each of the fractions in turn, and let the rest adapt after each.

    Args:
        model: Changed in place.
        fractions: Ascending shares of all kernels, such as 0.25, 0.5, 0.75, 1.
        fine_tune: Trains the network for some epochs; its optimiser must be attached (`FrozenKernels.attach`), or
            `hold` called after each step. Weights without kernels, biases and norms go on adapting at fraction 1.
        symmetries, price: As in `snap`.

    Raises:
        ConfigError: Fractions that are not ascending, or not in [0, 1]. (And see `snap`.)
    """
    for fraction in fractions:
        finite_number("fraction", fraction, high=1.0)
    if not fractions or list(fractions) != sorted(set(fractions)):
        raise ConfigError(f"fractions is {list(fractions)}; give at least one, in ascending order.")
    frozen = FrozenKernels(model)
    for fraction in fractions:
        snap(model, fraction, symmetries, price=price, frozen=frozen)
        fine_tune(frozen)
        frozen.hold()
    return frozen

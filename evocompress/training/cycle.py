"""The cycle for a training loop of one's own, without Ray: you train → compress and choose → decode → you train on."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evocompress.checkpoint.grid import grid_of
from evocompress.checkpoint.packing import pack, unpack
from evocompress.checkpoint.presets import preset
from evocompress.checkpoint.recipe import Recipe
from evocompress.errors import ConfigError, ModelError
from evocompress.support.wording import kind_of, shortened

if TYPE_CHECKING:
    import torch

__all__ = ["Compressed", "Cycle"]


@dataclasses.dataclass(frozen=True)
class Compressed:
    """One compression that was tried: the file's bytes, the recipe, and the decoded network's quality.

    `grid` has the steps of the file's tensors, where the next `RateTerm` goes on (`checkpoint.grid.grid_of`).
    """

    data: bytes = dataclasses.field(repr=False)
    recipe: Recipe
    quality: float
    score: float
    grid: Mapping[str, float] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return len(self.data)


class Cycle:
    """Compresses a module in place, keeping of several recipes the one that scores best on size and quality.

    The score of a candidate is quality - size_weight·log2(bytes), where quality is what `evaluate(model)` returns for
    the decoded network (higher is better, an accuracy or a negative loss). `size_weight` is what halving the file is
    worth, in quality. After `step = cycle.compress()` the module holds the decoded weights of the winner, bit for bit
    what `unpack(step.data)` gives, so that training goes on from them. `best` is the best step of all so far.

    Args:
        model: The module; its whole state dict is coded.
        recipes: Candidates for each compression: recipes, or just rate weights λ, which mean what they mean to `pack`:
            the default preset, and `size_prior` where there are no sensitivities. Where numba is not installed that
            takes many times as long, and `Recipe(λ)` is quicker.
        evaluate: Called with the module once it holds decoded weights; returns a number, also as a tensor. Of NaN, a
            network that has diverged, another candidate's number wins.
        size_weight: Quality that halving the file is worth; ≥ 0.
        sensitivities: Called with the module before it is compressed, see `calibration`; None: data-free.

    Raises:
        ConfigError: No recipes, a negative size_weight, or an argument of another kind.

    >>> import torch
    >>> model = torch.nn.Linear(8, 4)
    >>> cycle = Cycle(model, recipes=[1e-4, 1e-2], evaluate=lambda m: 0.0, size_weight=0.1)
    >>> for epoch in range(2):
    ...     pass  # train the model here, as ever
    ...     step = cycle.compress()
    >>> step.nbytes == len(step.data) and cycle.best.recipe.rate_weight == 0.01
    True
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        recipes: Sequence[Recipe | float],
        evaluate: Callable[[torch.nn.Module], float],
        size_weight: float = 0.02,
        sensitivities: Callable[[torch.nn.Module], Mapping[str, float]] | None = None,
    ) -> None:
        _check_kinds(model, recipes, evaluate, sensitivities, size_weight)
        self.model = model
        self._candidates = tuple(recipes)
        self.recipes = tuple(r if isinstance(r, Recipe) else preset(rate_weight=r) for r in self._candidates)
        if not self.recipes:
            raise ConfigError("recipes is empty; give at least one Recipe or rate weight.")
        self.history: list[Compressed] = []
        self._evaluate, self._size_weight, self._sensitivities = evaluate, size_weight, sensitivities

    @property
    def best(self) -> Compressed:
        """The best-scoring compression of all so far.

        Raises:
            ModelError: There was none yet.
        """
        if not self.history:
            raise ModelError("Nothing has been compressed yet; call compress() first.")
        return max(self.history, key=lambda step: step.score)

    def compress(self, grid: Mapping[str, float] | None = None) -> Compressed:
        """Try every recipe on the module's weights, load the winner's decoded weights, and return the winner.

        If anything fails, the module keeps the weights that it had.

        Args:
            grid: What `RateTerm.finish` returned: the weights exactly as they were trained are one more candidate, with
                the first recipe's coder.

        Raises:
            CodecError: The weights cannot be coded (NaN after a divergence, say).
            ConfigError: `evaluate` returned no number, or none but NaN and -Inf: nothing to choose by.
        """
        original = {name: tensor.detach().clone() for name, tensor in self._tensors().items()}
        scales = None if self._sensitivities is None else self._sensitivities(self.model)
        try:
            attempts = [self._try(original, 0, scales, grid)] if grid else []
            attempts += [self._try(original, place, scales) for place in range(len(self.recipes))]
            best = max(attempts, key=lambda step: step.score)
            if best.score == -math.inf:
                qualities = ", ".join(str(step.quality) for step in attempts)
                raise ConfigError(
                    f"evaluate returned {qualities}: for no recipe a quality to choose by. Either all of them damage "
                    "the network too much, so that rate weights must be smaller, or evaluate is wrong."
                )
            self._load(best.data)
        except BaseException:
            self._put(original)
            raise
        self.history.append(best)
        return best

    def restore(self, step: Compressed | None = None) -> None:
        """Load a compression's decoded weights into the module; the best one's by default."""
        self._load((step or self.best).data)

    def _try(
        self,
        state: Mapping[str, torch.Tensor],
        place: int,
        scales: Mapping[str, float] | None,
        grid: Mapping[str, float] | None = None,
    ) -> Compressed:
        candidate = self.recipes[place] if grid is not None else self._candidates[place]
        data, recipe = pack(state, candidate, sensitivities=scales, grid=grid), self.recipes[place]
        self._load(data)
        quality = _number(self._evaluate(self.model))
        score = quality - self._size_weight * math.log2(len(data))
        return Compressed(data, recipe, quality, -math.inf if math.isnan(score) else score, grid_of(data, state))

    def _load(self, data: bytes) -> None:
        self._put(unpack(data, names=self._tensors()))

    def _put(self, state: Mapping[str, torch.Tensor]) -> None:
        from evocompress.checkpoint.loading import load_state

        load_state(self.model, state, "the compressed file")

    def _tensors(self) -> dict[str, torch.Tensor]:
        from evocompress.support.modules import tensors_of

        return tensors_of(self.model)


def _check_kinds(model: object, recipes: object, evaluate: object, sensitivities: object, size_weight: object) -> None:
    if not hasattr(model, "load_state_dict") or isinstance(model, type):
        raise ConfigError(f"model is {kind_of(model)}; it must be a torch.nn.Module.")
    if not isinstance(recipes, Iterable) or isinstance(recipes, str):
        raise ConfigError(f"recipes is {recipes!r}; it must be a list of Recipes or rate weights, such as [1e-4].")
    if not callable(evaluate):
        raise ConfigError(f"evaluate is {kind_of(evaluate)}; it must be a function of the model.")
    if sensitivities is not None and not callable(sensitivities):
        raise ConfigError(f"sensitivities is {kind_of(sensitivities)}; it must be a function of the model, or None.")
    if not (isinstance(size_weight, numbers.Real) and 0 <= float(size_weight) < math.inf):
        raise ConfigError(f"size_weight is {size_weight!r}; it must be a finite number ≥ 0.")


def _number(quality: Any) -> float:
    """What `evaluate` returned: a number, or an array or tensor of one."""
    try:
        number: object = quality.item() if hasattr(quality, "item") else quality
    except (RuntimeError, ValueError):  # torch's and numpy's for several elements
        number = quality
    if not isinstance(number, numbers.Real):
        raise ConfigError(
            f"evaluate returned {shortened(repr(quality))}; it must return one number, the quality of the network, "
            "where higher is better."
        )
    return float(number)

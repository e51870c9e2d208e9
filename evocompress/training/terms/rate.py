"""Rate term of a segment: λ·bits in its loss, and the grid that its file keeps (`quantised_training.RateTerm`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from evocompress.errors import ModelError
from evocompress.protocols import GeneSpec, TermContext, TrainingStep, Version
from evocompress.training.quantised_training import NOISE_SHARE, REACH, ROUNDINGS, STEP_RATE, RateTerm, Rounding
from evocompress.training.symbol_descent import Losses
from evocompress.training.terms.base import TermBase

__all__ = ["Rate"]

_WARM_UP = 0.3  # of a segment without a grid, until λ is what it is to be


class Rate(TermBase):
    """`training.quantised_training.RateTerm` for a segment: at the λ of its genome, from the grid of its parent's file.

    A segment without a grid, so one from random weights or from other codecs' file, begins with λ = 0: a network that
    knows nothing yet is cheapest when it is empty.
    """

    genes: ClassVar[Sequence[GeneSpec]] = (
        GeneSpec(
            "rate_term", "whether the loss of training knows what bytes cost: λ·bits·ln 2 / n is added", ["on"],
            kind="choice", options=("off", "on"), plain="off",
        ),
        GeneSpec(
            "rate_noise", "share of a segment in which noise stands for the quantiser; then it rounds",
            NOISE_SHARE, high=1.0, log=False, plain=NOISE_SHARE,
        ),
        GeneSpec(
            "rounding", "whether the rate draws weights to the cheaper whole number while they are rounded (drawn), or "
            "is that of the rounded ones (free); drawn is better with tens of thousands of examples, worse with a "
            "thousand", ["free"], kind="choice", options=ROUNDINGS, plain="free",
        ),
        GeneSpec(
            "step_rate", "learning rate of the logarithms of the quantisers' steps", STEP_RATE, plain=STEP_RATE
        ),
        GeneSpec(
            "reach", "least learning rate of a tensor's weights, in steps of its quantiser, with up to 1 000 examples; "
            "it falls with the root of their number", REACH, plain=REACH,
        ),
        GeneSpec(
            "symbol_trials", "how many other symbols and steps are tried on the training data at the end of a segment, "
            "below λ = 1 proportionally fewer; each takes a pass over them, or over 8 192 of them; 0: none",
            0, kind="whole", log=False, plain=0,
        ),
    )  # fmt: skip

    def __init__(
        self, rate_term: str, rate_noise: float, rounding: Rounding, step_rate: float, reach: float, symbol_trials: int
    ) -> None:
        self._on, self._trials = rate_term == "on", symbol_trials
        self._settings: dict[str, Any] = {
            "noise_share": rate_noise,
            "rounding": rounding,
            "step_rate": step_rate,
            "reach": reach,
        }
        self._rate: RateTerm | None = None
        self._losses: Losses | None = None
        self._rate_weight, self._fresh = 0.0, False
        self._untried: list[Version] = []

    def check(self, networks: Iterable[nn.Module]) -> None:
        """Refuse networks without a trained floating parameter."""
        trained = (p for network in networks for p in network.parameters() if p.requires_grad)
        if self._on and not any(parameter.is_floating_point() and parameter.numel() for parameter in trained):
            raise ModelError("rate_term has nothing to act on: the network has no trained floating parameters")

    def start(self, model: nn.Module, context: TermContext) -> Sequence[Mapping[str, Any]]:
        """The module's parameters in groups of their own, the steps and the rate model."""
        if not self._on or context.rate_weight <= 0:
            return ()
        self._rate_weight, self._fresh, self._losses = context.rate_weight, not context.grid, context.losses
        self._rate = RateTerm(
            model,
            context.rate_weight,
            examples=context.examples,
            learning_rate=context.learning_rate,
            grid=context.grid,
            seed=context.seed,
            **self._settings,
        )
        return self._rate.parameter_groups()

    def during(self, step: TrainingStep) -> contextlib.AbstractContextManager[None]:
        """Quantised weights."""
        if self._rate is None:
            return contextlib.nullcontext()
        if self._fresh:
            self._rate.rate_weight = self._rate_weight * min(1.0, step.progress / _WARM_UP)
        return self._rate.quantised(step.progress)

    def loss(self, step: TrainingStep) -> Tensor | None:
        """λ·bits·ln 2 / n."""
        return None if self._rate is None else self._rate.loss()

    def finish(self, *, diverged: bool) -> Mapping[str, float]:
        """Weights on the grid, and its steps; before that better ones are tried, if there are to be trials."""
        if self._rate is None or diverged:
            return {}
        # Below λ = 1 the loss of what was trained on counts for more than its description: what seems worth giving up
        # there costs more on other data than it does on these.
        trials = round(self._trials * min(1.0, self._rate_weight))
        if trials and self._losses is not None:
            grid = self._rate.finish()
            # Trials know training data alone, and may give up what counts on others: the search has both files.
            self._untried = [Version(self._rate.weights(), grid)]
            self._rate.rate_weight = self._rate_weight
            self._rate.descend(self._losses, trials)
        return self._rate.finish()

    def versions(self) -> Sequence[Version]:
        """The weights as they were before trials."""
        return self._untried

"""Quantised training of any module, in any loop: loss + λ·rate, with learned steps and rate model (`RateTerm`).

The forward pass sees quantised weights, the gradient goes straight through. First the quantiser is noise, uniform of a
step's width or around a soft rounding, and steps are learned; later it is rounding, at last on the scale of steps that
the file format has, so that what was trained is what the file holds (noise: Ballé et al., 2017; soft rounding:
Agustsson and Theis, 2020; learned steps: Esser et al., 2020; rate in the loss of weights: Oktay et al., 2020). λ is
nats of the data's loss per nat of code, so λ = 1 is the two-part code of minimum description length.
"""

from __future__ import annotations

import contextlib
import math
import numbers
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from evocompress.checkpoint.packing import pack
from evocompress.checkpoint.recipe import Recipe
from evocompress.codecs.scales import scale_code, scale_value
from evocompress.errors import ConfigError, ModelError
from evocompress.support.modules import check_not_scripted, tensors_of
from evocompress.support.wording import kind_of
from evocompress.training.rate_model import RateModel
from evocompress.training.symbol_descent import Descent, Losses, descend

__all__ = [
    "NOISE_SHARE",
    "REACH",
    "ROUNDINGS",
    "STEP_RATE",
    "RateTerm",
    "Rounding",
    "check_rate_weight",
    "nats_per_bit",
]

#: Defaults of `RateTerm`'s arguments, and of the genes that the term `rate` has for them.
NOISE_SHARE, STEP_RATE, REACH = 0.7, 3e-3, 0.05

Rounding = Literal["free", "drawn"]
#: What becomes of weights between whole numbers: `RateTerm`.
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)

_LOOK_EVERY = 16  # steps between looks at the contexts, which change slowly
_PART = 1 << 15  # weights whose rate is taken in a step; of more, each step takes a part, in turn
_MOST_PARTS = 8
_LARGEST_SYMBOL = 1 << 20
_FINEST = 0.02  # the least spread that steps are taken from: biases begin at zero
_EXAMPLES_OF_REACH = 1000
_SETTLED = 0.8  # of the training; then steps stay, on the scale of the format, if weights are rounded by then
_SHARPNESS = 4.0, 12.0  # of soft rounding: at first, and when noise ends
_STEP_OF_SPREAD = 0.25  # steps begin at this share of a tensor's standard deviation
_SQUARED_ERROR = 1e-4  # a λ below it is meant in squared error per bit, most likely: the unit of packing without data


def check_rate_weight(value: object) -> float:
    """λ as a number, in nats of the data's loss per nat of code.

    Raises:
        ConfigError: Not positive and finite, or so small that another unit is meant.

    >>> check_rate_weight(0.3)
    0.3
    """
    number = float(value) if isinstance(value, numbers.Real) else math.nan
    if not 0 < number < math.inf:
        raise ConfigError(f"rate_weight is {value!r}; it must be a positive, finite number, such as 0.3.")
    if number < _SQUARED_ERROR:
        raise ConfigError(
            f"rate_weight is {value!r}: so small that it must be meant in squared error per bit, the unit of packing "
            "without data. In training it is nats of the loss per nat of code; 0.05 to 5 are usual."
        )
    return number


def nats_per_bit(rate_weight: float, examples: int) -> float:
    """What a bit of the file costs in the mean loss over `examples`, in nats, at a rate weight λ: λ·ln 2 / n.

    >>> round(nats_per_bit(1.0, 1000), 6)
    0.000693
    """
    return rate_weight * math.log(2) / examples


def _count(examples: object) -> int:
    if not isinstance(examples, numbers.Integral) or examples < 1:
        raise ConfigError(f"examples is {examples!r}; it must be the number of training examples, at least 1.")
    return int(examples)


class RateTerm:
    """λ·bits·ln 2 / n of a module's parameters, which the forward pass sees quantised.

    Everything that is trained and of a floating type counts: kernels, matrices, embeddings, biases, norms. Shared
    parameters count once. Any network and loss will do; the module is changed only inside `quantised`, and by `finish`.

    Args:
        model: The module.
        rate_weight: λ, in nats of the data's loss per nat of code; 0.05 to 5 are usual. From random weights a large one
            is better reached step by step (assign `rate_weight`).
        examples: How many examples the mean of the loss stands for: those of the training set.
        learning_rate: The optimiser's, for weights.
        grid: Steps that the weights lie on, such as `checkpoint.grid.grid_of` has from a file; where a tensor has none,
            its step begins at a quarter of its standard deviation.
        reach: The least learning rate of a tensor, in steps: coarse steps would hold weights where they are. It is that
            of up to a thousand examples, and falls with the root of their number: the more there are, the less a batch
            tells of what a weight costs, and weights that move by it wander.
        step_rate: The learning rate of the logarithms of the steps.
        noise_share: The share of the training in which noise stands for the quantiser; then it rounds.
        rounding: "free": noise is uniform, and where weights are rounded steps stay, and the rate is that of the
            rounded weights, so that a zero costs nothing to leave. "drawn": the noise is around a soft rounding, steps
            are learned for 80 % of the training, and the rate draws weights to the cheaper whole number all the while.
            With tens of thousands of examples drawn files are smaller, as there the rate is weak beside what batches
            do; with a thousand they are worse.
        seed: Of the noise.

    Raises:
        ConfigError: A λ, a number of examples or a step that cannot be.
        ModelError: No trained parameter of a floating type, or one that is not dense, or a scripted network.

    >>> torch.manual_seed(0); model = nn.Linear(8, 2); inputs = torch.randn(64, 8)
    <torch._C.Generator object at ...>
    >>> rate = RateTerm(model, 0.1, examples=64, learning_rate=0.01)
    >>> optimiser = torch.optim.Adam(rate.parameter_groups())
    >>> for step in range(100):
    ...     optimiser.zero_grad()
    ...     with rate.quantised(progress=step / 100):
    ...         loss = nn.functional.cross_entropy(model(inputs), (inputs[:, 0] > 0).long()) + rate.loss()
    ...         loss.backward()
    ...     _ = optimiser.step()
    >>> len(rate.pack()) < 100
    True
    """

    def __init__(
        self,
        model: nn.Module,
        rate_weight: float,
        *,
        examples: int,
        learning_rate: float = 2e-3,
        grid: Mapping[str, float] | None = None,
        reach: float = REACH,
        step_rate: float = STEP_RATE,
        noise_share: float = NOISE_SHARE,
        rounding: Rounding = "free",
        seed: int = 0,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ModelError(f"model is {kind_of(model)}; it must be a torch.nn.Module.")
        check_not_scripted(model)
        self.rate_weight = check_rate_weight(rate_weight)
        self.model, self._examples = model, _count(examples)
        self._learning_rate, self._step_rate = learning_rate, step_rate
        self._reach = reach * min(1.0, math.sqrt(_EXAMPLES_OF_REACH / self._examples))
        self._noise_share, self._drawn = noise_share, rounding == "drawn"
        if rounding not in ROUNDINGS:
            raise ConfigError(f"rounding is {rounding!r}; it must be one of {', '.join(ROUNDINGS)}.")
        named = {name: p for name, p in model.named_parameters() if p.requires_grad and p.is_floating_point()}
        self.names, self._parameters = list(named), list(named.values())
        self._sizes = [parameter.numel() for parameter in self._parameters]
        if not sum(self._sizes):
            raise ModelError("the rate term has nothing to act on: the network has no trained floating parameters")
        odd = [name for name, p in named.items() if p.layout is not torch.strided]
        if odd:
            raise ModelError(f"parameter {odd[0]!r} is sparse; the rate term takes dense ones only")
        self._device = self._parameters[0].device
        double = any(parameter.dtype == torch.float64 for parameter in self._parameters)
        self._dtype = torch.float64 if double else torch.float32
        self.rate_model = RateModel([tuple(p.shape) for p in self._parameters]).to(self._device)
        steps = [self._first_step(name, p, grid or {}) for name, p in named.items()]
        self.log_steps = nn.Parameter(torch.tensor(steps, dtype=torch.float64).log().to(self._device, self._dtype))
        self._generator = torch.Generator(self._device).manual_seed(seed)
        self._part = min(-(-sum(self._sizes) // _PART), _MOST_PARTS)
        self._weights = torch.zeros(sum(self._sizes), dtype=self._dtype, device=self._device)
        self._used = torch.zeros_like(self._weights)
        self._weight_parts, self._used_parts = self._views(self._weights), self._views(self._used)
        self._turn = 0
        self._spread_now = torch.empty(0)
        self._steps: Tensor | None = None  # on the format's scale, once weights are rounded
        self._symbols: Tensor | None = None
        self._between = False
        if grid:
            self.rate_model.fit((self._flat() / self._spread(self.log_steps.detach().exp())).round())

    @staticmethod
    def _first_step(name: str, parameter: nn.Parameter, grid: Mapping[str, float]) -> float:
        if name in grid:
            step = float(grid[name])
            if not 0 < step < math.inf:
                raise ConfigError(f"grid has the step {step} for {name!r}; it must be positive and finite.")
            return step
        spread = float(parameter.detach().float().std(correction=0)) if parameter.numel() else 0.0
        return _STEP_OF_SPREAD * max(spread if math.isfinite(spread) else 0.0, _FINEST)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Groups for an optimiser: all parameters of the module, the steps, and the rate model, each at its rate.

        Weights of a coarse grid move faster: at `reach` steps of their own at least.
        """
        by_rate: dict[float, list[nn.Parameter]] = {}
        for parameter, step in zip(self._parameters, self.log_steps.detach().exp().tolist(), strict=True):
            rate = max(self._learning_rate, self._reach * step)
            octaves = round(2 * math.log2(rate / self._learning_rate)) / 2  # few groups, so that steps stay fused
            by_rate.setdefault(self._learning_rate * 2**octaves, []).append(parameter)
        groups: list[dict[str, Any]] = [{"params": group, "lr": rate} for rate, group in by_rate.items()]
        groups.append({"params": [self.log_steps], "lr": self._step_rate, "weight_decay": 0.0})
        groups.append({"params": list(self.rate_model.parameters()), "lr": 1e-2, "weight_decay": 0.0})
        claimed = {id(parameter) for parameter in self._parameters}
        others = [p for p in self.model.parameters() if p.requires_grad and id(p) not in claimed]
        return [*groups, {"params": others, "lr": self._learning_rate}] if others else groups

    @contextlib.contextmanager
    def quantised(self, progress: float) -> Iterator[None]:
        """Inside, the module computes with quantised weights; forward and backward pass belong here.

        Args:
            progress: How far training is, in [0, 1).
        """
        rounds = progress >= self._noise_share
        with torch.no_grad():
            weights = torch.cat([p.detach().reshape(-1).to(self._dtype) for p in self._parameters], out=self._weights)
            settled = max(self._noise_share, _SETTLED if self._drawn else 0.0)
            if progress >= settled and self._steps is None:
                self._steps = self._rounded_steps()
            steps = self.log_steps.exp() if self._steps is None else self._steps
            spread = self._spread(steps)
            exact = weights / spread
            if rounds:
                symbols = exact.round()
            else:
                noise = torch.rand(len(weights), generator=self._generator, device=self._device, dtype=self._dtype)
                noise.sub_(0.5)
                first, last = _SHARPNESS
                sharpness = first * (last / first) ** (progress / self._noise_share)
                symbols = _softly_rounded(exact, noise, sharpness) if self._drawn else exact + noise
            # Where a zero costs nothing to leave, batches make weights wander out of it, and nothing draws them back.
            priced = exact if rounds and self._drawn else symbols
            used = torch.mul(symbols, spread, out=self._used)
            if self._turn % _LOOK_EVERY == 0:
                self.rate_model.look(exact.round().float())
            before = [None if p.grad is None else p.grad.clone() for p in self._parameters]
        self._symbols, self._spread_now, self._between = priced.float(), spread, rounds and self._drawn
        try:
            with torch.no_grad():
                self._put(self._used_parts)
            yield
        finally:
            self._symbols, self._turn = None, self._turn + 1
            with torch.no_grad():
                self._put(self._weight_parts)
                if self._steps is None:
                    self._add_step_gradients(used - weights, before)
                elif self.log_steps.grad is not None:
                    self.log_steps.grad = None

    def loss(self) -> Tensor:
        """What the step adds to the loss: λ·bits·ln 2 / n, a scalar; inside `quantised` only.

        Raises:
            ModelError: Outside of it.
        """
        loss: Tensor = self.bits() * nats_per_bit(self.rate_weight, self._examples)
        return loss

    def bits(self) -> Tensor:
        """The rate model's estimate of the file's symbols in bits, a differentiable scalar; inside `quantised` only."""
        if self._symbols is None:
            raise ModelError("the rate is that of quantised weights: ask for it inside `with rate.quantised(…)`")
        symbols = _Symbols.apply(  # type: ignore[no-untyped-call]
            self._symbols, self._spread_now, self._owner, self.log_steps, *self._parameters
        )
        bits: Tensor = self.rate_model(symbols, self._part, self._turn, between=self._between)
        return bits

    @torch.no_grad()
    def finish(self) -> dict[str, float]:
        """Round the weights onto the grid, in place, and return its steps by name, as `pack(…, grid=…)` takes them."""
        steps = self._rounded_steps() if self._steps is None else self._steps
        weights = self._flat().double()
        grid = [scale_value(scale_code(step)) for step in steps.tolist()]
        for parameter, values, step in zip(self._parameters, _split(weights, self._sizes), grid, strict=True):
            parameter.copy_((values / step).round().mul(step).view(parameter.shape))
        return dict(zip(self.names, grid, strict=True))

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights that the term acts on, by name."""
        return {name: p.detach().clone() for name, p in zip(self.names, self._parameters, strict=True)}

    def descend(self, losses: Losses, trials: int) -> Descent:
        """`finish`, and then better symbols, tried on the data: `training.symbol_descent`, at this term's λ.

        Args:
            losses: Called without arguments for each trial, it goes over the data: the mean loss of each batch, a
                differentiable scalar, and how many examples the batch has. Put the module into evaluation mode first.
            trials: How many trials.
        """
        grid = self.finish()
        price = nats_per_bit(self.rate_weight, self._examples)
        parameters = dict(zip(self.names, self._parameters, strict=True))
        descent = descend(parameters, grid, self.rate_model, price, losses, trials)
        steps = [descent.grid[name] for name in self.names]
        self._steps = torch.tensor(steps, dtype=self._dtype, device=self._device)
        return descent

    def pack(self, recipe: Recipe | None = None) -> bytes:
        """`finish`, and the bytes of the module's file: the trained grid exactly, whatever else by the recipe.

        Args:
            recipe: For what is not on the grid (buffers), and for the coder; None: the strongest coder.
        """
        grid = self.finish()
        return pack(tensors_of(self.model), recipe or Recipe(coder="mixing"), grid=grid)

    def estimate(self) -> float:
        """The rate model's estimate of the symbols of the weights as they are, on their grid, in bytes."""
        with torch.no_grad():
            steps = self._rounded_steps() if self._steps is None else self._steps
            symbols = (self._flat() / self._spread(steps)).round().float()
            self.rate_model.look(symbols)
            bits: Tensor = self.rate_model(symbols)
            return float(bits) / 8

    @property
    def _owner(self) -> Tensor:
        return self.rate_model.owner

    def _flat(self) -> Tensor:
        return torch.cat([parameter.detach().reshape(-1).to(self._dtype) for parameter in self._parameters])

    def _spread(self, steps: Tensor) -> Tensor:
        """A value for each tensor as one for each weight."""
        return steps.index_select(0, self._owner)

    def _put(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)

    def _views(self, vector: Tensor) -> list[Tensor]:
        """Parts of a vector in the parameters' shapes."""
        return [part.view(p.shape) for p, part in zip(self._parameters, _split(vector, self._sizes), strict=True)]

    def _rounded_steps(self) -> Tensor:
        """The learned steps, each the nearest one that the format has, and none so fine that symbols get too large."""
        with torch.no_grad():
            steps = self.log_steps.double().exp().tolist()
        largest = [float(p.detach().abs().max()) if p.numel() else 0.0 for p in self._parameters]
        rounded = []
        for step, most in zip(steps, largest, strict=True):
            finest = most / _LARGEST_SYMBOL if math.isfinite(most) else 1.0
            rounded.append(scale_value(scale_code(max(step if math.isfinite(step) else 1.0, finest))))
        return torch.tensor(rounded, dtype=self._dtype, device=self._device)

    def _add_step_gradients(self, moved: Tensor, before: Sequence[Tensor | None]) -> None:
        """The gradient of the logarithms of the steps through the weights that the network saw."""
        gradients = []
        for parameter, old in zip(self._parameters, before, strict=True):
            if parameter.grad is None:
                gradients.append(torch.zeros(parameter.numel(), dtype=self._dtype, device=self._device))
                continue
            if parameter.grad.layout is not torch.strided:
                raise ModelError("a parameter has sparse gradients, which the rate term does not take; use dense ones")
            gradient = parameter.grad if old is None else parameter.grad - old
            gradients.append(gradient.reshape(-1).to(self._dtype))
        products = torch.cat(gradients).mul_(moved)
        total = torch.zeros_like(self.log_steps).index_add_(0, self._owner, products)
        self.log_steps.grad = total if self.log_steps.grad is None else self.log_steps.grad + total


def _split(vector: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = torch.split(vector, list(sizes))
    return parts


def _softly_rounded(values: Tensor, noise: Tensor, sharpness: float) -> Tensor:
    """Values between themselves and whole numbers, disturbed the less the surer it is to which one they round.

    s(r(v) + u) with r a smooth step of the given sharpness, and s the mean of what r takes to a place (Agustsson and
    Theis, 2020). The sharper, the more it is like rounding; at 0 it would be v + u.
    """
    most = math.tanh(sharpness / 2)
    middle = values.floor().add_(0.5)
    noisy = (values - middle).mul_(sharpness).tanh_().div_(2 * most).add_(middle).add_(noise).sub_(0.5)
    middle = noisy.floor().add_(0.5)
    inside = noisy.sub_(middle).mul_(2 * most).clamp_(-most, most)  # of values beyond 2^23 the middle is none
    return inside.atanh_().div_(sharpness).add_(middle).add_(0.5)


class _Symbols(torch.autograd.Function):
    """The symbols that the network's weights are just now, with the gradient straight through to weights and steps.

    With q = w / s + u and used = s·q the loss has, by log s, the gradient Σ g·(used - w) of all that goes through the
    weights (`RateTerm._add_step_gradients`), and of the rate itself what is left: - Σ ∂bits/∂q · q.
    """

    @staticmethod
    def forward(
        ctx: Any, symbols: Tensor, spread: Tensor, owner: Tensor, log_steps: Tensor, *parameters: Tensor
    ) -> Tensor:
        ctx.save_for_backward(symbols, spread, owner)
        ctx.steps = len(log_steps)
        ctx.kinds = [(parameter.shape, parameter.dtype) for parameter in parameters]
        return symbols.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        symbols, spread, owner = ctx.saved_tensors
        sizes = [math.prod(shape) for shape, _ in ctx.kinds]
        by_step = spread.new_zeros(ctx.steps).index_add_(0, owner, (grad * symbols).to(spread.dtype)).neg_()
        parts = _split(grad / spread, sizes)
        by_weight = [part.view(shape).to(dtype) for part, (shape, dtype) in zip(parts, ctx.kinds, strict=True)]
        return None, None, None, by_step, *by_weight

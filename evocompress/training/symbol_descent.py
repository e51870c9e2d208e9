"""Symbol descent: better symbols and steps for weights on a grid, by trying them on the data.

Training rounds with gradients that go straight through, and ends near an optimum of loss + λ·rate, not at one: in small
files many a symbol costs more bits than it saves loss, or stands one step beside a better one. Here symbols move by
single steps or to zero, and steps become finer or coarser; a move stays if the loss on the data and the bits that the
coder itself counts fall together. Which moves are tried, and in which order, follows from a model of second order: the
gradient, the variance of gradients as curvature (the empirical Fisher information), the rate model's bits.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from evocompress.codecs.coders import count_bits
from evocompress.codecs.mixing import State
from evocompress.codecs.planes import kernel_places, to_planes
from evocompress.codecs.scales import MAX_CODE, MIN_CODE, scale_code, scale_value
from evocompress.training.rate_model import RateModel

__all__ = ["Descent", "Losses", "descend"]

#: Goes over the data: the mean loss of each batch, a differentiable scalar, and how many examples the batch has.
Losses: TypeAlias = Callable[[], Iterator[tuple[Tensor, int]]]

_BATCHES = 3  # after how many batches a trial may be dropped
_STEPS = (-2, -1, 1, 2, 4, 8)  # how many eighths of an octave a tensor's step may change at a time


class Descent(NamedTuple):
    """The new steps by name; loss + price·bits before and after; how often the loss of the data was taken."""

    grid: Mapping[str, float]
    before: float
    after: float
    trials: int


class _Move(NamedTuple):
    """What changes together: symbols at `places` by `by`, and the step of a tensor by so many eighths of an octave."""

    places: Tensor
    by: Tensor
    tensor: int = 0
    eighths: int = 0
    parts: bool = False  # whether it is a group of moves that may be made one by one

    def halves(self) -> list[_Move]:
        """A group in two parts, the second one first."""
        middle = len(self.places) // 2
        if not self.parts or not middle:
            return []
        parts = slice(middle, None), slice(None, middle)
        return [_Move(self.places[part], self.by[part], parts=True) for part in parts]


def descend(
    parameters: Mapping[str, nn.Parameter],
    grid: Mapping[str, float],
    rate_model: RateModel,
    price: float,
    losses: Losses,
    trials: int,
) -> Descent:
    """Move symbols and steps of the parameters, in place, while that lowers loss + price·bits.

    Moves come in the order of what they promise, symbols in groups of such a size that all get their turn; a group that
    does not keep its promise is halved. After a turn of all, new ones are looked for; without any, or without success,
    it ends early.

    Args:
        parameters: By name, in the rate model's order, on multiples of their steps.
        grid: The steps by name, on the format's scale.
        rate_model: Estimates the bits of symbols that are not tried yet.
        price: What a bit costs in the mean loss (`training.quantised_training.nats_per_bit`).
        losses: Called anew for each trial.
        trials: How often the loss of the data may be taken, beside once for each turn's gradients.
    """
    state = _State(parameters, grid, rate_model, price, losses)
    cost = before = state.cost()
    state.keep()
    used = 0
    while used < trials and cost < math.inf:
        waiting, better = state.moves((trials - used) // 2), False
        while waiting and used < trials:
            move = waiting.pop()
            state.make(move)
            now, used = state.cost(), used + 1
            if now < cost:
                cost, better = now, True
                state.keep()
            else:
                state.make(move, -1)
                waiting += move.halves()
        if not better:
            break
    state.write()
    return Descent(state.grid, before, cost, used)


class _State:
    """All symbols as one vector, the steps, what both cost, and which moves promise to make that less."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        grid: Mapping[str, float],
        rate_model: RateModel,
        price: float,
        losses: Losses,
    ) -> None:
        self._names, self._parameters = list(parameters), list(parameters.values())
        self._codes = [scale_code(grid[name]) for name in self._names]
        self._rate_model, self._price, self._losses = rate_model, price, losses
        self._sizes = rate_model.sizes
        self._kept: list[float] = []  # losses of the batches
        self._tried: list[float] = []
        self._kept_bits = self._tried_bits = 0.0
        flat = _joined(self._parameters).double()
        self._symbols = (flat / self._spread()).round()

    @property
    def grid(self) -> dict[str, float]:
        """The steps by name."""
        return {name: scale_value(code) for name, code in zip(self._names, self._codes, strict=True)}

    def _spread(self) -> Tensor:
        owner = self._rate_model.owner
        steps = torch.tensor([*map(scale_value, self._codes)], dtype=torch.float64, device=owner.device)
        return steps.index_select(0, owner)

    @torch.no_grad()
    def write(self) -> None:
        """Put the weights that the symbols stand for into the parameters."""
        weights = self._symbols * self._spread()
        for parameter, part in zip(self._parameters, torch.split(weights, self._sizes), strict=True):
            parameter.copy_(part.view(parameter.shape))

    def make(self, move: _Move, times: int = 1) -> None:
        """Make a move, or with -1 take it back."""
        self._symbols.index_add_(0, move.places, times * move.by)
        self._codes[move.tensor] += times * move.eighths

    @torch.no_grad()
    def cost(self) -> float:
        """Mean loss + price·bits; infinite where it is no number, or surely no less than what was kept.

        Sure means that after some batches the difference is three times its standard error above zero: most trials
        are dropped after a few batches.
        """
        self.write()
        of_bits = self._price * self._coded_bits()
        total, count, change = 0.0, 0, of_bits - self._kept_bits
        differences: list[float] = []
        self._tried, self._tried_bits = [], of_bits
        for loss, size in self._losses():
            value = loss.item()
            total, count = total + value * size, count + size
            self._tried.append(value)
            if self._kept:
                differences.append(value - self._kept[len(differences)])
                if len(differences) >= _BATCHES and _least_mean(differences) + change > 0:
                    return math.inf
        cost = total / count + of_bits
        return cost if math.isfinite(cost) else math.inf

    def keep(self) -> None:
        """What was tried last is what later trials are compared with."""
        self._kept, self._kept_bits = self._tried, self._tried_bits

    def _coded_bits(self) -> float:
        """What the strongest coder makes of the symbols, in the order of the tensors in a file."""
        counter = count_bits(State())
        parts = self._symbols.cpu().numpy().astype(np.int32)
        arrays = dict(zip(self._names, np.split(parts, np.cumsum(self._sizes)[:-1]), strict=True))
        shapes = dict(zip(self._names, self._rate_model.shapes, strict=True))
        for name in sorted(arrays):
            for plane in to_planes(arrays[name].reshape(shapes[name])):
                counter.plane(plane.symbols, plane.kind, kernel_places(shapes[name]))
        bits: float = counter.bits
        return bits

    def moves(self, most: int) -> list[_Move]:
        """Moves that promise something, the most promising one last; symbols in at most so many groups."""
        self.write()
        model = _Model(self._symbols, self._spread(), self._rate_model, self._price, *self._derivatives())
        size = max(1, -(-len(model.places) // max(most, 1)))
        groups = zip(torch.split(model.places, size), torch.split(model.by, size), strict=True)
        symbols = [_Move(places, by, parts=True) for places, by in groups if len(places)]
        # Slices come last: what single symbols lead to is better, mostly, than what is left without a whole row.
        later = [move for _, move in sorted(self._slice_moves(model), key=lambda option: -option[0])]
        steps = [move for _, move in sorted(self._step_moves(model), key=lambda option: -option[0])]
        return [*later[-max(most // 2, 1) :], *reversed(symbols), *steps]

    def _slice_moves(self, model: _Model) -> Iterator[tuple[float, _Move]]:
        """Whole tensors, rows and columns to zero (filters, and what reads a channel), where that promises something.

        One symbol less of many alike mostly costs bits; all of them together save what they took.
        """
        stop, by_symbol = 0, model.promises(slice(None), -self._symbols, 1.0)
        for shape, size in zip(self._rate_model.shapes, self._sizes, strict=True):
            start, stop = stop, stop + size
            places = torch.arange(start, stop, device=self._symbols.device).view(shape)
            slices = [places, *(part for axis in range(min(len(shape), 2)) for part in places.unbind(axis))]
            for part in slices:
                used = part.reshape(-1)
                used = used[self._symbols[used] != 0]
                if len(used) > 1 and (promise := float(by_symbol[used].sum())) < 0:
                    yield promise, _Move(used, -self._symbols[used])

    def _step_moves(self, model: _Model) -> Iterator[tuple[float, _Move]]:
        """For each tensor the change of its step that promises most, if any does."""
        stop = 0
        for tensor, (size, code) in enumerate(zip(self._sizes, self._codes, strict=True)):
            start, stop = stop, stop + size
            part = slice(start, stop)
            if not bool(self._symbols[part].any()):
                continue
            places, options = torch.arange(start, stop, device=self._symbols.device), []
            for eighths in _STEPS:
                if MIN_CODE <= code + eighths <= MAX_CODE:
                    ratio = scale_value(code) / scale_value(code + eighths)
                    for by in (torch.zeros_like(self._symbols[part]), model.nearest(part, ratio)):
                        promise = float(model.promises(part, by, ratio).sum())
                        options.append((promise, _Move(places, by, tensor, eighths)))
            yield from (option for option in [min(options, key=lambda option: option[0])] if option[0] < 0)

    def _derivatives(self) -> tuple[Tensor, Tensor]:
        """Gradient and curvature of the mean loss by the weights."""
        total, squares = torch.zeros_like(self._symbols), torch.zeros_like(self._symbols)
        batches, count = 0, 0
        for loss, size in self._losses():
            parts = torch.autograd.grad(loss, self._parameters, allow_unused=True)
            pairs = zip(parts, self._parameters, strict=True)
            flat = _joined([torch.zeros_like(p) if part is None else part for part, p in pairs]).double()
            total, squares = total + size * flat, squares + size * flat.square()
            batches, count = batches + 1, count + size
        mean = total / count
        # The variance of a batch's mean gradient, times its size, is that of one example's gradient.
        variance = (squares / count - mean.square()).clamp_(min=0) * (count / batches)
        return mean, variance


class _Model:
    """What moves promise: the change of loss to second order, and of the rate model's bits in contexts as they are.

    `places` and `by` have for each symbol the best move that promises something, the most promising ones first.
    """

    def __init__(
        self, symbols: Tensor, spread: Tensor, rate_model: RateModel, price: float, gradient: Tensor, curvature: Tensor
    ) -> None:
        self._symbols, self._rate_model, self._price = symbols, rate_model, price
        self._gradient, self._curvature = gradient * spread, curvature * spread.square()
        rate_model.look(symbols.float())
        self._bits = rate_model.bits_by_symbol(symbols.float())
        best, move = torch.zeros_like(symbols), torch.zeros_like(symbols)
        everything = slice(None)
        for moved in (symbols + 1, symbols - 1, torch.zeros_like(symbols)):
            by = moved - symbols
            change = self.promises(everything, by, 1.0)
            better = (change < best) & (by != 0)
            best, move = torch.where(better, change, best), torch.where(better, by, move)
        self.places = torch.argsort(best, stable=True)[: int((best < 0).sum())]
        self.by = move[self.places]

    def nearest(self, part: slice, ratio: float) -> Tensor:
        """How symbols change that stay nearest to their weights while the step is divided by `ratio`."""
        return (self._symbols[part] * ratio).round() - self._symbols[part]

    def promises(self, part: slice, by: Tensor, ratio: float) -> Tensor:
        """The change of the cost for each symbol that moves, where the step becomes 1 / `ratio` of what it is."""
        symbols = self._symbols[part] + by
        moved = symbols / ratio - self._symbols[part]  # in steps as they are
        loss = self._gradient[part] * moved + 0.5 * self._curvature[part] * moved.square()
        if not bool(by.any()):
            return loss
        bits = self._rate_model.bits_by_symbol(symbols.float(), part.start or 0)
        return loss + self._price * (bits - self._bits[part]).double()


def _least_mean(differences: Sequence[float]) -> float:
    """The mean, less three times its standard error."""
    mean = statistics.fmean(differences)
    return mean - 3 * statistics.stdev(differences, mean) / math.sqrt(len(differences))


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])

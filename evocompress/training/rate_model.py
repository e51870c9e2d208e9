"""Rate model: a differentiable estimate of the bits that the entropy coder will spend on quantised tensors.

A symbol's probability is that of an interval of one step under a mixture of two logistic distributions of mean zero,
one narrow for the zeros, one wide (the discretised logistic of Salimans et al., 2017; a learned density as rate, Ballé
et al., 2017). Both widths and the mixture are learned for each tensor. In matrices and kernels they also follow what
the coder knows by then: the mean magnitudes of the row, of the column and of the nearest weights, each as far as the
coder has come (codecs/mixing_contexts.py). These contexts carry no gradient. They are causal but for the mean of the
whole plane, which the coder tells at its head, and regularised by as many symbols' worth of prior as the coder's.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["RateModel"]

_PRIOR = 16.0  # symbols' worth of the mean that a row or column starts from, as in the coder
_FEATURES = 4
#: Log-widths, in steps, are held in this range: a narrower one rounds to certainty, a wider one to no knowledge.
_NARROWEST, _WIDEST = -4.0, 7.0
_TINY = 1e-30
_FARTHEST = 60.0  # widths; e^-60 is still a number in float32
_BLOCK = 1 << 13  # weights; of one block the intermediate results stay in the processor's cache


class RateModel(nn.Module):
    """Bits of a flat vector of symbols, all tensors one after the other.

    Args:
        shapes: The tensors' shapes, in the vector's order.

    >>> model = RateModel([(4, 8), (4,)])
    >>> symbols = torch.zeros(36, requires_grad=True)
    >>> model.look(symbols.detach())
    >>> bits = model(symbols)
    >>> bits.backward()
    >>> 0 < bits.item() < 36
    True
    """

    owner: Tensor
    features: Tensor

    def __init__(self, shapes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.shapes = [tuple(shape) for shape in shapes]
        self.sizes = [math.prod(shape) for shape in self.shapes]
        self.blocks = _blocks(self.sizes, _BLOCK)
        count = len(self.shapes)
        self.widths = nn.Parameter(torch.tensor([[-2.0], [0.7]]).repeat(1, count))
        self.odds = nn.Parameter(torch.ones(count))  # log-odds of the narrow one
        # How the log-widths of either and the odds follow the contexts: row, column, left, above.
        self.lead = nn.Parameter(torch.tensor([[0.3, 0.3, 0.0, 0.0], [0.7, 0.7, 0.2, 0.2], [-0.3, -0.3, -0.2, -0.2]]))
        owner = torch.repeat_interleave(torch.arange(count), torch.tensor(self.sizes, dtype=torch.int64))
        self.register_buffer("owner", owner, persistent=False)
        self.register_buffer("features", torch.zeros(_FEATURES, len(owner)), persistent=False)

    @torch.no_grad()
    def look(self, symbols: Tensor) -> None:
        """Take the contexts from a vector of symbols (need not be whole numbers), until told others."""
        start = 0
        for shape, size in zip(self.shapes, self.sizes, strict=True):
            if len(shape) >= 2 and size > 0:
                plane = symbols[start : start + size].view(shape[0], -1)
                self.features[:, start : start + size] = _contexts(plane.abs().round_()).view(_FEATURES, -1)
            start += size

    def forward(self, symbols: Tensor, part: int = 1, turn: int = 0, *, between: bool = False) -> Tensor:
        """Bits of all symbols (n,), a scalar; real values count as the interval of one step around them.

        Args:
            symbols: All of them.
            part: Of a large vector every `part`-th block may stand for all.
            turn: The first of these blocks.
            between: Values count as the whole number that they round to, and the slope is what the next one on their
                side of it costs more or less: a straight line from one to the next. Along the density's own curve most
                of what a one costs more than a zero lies between .1 and .5, where no weight that is a one feels it.
        """
        blocks = self.blocks if part == 1 else self.blocks[turn % part :: part]
        learned = self.widths, self.odds, self.lead
        with torch.autocast(symbols.device.type, enabled=False):  # it would multiply in half precision
            bits: Tensor = _Bits.apply(  # type: ignore[no-untyped-call]
                symbols, *learned, self.features, self.owner, blocks, between
            )
        return bits * part

    @torch.no_grad()
    def bits_by_symbol(self, symbols: Tensor, first: int = 0) -> Tensor:
        """Bits of each symbol (n,), which has the place `first` and so on, in the contexts that were looked at last."""
        bits, parameters = torch.empty_like(symbols), torch.cat([self.widths, self.odds[None]]).to(symbols.dtype)
        lead = self.lead.to(symbols.dtype)
        for start in range(0, len(symbols), _BLOCK):
            part = symbols[start : start + _BLOCK]
            here = slice(first + start, first + start + len(part))
            values = parameters.index_select(1, self.owner[here]).addmm_(lead, self.features[:, here])
            bits[start : start + len(part)] = _mixture(part, values)[0] / -math.log(2)
        return bits

    def fit(self, symbols: Tensor, rounds: int = 40, learning_rate: float = 0.1) -> None:
        """Learn the densities of these symbols, from the contexts that they give."""
        self.look(symbols)
        optimiser = torch.optim.Adam(self.parameters(), lr=learning_rate)
        for _ in range(rounds):
            optimiser.zero_grad()
            self(symbols).backward()
            optimiser.step()


def _contexts(plane: Tensor) -> Tensor:
    """Logarithms of what is known about each place of a plane of magnitudes (rows, columns): (features, …)."""
    rows, columns = plane.shape
    mean = plane.mean() + 0.01
    so_far = torch.arange(columns, device=plane.device, dtype=plane.dtype) + _PRIOR
    row = torch.log((plane.cumsum(1) - plane + _PRIOR * mean) / (so_far * mean))
    so_far = torch.arange(rows, device=plane.device, dtype=plane.dtype)[:, None] + _PRIOR
    column = torch.log((plane.cumsum(0) - plane + _PRIOR * mean) / (so_far * mean))
    expected = (row + column).exp() * mean
    left, above = torch.zeros_like(plane), torch.zeros_like(plane)
    left[:, 1:] = plane[:, :-1]
    left[:, 2:] += 0.5 * plane[:, :-2]
    above[1:] = plane[:-1]
    near = torch.log((left + 0.5 * expected) / (2.0 * expected))
    higher = torch.log((above + 0.5 * expected) / (1.5 * expected))
    return torch.stack([row, column, near, higher])


class _Block(NamedTuple):
    """A stretch of the vector, of a size that the processor's cache holds: the tensors in it, and how much of each."""

    start: int
    stop: int
    first: int
    lengths: tuple[int, ...]


def _blocks(sizes: Sequence[int], largest: int) -> list[_Block]:
    edges = [0, *itertools.accumulate(sizes)]
    blocks = []
    for start in range(0, edges[-1], largest):
        stop = min(start + largest, edges[-1])
        first = bisect.bisect_right(edges, start) - 1
        last = bisect.bisect_left(edges, stop)
        lengths = tuple(min(edges[t + 1], stop) - max(edges[t], start) for t in range(first, last))
        blocks.append(_Block(start, stop, first, lengths))
    return blocks


class _Bits(torch.autograd.Function):
    """Bits of the mixture, with the gradient by hand on the way, so that no graph of a block is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        symbols: Tensor,
        widths: Tensor,
        odds: Tensor,
        lead: Tensor,
        features: Tensor,
        owner: Tensor,
        blocks: Sequence[_Block],
        between: bool,
    ) -> Tensor:
        parameters = torch.cat([widths, odds[None]]).to(symbols.dtype)
        lead = lead.to(symbols.dtype)
        by_symbol, by_parameter, by_lead = torch.zeros_like(symbols), torch.zeros_like(parameters), lead * 0
        bits = symbols.new_zeros(())
        for start, stop, first, lengths in blocks:
            here, context = symbols[start:stop], features[:, start:stop]
            if len(lengths) == 1:
                values = torch.addmm(parameters[:, first : first + 1], lead, context)
            else:
                values = parameters.index_select(1, owner[start:stop]).addmm_(lead, context)
            if between:
                logarithms, by_symbol[start:stop], by_value = _lines(here, values)
            else:
                logarithms, by_symbol[start:stop], by_value = _mixture(here, values)
            bits += logarithms.sum() / -math.log(2)
            if len(lengths) == 1:
                by_parameter[:, first] += by_value.sum(1)
            else:
                members = owner[start:stop, None] == torch.arange(first, first + len(lengths), device=owner.device)
                by_parameter[:, first : first + len(lengths)] += by_value @ members.to(by_value.dtype)
            by_lead += by_value @ context.t()
        ctx.save_for_backward(by_symbol, by_parameter, by_lead)
        return bits

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        by_symbol, by_parameter, by_lead = (part * grad for part in ctx.saved_tensors)
        return by_symbol, by_parameter[:2], by_parameter[2], by_lead, None, None, None, None


def _lines(values: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `_mixture`, of the whole numbers that values round to; the gradient is to the next one on the value's side.

    A whole number itself is drawn towards zero, and zero nowhere.
    """
    whole = values.round()
    side = (values - whole).sign()
    side = torch.where(side == 0, -whole.sign(), side)
    logarithms, _, by_parameter = _mixture(whole, parameters)
    next_to, _, _ = _mixture(whole + side, parameters)
    return logarithms, (logarithms - next_to).div_(math.log(2)).mul_(side), by_parameter


def _mixture(symbols: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of symbols (n,), and the gradient of their bits by the symbols and by the values (3, n).

    The values are log-widths and log-odds.
    """
    magnitude = symbols.abs()
    inverse = values[:2].clamp(_NARROWEST, _WIDEST)
    inside = inverse == values[:2]
    inverse = inverse.neg_().exp_()
    # A weight far outside would have no probability left, and so no gradient: for it the wide one is wide enough.
    inverse[1] = torch.minimum(inverse[1], _FARTHEST / (magnitude + 1))
    half = inverse * 0.5
    middle = inverse * magnitude
    far, close = middle + half, middle - half
    # Both tails of the interval from the far side, where a difference of sigmoids keeps its digits.
    upper, lower = torch.sigmoid(-far), torch.sigmoid(-close)
    mass = lower - upper
    share = torch.sigmoid(values[2])
    total = torch.lerp(mass[1], mass[0], share).add_(_TINY)
    scale = (total * -math.log(2)).reciprocal_()  # d bits / d total
    weights = torch.stack([share, 1 - share]).mul_(scale)
    upper, lower = upper.addcmul_(upper, upper, value=-1), lower.addcmul_(lower, lower, value=-1)  # slopes
    by_magnitude = (weights * inverse * (upper - lower)).sum(0)
    by_width = (lower * close).addcmul_(upper, far, value=-1).mul_(weights).mul_(inside)
    by_odds = share.addcmul_(share, share, value=-1).mul_(mass[0] - mass[1]).mul_(scale)
    return total.log_(), by_magnitude * symbols.sign(), torch.cat([by_width, by_odds[None]])

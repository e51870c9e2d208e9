"""The gate of saccades: it looks at a down-sampled image and judges each of its blocks."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from evocompress.errors import ModelError

__all__ = ["BlockGate", "Gate", "Reading", "bounded", "finite", "keep_plan", "precise", "whole"]

_PLAN_BYTES = 4
_BOUND = 3.0  # of logits in training: the likeliest of three decisions has a probability of at most 0.995


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """What a gate decided for its last images (n, c, *size), on a grid of rows × columns blocks of `block` pixels.

    `choices` (n, rows, columns) int64: 0 is a block that was left out. `probabilities` (n, d, rows, columns) of the d
    decisions, differentiable. The last row and column of blocks may reach beyond the image.
    """

    choices: Tensor
    probabilities: Tensor
    block: int
    size: tuple[int, int]

    def on_pixels(self, values: Tensor, size: tuple[int, int]) -> Tensor:
        """Values of blocks (n, rows, columns) spread over the pixels (n, *size) of an image that fills the same view.

        `size` may differ from that of the gate's input, as the image of a network does behind its poolings.
        """
        spread = values.repeat_interleave(self.block, 1).repeat_interleave(self.block, 2)
        rows, columns = (
            torch.arange(out_length, device=values.device) * in_length // out_length
            for out_length, in_length in zip(size, self.size, strict=True)
        )
        return spread[:, rows][:, :, columns]


class Gate(nn.Module):
    """Images (n, c, rows·block, columns·block) to logits (n, len(start), rows, columns).

    The image is averaged over `reduction`×`reduction` pixels, seen by `hidden` filters of 3×3, averaged over each
    block, and judged by 3×3 filters over blocks, so that a block is judged among its neighbours.
    In training mode logits stay within ± 3.

    Args:
        in_channels: c.
        block: Side of a block in pixels.
        reduction: Must divide `block`.
        hidden: Number of filters.
        start: The logits that a fresh gate is near to.

    Raises:
        ModelError: An argument is no whole number of at least 1, or `reduction` does not divide `block`.
    """

    def __init__(self, in_channels: int, block: int, reduction: int, hidden: int, start: Sequence[float]) -> None:
        super().__init__()
        whole(in_channels=in_channels, block=block, reduction=reduction, hidden=hidden)
        if block % reduction:
            raise ModelError(f"reduction is {reduction} and block is {block}; block must be a multiple of reduction")
        self.block, self.reduction = block, reduction
        # Zeros around the image would mark its border, and gates would choose the border for its own sake.
        self.look = nn.Conv2d(in_channels, hidden, 3, padding=1, padding_mode="replicate")
        self.decide = nn.Conv2d(hidden, len(start), 3, padding=1, padding_mode="replicate")
        with torch.no_grad():
            assert self.decide.bias is not None
            self.decide.bias.copy_(torch.tensor(start))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the decisions on each block."""
        small = nn.functional.avg_pool2d(images, self.reduction)
        seen = nn.functional.avg_pool2d(self.look(small).relu(), self.block // self.reduction)
        logits: Tensor = self.decide(seen)
        return bounded(logits) if self.training else logits

    def multiply_adds(self, blocks: int) -> int:
        """For one image of so many blocks."""
        pixels = blocks * (self.block // self.reduction) ** 2
        return 9 * self.look.out_channels * (pixels * self.look.in_channels + blocks * self.decide.out_channels)


class BlockGate(Gate):
    """A gate whose decisions are what a layer does in each block, and so count as outputs of the network."""


def bounded(logits: Tensor) -> Tensor:
    """Logits cut to ± 3; their gradient passes but for what would drive them further beyond it.

    Softmax of large logits has no gradient left: a gate that opens everywhere in the first steps, as all gates do that
    are of any use, would never hear of its cost. A plain `clamp` would have none beyond the bound either.
    """
    plain = logits.detach()
    held = logits + (plain.clamp(-_BOUND, _BOUND) - plain)
    if held.requires_grad:
        above, below = plain > _BOUND, plain < -_BOUND

        def inwards(gradient: Tensor) -> Tensor:
            return gradient.masked_fill((above & (gradient < 0)) | (below & (gradient > 0)), 0.0)

        held.register_hook(inwards)  # type: ignore[no-untyped-call]
    return held


def precise(logits: Tensor) -> Tensor:
    """Logits in float32 or more, which autocast may have made bfloat16: a loss is added up from their probabilities."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def whole(**values: int) -> None:
    """Raise ModelError for the first value that is no whole number from 1 to 2³¹ - 1."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 1 << 31:
            raise ModelError(f"{name} is {value!r}; it must be a whole number of at least 1")


def finite(name: str, value: float, *, positive: bool = False) -> None:
    """Raise ModelError for what is no finite number of at least 0, or above 0."""
    right = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
    if not right or (positive and not value):
        raise ModelError(f"{name} is {value!r}; it must be a finite number {'above' if positive else 'of at least'} 0")


def keep_plan(network: nn.Module, **plan: int) -> None:
    """Put numbers that the shapes of its weights do not show into a network's state dict, as `gate_plan`.

    Weights of gates fit networks of other blocks too, in which they mean something else; so a state dict with another
    plan is refused, with a ModelError, before anything is loaded. `gate_plan` is uint8, four bytes for each number.
    """
    data = b"".join(value.to_bytes(_PLAN_BYTES, "little") for value in plan.values())
    network.register_buffer("gate_plan", torch.frombuffer(bytearray(data), dtype=torch.uint8).clone())
    network.register_load_state_dict_pre_hook(functools.partial(_check_plan, names=tuple(plan)))  # type: ignore[no-untyped-call]


def _check_plan(network: nn.Module, state: Mapping[str, Any], prefix: str, *_: object, names: Sequence[str]) -> None:
    stored, plan = state.get(f"{prefix}gate_plan"), network.gate_plan
    assert isinstance(plan, Tensor)
    if stored is not None and stored.tolist() != plan.tolist():
        raise ModelError(
            f"the weights are of a network with {_description(stored, names)}, and this one has "
            f"{_description(plan, names)}; make the network with the same options"
        )


def _description(plan: Tensor, names: Sequence[str]) -> str:
    if plan.dtype != torch.uint8:
        return f"a plan of {plan.dtype}"
    data = bytes(plan.flatten().tolist())
    values = [int.from_bytes(data[at : at + _PLAN_BYTES], "little") for at in range(0, len(data), _PLAN_BYTES)]
    return ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=False))

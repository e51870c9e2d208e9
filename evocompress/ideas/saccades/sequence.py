"""Saccades one after the other: the K best blocks of an image, with their coordinates, as a sequence.

Hard attention in the line of the recurrent attention model (Mnih et al., 2014, https://arxiv.org/abs/1406.6247), but
trained by gradients instead of rewards: blocks are drawn without replacement by the Gumbel-top-k trick (Kool et al.,
2019, https://arxiv.org/abs/1903.06059), and each is weighted by its score, through which gradients reach the scorer.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from evocompress.errors import ModelError
from evocompress.ideas.saccades.gate import Gate, Reading, keep_plan, precise, whole

__all__ = ["Reader", "SaccadeSequence"]

Reader: TypeAlias = Literal["gru", "attention"]
"""What reads the sequence."""
_START = (0.0,)


class SaccadeSequence(nn.Module):
    """A classifier that sees the `k` best blocks of `block`×`block` pixels, best first, and where they lie.

    Images (n, in_channels, h, w) to logits (n, classes). A scorer looks at the down-sampled image and gives each block
    a score; the k blocks of highest score are gathered, each becomes a vector of `width` numbers from its pixels and
    the coordinates of its centre ((row, column), from -1 to 1), times the sigmoid of its score; a reader takes these.
    In training mode Gumbel noise is added to the scores before the best are picked, so that others are tried too. In
    evaluation mode, where gradients are asked for, all blocks are read into vectors, and scores get the gradient of the
    choice too; the values are the same. Where h or w is no multiple of `block`, the image is continued with zeros to
    the right and below.

    `k`, `block` and `reduction` are kept in the state dict as `gate_plan`, and weights of others are refused.
    After a call `reading.choices` has 1 for the best block, k for the last of the chosen, 0 for the others.

    Args:
        k: How many blocks are read.
        block: Side of a block in pixels.
        in_channels, classes: Of the images and of the logits.
        width: Numbers for each block, and the reader's width.
        reduction, hidden: Of the scorer, as for `SaccadeConv2d`.
        reader: "gru", a gated recurrent unit; "attention", one layer of self-attention and the mean.
        generator: Where samples come from, on the device of the images; None: torch's own. Copies use torch's own.

    Raises:
        ModelError: An argument out of range, images of another number of channels, or of fewer than k blocks; weights
            of other `k`, `block` or `reduction`.

    >>> network = SaccadeSequence(3, 4, in_channels=1, classes=10).eval()
    >>> network(torch.zeros(2, 1, 8, 8)).shape, int(network.reading.choices.count_nonzero())
    (torch.Size([2, 10]), 6)
    """

    def __init__(
        self,
        k: int,
        block: int,
        *,
        in_channels: int = 1,
        classes: int = 10,
        width: int = 64,
        reduction: int = 1,
        hidden: int = 8,
        reader: Reader = "gru",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        whole(k=k, classes=classes, width=width)
        if reader not in get_args(Reader):
            raise ModelError(f"reader is {reader!r}; it must be one of {', '.join(get_args(Reader))}")
        self.k, self.block, self.in_channels, self.generator = k, block, in_channels, generator
        self.scorer = Gate(in_channels, block, reduction, hidden, _START)
        self.pixels = nn.Linear(in_channels * block * block, width)
        self.place = nn.Linear(2, width, bias=False)
        self.reader = nn.GRU(width, width, batch_first=True) if reader == "gru" else _Attention(width)
        self.linear = nn.Linear(width, classes)
        self.reading: Reading | None = None
        keep_plan(self, k=k, block=block, reduction=reduction)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes); what was looked at is then in `reading`."""
        padded = self._padded(images)
        scores = self.scorer(padded)
        picked = self._pick(scores.detach().flatten(1))
        order = torch.arange(1, self.k + 1, device=picked.device).expand_as(picked)
        choices = torch.zeros_like(scores, dtype=torch.int64).flatten(1).scatter_(1, picked, order)
        height, width = images.shape[-2:]
        rows, columns = scores.shape[-2:]
        probabilities = precise(scores).sigmoid()
        self.reading = Reading(choices.view(-1, rows, columns), probabilities, self.block, (height, width))
        if self.training or not scores.requires_grad:
            sequence = self._weighted(padded, probabilities, picked)
        else:
            every = torch.arange(rows * columns, device=picked.device).expand(len(picked), -1)
            sequence = _choice(scores.flatten(1), picked) @ self._weighted(padded, probabilities, every)
        result = self.reader(sequence)
        read: Tensor = result[0][:, -1] if isinstance(result, tuple) else result
        logits: Tensor = self.linear(read)
        return logits

    def _padded(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise ModelError(f"images are {tuple(images.shape)}; they must be (n, {self.in_channels}, h, w)")
        height, width = images.shape[-2:]
        blocks = -(-height // self.block) * -(-width // self.block)
        if blocks < self.k:
            raise ModelError(
                f"k is {self.k}, but images of {height}×{width} have {blocks} blocks of {self.block}×{self.block}; "
                "take a smaller k or smaller blocks"
            )
        return nn.functional.pad(images, (0, -width % self.block, 0, -height % self.block))

    def _pick(self, scores: Tensor) -> Tensor:
        """Which k of the blocks, best first, (n, k)."""
        if self.training:
            noise = torch.empty_like(scores, dtype=torch.float32).exponential_(generator=self.generator).log()
            scores = scores - noise
        return scores.topk(self.k, dim=1).indices

    def _weighted(self, padded: Tensor, probabilities: Tensor, picked: Tensor) -> Tensor:
        """One vector (n, k, width) for each picked block, times its score's sigmoid."""
        rows, columns = probabilities.shape[-2:]
        glimpses = self._glimpses(padded, picked, rows, columns)
        return glimpses * probabilities.flatten(1).gather(1, picked).to(glimpses.dtype)[..., None]

    def _glimpses(self, padded: Tensor, picked: Tensor, rows: int, columns: int) -> Tensor:
        """One vector (n, k, width) for each picked block."""
        count, side = len(padded), self.block
        row, column = picked // columns, picked % columns
        blocks = padded.view(count, self.in_channels, rows, side, columns, side).permute(0, 2, 4, 1, 3, 5)
        chosen = blocks[torch.arange(count, device=picked.device)[:, None], row, column].flatten(2)
        centres = torch.stack([(2 * row + 1) / rows - 1, (2 * column + 1) / columns - 1], dim=2).to(chosen.dtype)
        glimpses: Tensor = (self.pixels(chosen) + self.place(centres)).relu()
        return glimpses

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"reading": None, "generator": None}  # as for `SaccadeConv2d`


def _choice(scores: Tensor, picked: Tensor) -> Tensor:
    """The picked blocks as 0 and 1 (n, k, blocks), each with the gradient of its chance among those that were left.

    These are the chances of picks under Gumbel noise, one after the other (Kool et al., 2019).
    """
    hard = nn.functional.one_hot(picked, scores.shape[1]).to(scores.dtype)
    picked_before = (hard.cumsum(1) - hard).bool()
    soft = scores[:, None].masked_fill(picked_before, -math.inf).softmax(2)
    return hard + (soft - soft.detach())


class _Attention(nn.Module):
    """One head of self-attention over (n, k, width), a residual, and the mean (n, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, sequence: Tensor) -> Tensor:
        query, key, value = self.project(sequence).chunk(3, dim=2)
        attention = (query @ key.transpose(1, 2) / math.sqrt(query.shape[2])).softmax(2)
        mixed: Tensor = sequence + self.output(attention @ value).relu()
        return mixed.mean(dim=1)

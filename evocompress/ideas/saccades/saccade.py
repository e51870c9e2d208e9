"""A convolution that spends its work where it matters: nothing, 3×3 or 5×5, decided for each block of the image.

A gate looks at a down-sampled input and takes one of three decisions for each block. It is trained with everything
else, through samples of a Gumbel-softmax distribution whose gradient passes straight through (Jang et al., 2017,
https://arxiv.org/abs/1611.01144; Maddison et al., 2017). To gather the blocks that are left is from SBNet (Ren et al.,
2018, https://arxiv.org/abs/1801.02108).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from evocompress.errors import ModelError
from evocompress.ideas.saccades.gate import BlockGate, Reading, bounded, finite, precise, whole

__all__ = ["KERNELS", "SaccadeConv2d"]

KERNELS = (0, 3, 5)
"""The kernel's side for each decision; 0: nothing is computed, and the output is zero."""
_HALO = KERNELS[-1] // 2
_CACHED_BYTES = 1 << 22  # of patches that a core gathers before it convolves them; more are slower to come back to
_START = (0.0, 2.0, 0.0)  # logits of a fresh gate: mostly 3×3, so that the layer starts as a plain convolution


class SaccadeConv2d(nn.Module):
    """A convolution of stride 1 that is absent, 3×3 or 5×5 in each block of `block`×`block` pixels.

    Takes images (n, in_channels, h, w) with zeros around them and gives (n, out_channels, h, w). Where h or w is no
    multiple of `block`, the image is continued with zeros to the right and below, and what was computed there is cut
    off. Where a block is left out, the output is exactly zero: the bias is part of the two convolutions. Where the
    gate's logits are not finite, the output is NaN.

    In training mode both convolutions are computed everywhere and one is selected by a sample of the gate's
    distribution, which costs 34/9 of a 3×3 convolution. In evaluation mode the gate takes its likeliest decision, and
    only the blocks that it chose are gathered, with the pixels around them, and convolved. No work is skipped, though
    the values are the same, where gradients are asked for (so evaluate under `torch.no_grad` or
    `torch.inference_mode`), as a gate then gets those that it has in training, without samples; nor where one of the
    convolutions has hooks.

    Args:
        in_channels, out_channels: As for `torch.nn.Conv2d`.
        block: Side of a block in pixels.
        reduction: The gate sees the image this many times smaller; must divide `block`.
        hidden: The gate's number of filters.
        temperature: Of the Gumbel-softmax: nearer to 0, gradients are less biased and vary more.
        bias: Whether both convolutions have one.
        generator: Where samples come from, on the device of the images; None: torch's own, which a segment seeds.
            Copies of the layer use torch's own.

    Raises:
        ModelError: An argument out of range; images of another number of channels, or without pixels.

    >>> layer = SaccadeConv2d(3, 8, block=4).eval()
    >>> layer(torch.zeros(1, 3, 10, 7)).shape, layer.reading.choices.shape
    (torch.Size([1, 8, 10, 7]), torch.Size([1, 3, 2]))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        block: int = 4,
        reduction: int = 2,
        hidden: int = 8,
        temperature: float = 1.0,
        bias: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        whole(out_channels=out_channels)
        finite("temperature", temperature, positive=True)
        self.in_channels, self.out_channels, self.block = in_channels, out_channels, block
        self.temperature, self.generator = temperature, generator
        self.samples = True
        self.gate = BlockGate(in_channels, block, reduction, hidden, _START)
        self.narrow = nn.Conv2d(in_channels, out_channels, KERNELS[1], bias=bias)
        self.wide = nn.Conv2d(in_channels, out_channels, KERNELS[2], bias=bias)
        self.reading: Reading | None = None

    def forward(self, images: Tensor) -> Tensor:
        """(n, in_channels, h, w) to (n, out_channels, h, w); what the gate decided is then in `reading`."""
        whole_blocks, logits = self._gate_logits(images)
        judged = self._sampled(logits) if self.training and self.samples else logits
        choices = judged.argmax(1)
        if self.training or logits.requires_grad or self._watched():
            output = self._computed_everywhere(whole_blocks, self._selection(judged))
        else:
            output = self._computed_where_chosen(whole_blocks, choices)
        if not self.training:
            output = self._undecided_as_nan(output, logits)
        height, width = images.shape[-2:]
        self.reading = Reading(choices, precise(logits).softmax(1), self.block, (height, width))
        return output[..., :height, :width]

    def dense(self, images: Tensor) -> Tensor:
        """What evaluation mode computes, by both convolutions everywhere and a mask: slow, to compare with."""
        whole_blocks, logits = self._gate_logits(images)
        height, width = images.shape[-2:]
        return self._undecided_as_nan(self._computed_everywhere(whole_blocks, _one_hot(logits)), logits)[
            ..., :height, :width
        ]

    def expected_multiply_adds(self) -> Tensor:
        """Of one of the last images, on average over the gate's probabilities, with the gate's own; differentiable.

        What is computed beyond the image, in blocks that reach out of it, counts too.
        """
        probabilities = self._read().probabilities
        kernels = torch.tensor(KERNELS, device=probabilities.device, dtype=probabilities.dtype).square()
        area = (kernels.view(-1, 1, 1) * probabilities).sum(dim=(1, 2, 3)).mean() * self.block**2
        return area * self.in_channels * self.out_channels + self.gate.multiply_adds(probabilities[0, 0].numel())

    def dense_multiply_adds(self) -> int:
        """Of a plain 3×3 convolution, for one of the last images."""
        return 9 * math.prod(self._read().size) * self.in_channels * self.out_channels

    def extra_repr(self) -> str:
        """The arguments that are not seen in the parts."""
        return f"{self.in_channels}, {self.out_channels}, block={self.block}, temperature={self.temperature:g}"

    def _watched(self) -> bool:
        """Whether somebody looks at what the convolutions see.

        Calibration compares the inputs of a layer in two networks, row by row. What is gathered may differ in number
        between them, so what is watched is computed everywhere; the result is the same.
        """
        return any(layer._forward_hooks or layer._forward_pre_hooks for layer in (self.narrow, self.wide))

    def _read(self) -> Reading:
        if self.reading is None or not len(self.reading.choices):
            raise ModelError("this saccade layer has not seen images; run the network on a batch first")
        return self.reading

    def _gate_logits(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The images on whole blocks, and the gate's logits."""
        if images.ndim != 4 or images.shape[1] != self.in_channels or 0 in images.shape[-2:]:
            raise ModelError(
                f"images are {tuple(images.shape)}; they must be (n, {self.in_channels}, h, w) with pixels"
            )
        down, right = (-side % self.block for side in images.shape[-2:])
        if down or right:
            images = nn.functional.pad(images, (0, right, 0, down))
        return images, self.gate(images)

    def _sampled(self, logits: Tensor) -> Tensor:
        """Logits with Gumbel noise: the largest is a sample of their distribution."""
        noise = torch.empty_like(logits, dtype=torch.float32).exponential_(generator=self.generator).log()
        return logits - noise

    def _selection(self, judged: Tensor) -> Tensor:
        """One decision for each block as exactly 0 and 1 (n, 3, rows, columns), with the gradient of the soft one."""
        # Only in training has the gate bounded its logits, and a gate that is sure would seem to be worth nothing.
        soft = ((judged if self.training else bounded(judged)) / self.temperature).softmax(1)
        return _one_hot(judged) + (soft - soft.detach())

    def _computed_everywhere(self, images: Tensor, selection: Tensor) -> Tensor:
        padded = nn.functional.pad(images, (_HALO,) * 4)
        masks = self._on_pixels(selection)
        output: Tensor = self.narrow(padded[..., 1:-1, 1:-1]) * masks[:, 1:2] + self.wide(padded) * masks[:, 2:]
        return output

    def _undecided_as_nan(self, output: Tensor, logits: Tensor) -> Tensor:
        """NaN in the blocks whose logits are not finite, which the largest of them would call left out."""
        undecided = ~logits.isfinite().all(1)
        return output.masked_fill(self._on_pixels(undecided[:, None]), math.nan) if undecided.any() else output

    def _on_pixels(self, blocks: Tensor) -> Tensor:
        """(n, d, rows, columns) to (n, d, rows·block, columns·block)."""
        return blocks.repeat_interleave(self.block, 2).repeat_interleave(self.block, 3)

    def _computed_where_chosen(self, images: Tensor, choices: Tensor) -> Tensor:
        side, (count, rows, columns) = self.block, choices.shape
        # No copy where channels come last, as they do in our networks.
        pixels = images.permute(0, 2, 3, 1).reshape(-1, self.in_channels)
        # Written in runs of `side` pixels, which lie next to each other in memory: twice as fast as a view of blocks.
        runs = images.new_zeros(count * rows * side * columns, side * self.out_channels)
        for decision, convolution in ((1, self.narrow), (2, self.wide)):
            size = side + KERNELS[decision] - 1
            chosen = (choices == decision).nonzero()
            for blocks in torch.split(chosen, _patches_at_once(pixels, size)) if len(chosen) else ():
                image, row, column = blocks.unbind(1)
                inside, places = _patch_places(image, row, column, side=side, size=size, grid=(rows, columns))
                patches = pixels.index_select(0, places)
                # A copy of the images with zeros around them would touch every pixel, also where nothing is chosen.
                patches.index_fill_(0, (~inside).nonzero().flatten(), 0.0)
                outputs = convolution(patches.view(-1, size, size, self.in_channels).permute(0, 3, 1, 2))
                lines = _offsets((image * rows + row) * side * columns + column, side, columns)
                outputs = outputs.permute(0, 2, 3, 1).reshape(len(lines), -1)
                runs.index_copy_(0, lines, outputs.to(runs.dtype))
        return runs.view(count, rows * side, columns * side, self.out_channels).permute(0, 3, 1, 2)

    def __getstate__(self) -> dict[str, Any]:
        # A reading holds the graph of its images, which cannot be copied; nor can a generator everywhere.
        return self.__dict__ | {"reading": None, "generator": None}


def _one_hot(logits: Tensor) -> Tensor:
    likeliest = logits.argmax(1, keepdim=True)
    return torch.zeros_like(logits).scatter_(1, likeliest, 1.0)


def _patches_at_once(pixels: Tensor, size: int) -> int:
    """How many patches of `size`×`size` are gathered before they are convolved."""
    if pixels.device.type != "cpu":
        return len(pixels)
    return max(_CACHED_BYTES // (size**2 * pixels[:1].nbytes), 1)


def _offsets(first: Tensor, rows: int, stride: int) -> Tensor:
    """Places of `rows` neighbours below each other in flat images of `stride` to a row, from each first one; flat."""
    return (first[:, None] + torch.arange(rows, device=first.device) * stride).flatten()


def _patch_places(
    image: Tensor, row: Tensor, column: Tensor, *, side: int, size: int, grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Of each pixel of patches of `size`×`size` around blocks: is it in the image, and its place in flat images."""
    height, width = (blocks * side for blocks in grid)
    reach = torch.arange(size, device=image.device) - (size - side) // 2
    down, across = row[:, None] * side + reach, column[:, None] * side + reach
    inside = ((down >= 0) & (down < height))[:, :, None] & ((across >= 0) & (across < width))[:, None, :]
    down, across = down.clamp_(0, height - 1), across.clamp_(0, width - 1)
    places = (image[:, None, None] * height + down[:, :, None]) * width + across[:, None, :]
    return inside.flatten(), places.flatten()

"""Robust gates: a gate should look at the same places when the image is corrupted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from evocompress.errors import ModelError
from evocompress.ideas.saccades.gate import Reading
from evocompress.ideas.saccades.maps import saccade_maps
from evocompress.ideas.saccades.saccade import SaccadeConv2d

__all__ = ["corrupt", "gate_agreement", "gate_consistency"]

_LEAST = 1e-12  # a probability that has become 0 has a logarithm too


def gate_consistency(model: nn.Module, images: Tensor, corrupted: Tensor) -> Tensor:
    """How far the gates' distributions for images and corrupted images are apart: a scalar, to be added to a loss.

    The Jensen-Shannon divergence in nats, 0 to ln 2, as AugMix has it for predictions (Hendrycks et al., 2020,
    https://arxiv.org/abs/1912.02781), averaged over the locations of each layer, and over layers. Gradients reach the
    gates and everything before them, from both sides. The network runs once on both batches, in the mode it is in but
    without sampling in its gates; running statistics of batch normalisation and the layers' readings stay as they were.
    A network without saccade layers gives 0.

    Args:
        model: The network.
        images: (n, c, h, w).
        corrupted: The same images, corrupted, of the same shape.

    Raises:
        ModelError: The two batches differ in shape.
    """
    _check_alike(images, corrupted)
    layers = [module for module in model.modules() if isinstance(module, SaccadeConv2d)]
    if not layers:
        return images.new_zeros(())
    with _without_trace(model, layers):
        model(torch.cat([images, corrupted]))
        readings = [layer.reading for layer in layers]
    return torch.stack([_divergence(reading) for reading in readings if reading is not None]).mean()


def gate_agreement(model: nn.Module, images: Tensor, corrupted: Tensor) -> float:
    """The share of blocks, over all saccade layers, whose decision is the same on corrupted images, in [0, 1].

    In evaluation mode. Of a `SaccadeSequence` the decision is whether a block is read. A gate that never decides
    otherwise agrees everywhere, so look at what it chooses too.

    Raises:
        ModelError: The two batches differ in shape or are empty, or the network has no saccade layers.
    """
    _check_alike(images, corrupted)
    if not len(images):
        raise ModelError("there are no images to compare decisions on; give at least one")
    first, second = saccade_maps(model, images), saccade_maps(model, corrupted)
    pairs = [(_decisions(reading), _decisions(second[name])) for name, reading in first.items()]
    agreeing = sum(int((left == right).sum()) for left, right in pairs)
    return agreeing / sum(left.numel() for left, _ in pairs)


def corrupt(
    images: Tensor, generator: torch.Generator | None = None, *, noise: float = 0.3, contrast: float = 0.3
) -> Tensor:
    """Images (n, c, h, w) with Gaussian noise, another contrast and another brightness, drawn for each image.

    `noise` is the noise's standard deviation and `contrast` the most by which the contrast is scaled up or down and the
    brightness shifted, all relative to the batch's standard deviation. `generator` is on the images' device; None is
    torch's own.
    """

    def uniform() -> Tensor:
        drawn = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device, dtype=images.dtype)
        return contrast * (2 * drawn - 1)

    scale = images.std(correction=0)
    grain = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return images * (1 + uniform()) + scale * (uniform() + noise * grain)


def _check_alike(images: Tensor, corrupted: Tensor) -> None:
    if images.shape != corrupted.shape:
        shapes = f"{tuple(images.shape)}, corrupted {tuple(corrupted.shape)}"
        raise ModelError(f"images are {shapes}; give the same images twice, in one shape")


def _decisions(reading: Reading) -> Tensor:
    # Choices of a sequence are places in it.
    return reading.choices.sign() if reading.probabilities.shape[1] == 1 else reading.choices


@contextlib.contextmanager
def _without_trace(model: nn.Module, layers: list[SaccadeConv2d]) -> Iterator[None]:
    """Let the network run without a trace: no samples, no running statistics, and the old readings afterwards."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase) and m.track_running_stats]
    before = [(layer, layer.samples, layer.reading) for layer in layers]
    try:
        for layer in layers:
            layer.samples = False
        for norm in norms:
            # Only while it is training is this read as "leave the statistics alone".
            norm.track_running_stats = not norm.training
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        for layer, samples, reading in before:
            layer.samples, layer.reading = samples, reading


def _divergence(reading: Reading) -> Tensor:
    first, second = reading.probabilities.clamp_min(_LEAST).chunk(2)
    middle = ((first + second) / 2).log()
    nats = (first * (first.log() - middle) + second * (second.log() - middle)) / 2
    return nats.sum(dim=1).mean()

"""Maps of where a network looked, and a deletion test of whether that is where it matters."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from evocompress.data.examples import Examples
from evocompress.errors import ModelError
from evocompress.ideas.saccades.gate import Reading
from evocompress.ideas.saccades.saccade import SaccadeConv2d
from evocompress.ideas.saccades.sequence import SaccadeSequence
from evocompress.support.modules import evaluation_mode

__all__ = ["Deletion", "deletion_test", "saccade_maps"]

_BATCH = 250


class Deletion(NamedTuple):
    """Accuracy, in [0, 1], after chosen locations were deleted, and after as many others were."""

    chosen: float
    others: float


def saccade_maps(model: nn.Module, images: Tensor) -> dict[str, Reading]:
    """What each saccade layer of a network decides for images (n, c, h, w) in evaluation mode, by the layer's name.

    Raises:
        ModelError: The network has no saccade layer, or did not run the one that it has.
    """
    layers = {n: m for n, m in model.named_modules() if isinstance(m, SaccadeConv2d | SaccadeSequence)}
    if not layers:
        raise ModelError("the network has no saccade layers (SaccadeConv2d, SaccadeSequence), so there is no map")
    for layer in layers.values():
        layer.reading = None
    with evaluation_mode(model), torch.no_grad():
        model(images)
    readings = {name: layer.reading for name, layer in layers.items() if layer.reading is not None}
    if not readings:
        raise ModelError(f"the network has saccade layers ({', '.join(layers)}), but ran none of them")
    return readings


def deletion_test(model: nn.Module, examples: Examples, seed: int, *, layer: str | None = None) -> Deletion:
    """Is a gate's map faithful? Delete locations that it chose, or as many that it did not, and compare accuracies.

    Of each image m blocks are replaced by the mean value of each channel over all images, m being the number of chosen
    or of other blocks, whichever is less; which ones is drawn from `seed`. Gates then look at the changed image. A
    faithful map has `chosen` well below `others`. After Petsiuk et al. (2018, https://arxiv.org/abs/1806.07421), with
    a control.

    Args:
        model: A network with saccade layers; it keeps its mode.
        examples: Images with labels, on the network's device.
        seed: Of the draws.
        layer: The name of the layer whose map is tested; None: the first one.

    Raises:
        ModelError: There is no such layer, or it chose all blocks or none in every image.
    """
    draws = torch.Generator().manual_seed(seed)
    mean = examples.normalised(examples.inputs.mean((0, 2, 3), dtype=torch.float32)[None, :, None, None])
    hits, deleted = [0, 0], 0
    with evaluation_mode(model), torch.no_grad():
        for start in range(0, len(examples), _BATCH):
            images, labels = examples.batch(slice(start, start + _BATCH))
            reading = _of_layer(saccade_maps(model, images), layer)
            chosen = reading.choices > 0
            count = torch.minimum(chosen.sum((1, 2)), (~chosen).sum((1, 2)))
            deleted += int(count.sum())
            for side, allowed in enumerate((chosen, ~chosen)):
                deleted_pixels = reading.on_pixels(_drawn(allowed, count, draws), (images.shape[2], images.shape[3]))
                logits = model(torch.where(deleted_pixels[:, None], mean, images))
                hits[side] += int((logits.argmax(1) == labels).sum())
    if not deleted:
        raise ModelError("in every image the gate chose all blocks or none, so there are no others to compare with")
    return Deletion(hits[0] / len(examples), hits[1] / len(examples))


def _of_layer(readings: dict[str, Reading], name: str | None) -> Reading:
    if name is None:
        return next(iter(readings.values()))
    if name not in readings:
        raise ModelError(f"layer is {name!r}; saccade layers are {', '.join(map(repr, readings))}")
    return readings[name]


def _drawn(allowed: Tensor, count: Tensor, draws: torch.Generator) -> Tensor:
    """`count` (n,) of the allowed places (n, rows, columns) of each image, as a mask."""
    order = torch.rand(allowed.shape, generator=draws).to(allowed.device).masked_fill_(~allowed, 2.0).flatten(1)
    ranks = order.argsort(dim=1).argsort(dim=1)
    return (ranks < count[:, None]).view_as(allowed)

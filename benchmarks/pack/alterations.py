"""Altered training images, as hard for a network as new ones: to judge by where no others are left.

A network is nearly always right about its training images, and sure of it, so that held-out ones among them say little
of how sure it should be. Turned, zoomed, sheared, shifted and recoloured a little they are new to it.

    python -m benchmarks.pack.alterations

prints the accuracy of ResNet-20 on altered training images of CIFAR-10 by strength; `STRENGTH` is where it has the
accuracy that is published for it on new images, 91.7 %.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path

import torch
from torch import Tensor

import evocompress
from benchmarks.pack.cifar10 import WEIGHTS, held_out_images
from evocompress.data import Examples
from evocompress.networks import build
from evocompress.tasks.classification import evaluate

__all__ = ["STRENGTH", "altered"]

#: At which ResNet-20 is right about 91.8 % of 4 096 training images.
STRENGTH = 0.44
_TURN, _ZOOM, _SHEAR, _SHIFT = math.radians(30), 0.3, 0.3, 0.2  # at most, at strength 1
_CONTRAST, _COLOUR = 0.5, 0.5  # the latter in standard deviations


def altered(examples: Examples, strength: float, seed: int) -> Examples:
    """The examples with float32 images (n, c, h, w) in normalised units, each altered in a way of its own."""
    images = examples.normalised(examples.inputs)
    generator = torch.Generator().manual_seed(seed)

    def draw(most: float, *shape: int) -> Tensor:
        return (2 * torch.rand(len(images), *shape, generator=generator) - 1) * most * strength

    zoom, turn, shear, shift = draw(_ZOOM).exp(), draw(_TURN), draw(_SHEAR), draw(_SHIFT, 2)
    along, across = turn.cos() * zoom, turn.sin() * zoom
    places = torch.stack(
        [torch.stack([along, shear - across, shift[:, 0]], 1), torch.stack([across, along, shift[:, 1]], 1)], 1
    )
    grid = torch.nn.functional.affine_grid(places, list(images.shape), align_corners=False)
    images = torch.nn.functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    mean = images.mean((2, 3), keepdim=True)
    images = (images - mean) * draw(_CONTRAST, 1, 1, 1).exp() + mean + draw(_COLOUR, images.shape[1], 1, 1)
    return dataclasses.replace(examples, inputs=images, mean=(0.0,), std=(1.0,), augmentation="none")


def main() -> None:
    """Print accuracies by strength."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    weights = parser.parse_args().weights
    torch.set_num_threads(1)
    model, images = evocompress.load(weights, build("resnet20")), held_out_images()
    for strength in (0.0, 0.2, 0.3, 0.4, 0.42, 0.44, 0.5):
        judged = evaluate(model, altered(images, strength, seed=0), batch_size=100)
        print(f"{strength:.2f}: accuracy {judged.accuracy:.4f}, cross-entropy {judged.loss:.4f}", flush=True)


if __name__ == "__main__":
    main()

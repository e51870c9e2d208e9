"""CIFAR-10 less the images that no calibration ever sees, and where ResNet-20's weights for it lie."""

from __future__ import annotations

from benchmarks.pack.runs import ROOT
from evocompress.data import Examples, load

__all__ = ["HELD_OUT", "WEIGHTS", "held_out_images", "split_training_images"]

#: Training images that no calibration ever sees, the same for every seed.
HELD_OUT = 4096
WEIGHTS = ROOT.parent / "shared" / "models" / "resnet20_cifar10.safetensors"


def split_training_images() -> tuple[Examples, Examples]:
    """The training images that a calibration may see, and those that it never does."""
    splits = load("cifar10", seed=0, options={"validation": HELD_OUT})
    return splits.train, splits.validation


def held_out_images() -> Examples:
    """The training images that no calibration sees."""
    return split_training_images()[1]

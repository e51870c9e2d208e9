"""Make splits from arrays that were read."""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from evocompress.data.examples import Augmentation, Examples, Splits
from evocompress.data.splitting import hold_out
from evocompress.errors import DataError

__all__ = ["Bytes", "Raw", "examples"]

Bytes: TypeAlias = npt.NDArray[np.uint8]


def examples(images: Bytes, labels: Bytes, mean: tuple[float, ...], std: tuple[float, ...]) -> Examples:
    """Copies of the arrays as tensors; `mean` and `std` in the images' own units."""
    return Examples(torch.tensor(images), torch.tensor(labels.astype(np.int64)), mean, std)


@dataclasses.dataclass(frozen=True, eq=False)
class Raw:
    """A data set of ten classes as its authors split it; images (n, c, h, w), labels (n,), mean and std for [0, 1]."""

    name: str
    images: Bytes
    labels: Bytes
    test_images: Bytes
    test_labels: Bytes
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def split(self, seed: int, *, train: int | None, validation: int, augmentation: Augmentation) -> Splits:
        """Hold `validation` examples out of the training images by `seed`; the test images become the audit.

        `train` keeps that many of the rest, stratified, for short experiments. Raises DataError for impossible numbers.
        """
        if not 0 < validation < len(self.images):
            rule = f"must be from 1 to {len(self.images) - 1}, the training images less one"
            raise DataError(f"{self.name}: validation {validation} {rule}")
        rng = np.random.default_rng(seed)
        kept, held = hold_out(self.labels, validation, rng)
        if train is not None and train != len(kept):
            if not 0 < train < len(kept):
                raise DataError(f"{self.name}: train {train} must be from 1 to {len(kept)}, what validation leaves")
            kept = kept[hold_out(self.labels[kept], train, rng)[1]]
        scale = tuple(255 * m for m in self.mean), tuple(255 * s for s in self.std)
        training = examples(self.images[kept], self.labels[kept], *scale)
        return Splits(
            name=self.name,
            classes=10,
            train=dataclasses.replace(training, augmentation=augmentation),
            validation=examples(self.images[held], self.labels[held], *scale),
            audit=examples(self.test_images, self.test_labels, *scale),
        )

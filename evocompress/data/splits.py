"""Splits of a data set: stratified, from arrays that were read."""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from evocompress.data.examples import Augmentation, Examples, Splits
from evocompress.errors import DataError

__all__ = ["Bytes", "Raw", "examples", "hold_out"]

Bytes: TypeAlias = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]


def hold_out(labels: npt.NDArray[np.integer], count: int, rng: np.random.Generator) -> tuple[Indices, Indices]:
    """Split the positions 0..n-1 into (kept, held out), `count` held out, both sorted.

    Stratified: each class gives its share to within one example. Sorting a random order by label and taking every
    n/count-th place does that without a special case for remainders. Raises DataError unless 0 < count < n.

    >>> kept, held = hold_out(np.array([0, 0, 0, 0, 1, 1]), 3, np.random.default_rng(0))
    >>> np.bincount(np.array([0, 0, 0, 0, 1, 1])[held])
    array([2, 1])
    """
    n = len(labels)
    if not 0 < count < n:
        raise DataError(f"cannot hold out {count} of {n} examples: must be from 1 to {n - 1}")
    order = rng.permutation(n)
    order = order[np.argsort(labels[order], kind="stable")]
    places = (np.arange(count) * n + rng.integers(n)) // count
    held = np.zeros(n, dtype=bool)
    held[order[places]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


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

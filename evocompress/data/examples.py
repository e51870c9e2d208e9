"""Labelled examples in memory (images, or tokens), and the three splits of a data set."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from evocompress.errors import DataError

__all__ = ["IGNORED", "Augmentation", "Examples", "Splits"]

Augmentation: TypeAlias = Literal["none", "crop-flip"]
SPLITS = ("train", "validation", "audit")
#: A label that asks for nothing: that of a padded or given word (as torch's cross_entropy has it).
IGNORED = -100
_DISCRETE = (torch.int32, torch.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """`images` (n, c, h, w), uint8 or float32 as they were read, and `labels` (n,) int64.

    Networks see `(images - mean) / std`, per channel, in the images' own units; `batch` does that, so that a big data
    set stays in memory as bytes. `images` may be inputs of any other kind, (n, …): int32 or int64 are tokens or other
    numbers of things, which networks see as they are, as int64. Of sequences (n, L) or (n, L, d) labels may be (n, L),
    one for each place; -100 asks for nothing there. Instead of classes `labels` may be numbers to predict, float32
    (n, …), which are finite and all count. Raises DataError where the parts do not fit together.
    """

    images: Tensor
    labels: Tensor
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    augmentation: Augmentation = "none"

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.ndim < 2 or images.dtype not in (torch.uint8, torch.float32, *_DISCRETE):
            rule = "must be uint8 or float32 (n, c, h, w), or int32 or int64 (n, …)"
            raise DataError(f"images {images.dtype} {tuple(images.shape)}: {rule}")
        sequences = images.ndim <= 3 and labels.shape == images.shape[:2]
        classes = labels.dtype == torch.int64 and (sequences or labels.shape == images.shape[:1])
        numbers = labels.dtype == torch.float32 and labels.shape[:1] == images.shape[:1]
        if not (classes or numbers):
            places = f", or {tuple(images.shape[:2])}, for each place" if images.ndim <= 3 else ""
            rule = f"must be int64 ({len(images)},), one for each image{places}; or float32 ({len(images)}, …), numbers"
            raise DataError(f"labels {labels.dtype} {tuple(labels.shape)}: {rule}")
        if numbers and not bool(labels.isfinite().all()):
            raise DataError("labels hold NaN or infinity; numbers to predict must be finite")
        if not len(images):
            raise DataError("there are no examples; each split needs at least one")
        if self.is_discrete and (self.mean, self.std) != ((0.0,), (1.0,)):
            raise DataError(f"images {images.dtype} are passed on as they are; mean and std must be (0,) and (1,)")
        if len(self.mean) not in (1, images.shape[1]) or len(self.std) != len(self.mean) or min(self.std) <= 0:
            rule = f"one value, or one for each of the {images.shape[1]} channels, and std above 0"
            raise DataError(f"mean {self.mean}, std {self.std}: must be {rule}")
        if self.augmentation not in ("none", "crop-flip") or (self.augmentation == "crop-flip" and images.ndim != 4):
            raise DataError(f"augmentation {self.augmentation!r}: must be 'none', or 'crop-flip' for (n, c, h, w)")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def is_discrete(self) -> bool:
        """Whether the inputs are tokens or other numbers of things, which are not normalised."""
        return self.images.dtype in _DISCRETE

    @property
    def counted(self) -> int:
        """Over how many things the mean of a loss is: every class label that is not -100, or every example's numbers.

        >>> Examples(torch.zeros(2, 3, dtype=torch.int64), torch.tensor([[1, 2, -100], [0, 1, 1]])).counted
        5
        """
        return len(self) if self.has_numbers else int((self.labels != IGNORED).sum())

    @property
    def is_labelled(self) -> bool:
        """Whether any label asks for something: numbers always do, classes where not all of them are -100."""
        return self.has_numbers or bool((self.labels != IGNORED).any())

    @property
    def has_numbers(self) -> bool:
        """Whether labels are numbers to predict, not classes."""
        return self.labels.is_floating_point()

    @classmethod
    def unlabelled(cls, images: Tensor) -> Examples:
        """Inputs for calibration, which looks at no labels: all of them are -100, which asks for nothing."""
        return cls(images, torch.full((len(images),), IGNORED, device=images.device))

    def without_labels(self) -> Examples:
        """The same inputs, all labels -100."""
        return dataclasses.replace(self, labels=torch.full((len(self),), IGNORED, device=self.labels.device))

    def batch(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """The normalised float32 images (tokens: int64) and the labels at `index`.

        `index` is a slice, or an int64 tensor on the same device.
        """
        if isinstance(index, slice):
            return self.normalised(self.images[index]), self.labels[index]
        return self.normalised(self.images.index_select(0, index)), self.labels.index_select(0, index)

    def normalised(self, images: Tensor) -> Tensor:
        """`(images - mean) / std` as a new float32 tensor; tokens as int64."""
        if self.is_discrete:
            return images.long()
        if len(self.mean) == 1:
            return images.float().sub(self.mean[0]).mul_(1 / self.std[0])
        shape = (-1,) + (1,) * (images.ndim - 2)
        mean = torch.tensor(self.mean, device=images.device).view(shape)
        scale = torch.tensor(self.std, device=images.device).reciprocal_().view(shape)
        return images.float().sub(mean).mul_(scale)

    def take(self, index: Tensor) -> Examples:
        """The examples at `index`, an int64 tensor."""
        return dataclasses.replace(self, images=self.images[index], labels=self.labels[index])

    def to(self, device: torch.device | str) -> Examples:
        """The same examples on `device`; itself where they are there already."""
        images, labels = self.images.to(device), self.labels.to(device)
        if images is self.images and labels is self.labels:
            return self
        return dataclasses.replace(self, images=images, labels=labels)


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """A data set: training sees `train`, selection sees `validation`, `audit` is looked at once, at the end.

    `classes` says how many there are; where labels are numbers, how many a network predicts for an example, for its
    task to check.
    """

    name: str
    classes: int
    train: Examples
    validation: Examples
    audit: Examples

    def __post_init__(self) -> None:
        for name in SPLITS:
            split: Examples = getattr(self, name)
            labels = split.labels[:0] if split.has_numbers else split.labels[split.labels != IGNORED]
            low, high = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
            if low < 0 or high >= self.classes:
                rule = f"0..{self.classes - 1}" if high >= self.classes else "0 or more, a class's number"
                raise DataError(f"{self.name}: labels of {name} are {low}..{high}; must be {rule} (-100: no label)")
            if split.labels.dtype != self.train.labels.dtype:
                kinds = f"{split.labels.dtype} in {name}, {self.train.labels.dtype} in train"
                raise DataError(f"{self.name}: labels are {kinds}; must be of one kind")
            if split.images.shape[1:] != self.train.images.shape[1:]:
                shapes = f"{tuple(split.images.shape[1:])} in {name}, {tuple(self.train.images.shape[1:])} in train"
                raise DataError(f"{self.name}: images are {shapes}; must be the same")

    @functools.cached_property
    def sha256(self) -> str:
        """Of every image, label and normalisation in the order of the splits: the data and how it was split."""
        digest = hashlib.sha256()
        for name in SPLITS:
            split: Examples = getattr(self, name)
            dtype = str(split.images.dtype)
            digest.update(repr((name, dtype, tuple(split.images.shape), split.mean, split.std)).encode())
            for tensor in (split.images, split.labels):
                digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Name, hash, number of classes and the number of examples in each split; JSON-ready."""
        sizes = {name: len(getattr(self, name)) for name in SPLITS}
        return {"name": self.name, "sha256": self.sha256, "classes": self.classes, **sizes}

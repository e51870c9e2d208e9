"""Labelled examples, in memory or made when they are asked for, and the three splits of a data set."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from evocompress.data.torch_datasets import IGNORED, DatasetInputs, as_seen
from evocompress.errors import DataError
from evocompress.support.inputs import Inputs, count, described, mapped, tensors_in

__all__ = ["IGNORED", "Augmentation", "Examples", "Splits"]

_OF_IMAGES = ("flip", "crop-flip")
Augmentation: TypeAlias = Literal["none", "flip", "crop-flip"] | Callable[[Any, torch.Generator], Any]
"""A built-in change of training images, or a function (inputs of a batch, CPU generator) -> inputs."""
SPLITS = ("train", "validation", "audit")
_DISCRETE = (torch.int32, torch.int64)
_DIGESTED = 256  # examples of a data set that makes them when they are asked for


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Inputs of n examples, and their labels.

    In memory, which is fast, inputs are one tensor: images (n, c, h, w) or anything else (n, …), uint8 or float32 as
    they were read. Networks see `(inputs - mean) / std`, per channel, in the images' own units; `batch` does that, so
    that a big data set stays in memory as bytes. int32 or int64 are tokens or other numbers of things, which networks
    see as they are, as int64. Networks of several inputs have a tuple or a mapping of tensors (n, …), which are
    not normalised. `DatasetInputs` makes inputs when they are asked for.

    Labels are (n,) int64, or of sequences (n, L), one for each place; -100 asks for nothing there. Instead of classes
    they may be numbers to predict, float32 (n, …), which are finite and all count.

    Raises:
        DataError: The parts do not fit together.
    """

    inputs: Inputs
    labels: Tensor
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    augmentation: Augmentation = "none"

    def __post_init__(self) -> None:
        inputs, labels = self.inputs, self.labels
        tensor = inputs if isinstance(inputs, Tensor) else None
        if tensor is not None:
            self._check_tensor(tensor)
        elif not isinstance(inputs, DatasetInputs):
            sizes = {tuple(part.shape[:1]) for part in tensors_in(inputs)}
            if len(sizes) != 1 or () in sizes:
                raise DataError(f"inputs are {described(inputs)}; must be tensors (n, …) of one n")
        if not len(self):
            raise DataError("there are no examples; each split needs at least one")
        if tensor is None:
            places, of_places = ", or of two dimensions, for each place", labels.ndim == 2
        else:
            of_places = tensor.ndim <= 3 and labels.shape == tensor.shape[:2]
            places = f", or {tuple(tensor.shape[:2])}, for each place" if tensor.ndim <= 3 else ""
        fits = labels.ndim > 0 and len(labels) == len(self)
        classes = labels.dtype == torch.int64 and fits and (labels.ndim == 1 or of_places)
        numbers = labels.dtype == torch.float32 and fits
        if not (classes or numbers):
            rule = f"must be int64 ({len(self)},), one for each image{places}; or float32 ({len(self)}, …), numbers"
            raise DataError(f"labels {labels.dtype} {tuple(labels.shape)}: {rule}")
        if numbers and not bool(labels.isfinite().all()):
            raise DataError("labels hold NaN or infinity; numbers to predict must be finite")
        is_image = tensor is not None and tensor.ndim == 4
        is_known = callable(self.augmentation) or self.augmentation in ("none", *_OF_IMAGES)
        if not is_known or (self.augmentation in _OF_IMAGES and not is_image):
            rule = "must be 'none', 'flip' or 'crop-flip' for (n, c, h, w), or a function (inputs, generator) -> inputs"
            raise DataError(f"augmentation {self.augmentation!r}: {rule}")

    def _check_tensor(self, inputs: Tensor) -> None:
        if inputs.ndim < 2 or inputs.dtype not in (torch.uint8, torch.float32, *_DISCRETE):
            rule = "must be uint8 or float32 (n, c, h, w), or int32 or int64 (n, …)"
            raise DataError(f"images {inputs.dtype} {tuple(inputs.shape)}: {rule}")
        if self.is_discrete and (self.mean, self.std) != ((0.0,), (1.0,)):
            raise DataError(f"images {inputs.dtype} are passed on as they are; mean and std must be (0,) and (1,)")
        if len(self.mean) not in (1, inputs.shape[1]) or len(self.std) != len(self.mean) or min(self.std) <= 0:
            rule = f"one value, or one for each of the {inputs.shape[1]} channels, and std above 0"
            raise DataError(f"mean {self.mean}, std {self.std}: must be {rule}")

    def __len__(self) -> int:
        return len(self.inputs) if isinstance(self.inputs, DatasetInputs) else count(self.inputs)

    @classmethod
    def of_dataset(cls, source: Any, augmentation: Augmentation = "none") -> Examples:
        """The examples of a torch `Dataset`, map-style or iterable, or of a `DataLoader` (see `DatasetInputs.of`).

        >>> from torch.utils.data import TensorDataset
        >>> examples = Examples.of_dataset(TensorDataset(torch.zeros(5, 3), torch.tensor([0, 1, 0, 2, 1])))
        >>> len(examples), examples.labels.tolist(), examples.batch(slice(0, 2))[0].shape
        (5, [0, 1, 0, 2, 1], torch.Size([2, 3]))
        """
        inputs = DatasetInputs.of(source)
        return cls(inputs, inputs.labels, augmentation=augmentation)

    @property
    def device(self) -> torch.device:
        """Where batches are."""
        return self.labels.device

    @property
    def is_discrete(self) -> bool:
        """Whether the inputs are tokens or other numbers of things, which are not normalised."""
        return isinstance(self.inputs, Tensor) and self.inputs.dtype in _DISCRETE

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

    def batch(self, index: Tensor | slice) -> tuple[Inputs, Tensor]:
        """What a network is called with for the examples at `index`, and their labels.

        Normalised float32 images (tokens: int64). `index` is a slice, or an int64 tensor on the same device.
        """
        if isinstance(self.inputs, DatasetInputs):
            return self._labelled(self.inputs.batch(index))
        if isinstance(index, slice):
            return self.normalised(mapped(self.inputs, lambda tensor: tensor[index])), self.labels[index]
        chosen = mapped(self.inputs, lambda tensor: tensor.index_select(0, index))
        return self.normalised(chosen), self.labels.index_select(0, index)

    def batches(self, indices: Sequence[Tensor]) -> Iterator[tuple[Inputs, Tensor]]:
        """`batch` of each, in their order; a data set with workers of its own makes them ahead."""
        if isinstance(self.inputs, DatasetInputs):
            return map(self._labelled, self.inputs.batches(indices))
        return map(self.batch, indices)

    def _labelled(self, batch: tuple[Inputs, Tensor | None]) -> tuple[Inputs, Tensor]:
        inputs, labels = batch
        if labels is None or not self.is_labelled:
            labels = torch.full((count(inputs),), IGNORED, device=self.device)
        return inputs, labels

    def normalised(self, inputs: Inputs) -> Inputs:
        """`(inputs - mean) / std` as a new float32 tensor; tokens as int64; of several inputs each as it is."""
        if not isinstance(inputs, Tensor):
            return mapped(inputs, as_seen)
        if self.is_discrete:
            return inputs.long()
        if len(self.mean) == 1:
            return inputs.float().sub(self.mean[0]).mul_(1 / self.std[0])
        shape = (-1,) + (1,) * (inputs.ndim - 2)
        mean = torch.tensor(self.mean, device=inputs.device).view(shape)
        scale = torch.tensor(self.std, device=inputs.device).reciprocal_().view(shape)
        return inputs.float().sub(mean).mul_(scale)

    def take(self, index: Tensor) -> Examples:
        """The examples at `index`, an int64 tensor."""
        if isinstance(self.inputs, DatasetInputs):
            return dataclasses.replace(self, inputs=self.inputs.take(index), labels=self.labels[index])
        return dataclasses.replace(
            self, inputs=mapped(self.inputs, lambda tensor: tensor[index]), labels=self.labels[index]
        )

    def to(self, device: torch.device | str) -> Examples:
        """The same examples on `device`; itself where they are there already."""
        labels = self.labels.to(device)
        if labels is self.labels:
            return self
        if isinstance(self.inputs, DatasetInputs):
            return dataclasses.replace(self, inputs=self.inputs.to(device), labels=labels)
        return dataclasses.replace(self, inputs=mapped(self.inputs, lambda tensor: tensor.to(device)), labels=labels)

    def parts(self) -> Iterator[Tensor]:
        """Tensors that tell these examples from others: all inputs and labels.

        Of a data set that makes its inputs: all labels, and the inputs of 256 examples, spread evenly.
        """
        inputs = self.inputs
        if isinstance(inputs, DatasetInputs):
            few = torch.linspace(0, len(self) - 1, min(len(self), _DIGESTED)).long()
            for place in few:
                yield from tensors_in(inputs.batch(place[None])[0])
        else:
            yield from tensors_in(inputs)
        yield self.labels


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
            shapes = _shape(split.inputs), _shape(self.train.inputs)
            if shapes[0] != shapes[1]:
                raise DataError(
                    f"{self.name}: images are {shapes[0]} in {name}, {shapes[1]} in train; must be the same"
                )

    @functools.cached_property
    def sha256(self) -> str:
        """Of every image, label and normalisation in the order of the splits: the data and how it was split."""
        digest = hashlib.sha256()
        for name in SPLITS:
            split: Examples = getattr(self, name)
            if isinstance(split.inputs, Tensor):
                what: tuple[Any, ...] = (str(split.inputs.dtype), tuple(split.inputs.shape))
            else:
                what = (len(split), *map(str, split.inputs)) if isinstance(split.inputs, Mapping) else (len(split),)
            digest.update(repr((name, *what, split.mean, split.std)).encode())
            for tensor in split.parts():
                digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Name, hash, number of classes and the number of examples in each split; JSON-ready."""
        sizes = {name: len(getattr(self, name)) for name in SPLITS}
        return {"name": self.name, "sha256": self.sha256, "classes": self.classes, **sizes}


def _shape(inputs: Inputs) -> Any:
    """What all splits have alike: the shape of an example, or of each of several inputs."""
    if isinstance(inputs, Tensor):
        return tuple(inputs.shape[1:])
    if isinstance(inputs, DatasetInputs):
        return "made when they are asked for"
    names = list(inputs) if isinstance(inputs, Mapping) else range(len(inputs))
    return {str(name): _shape(inputs[name]) if isinstance(inputs[name], Tensor) else None for name in names}

"""Inputs that a torch data set makes when they are asked for: files that it reads, sequences that it pads."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, default_collate

from evocompress.errors import DataError
from evocompress.support.inputs import Inputs, count, mapped
from evocompress.support.wording import kind_of

__all__ = ["IGNORED", "DatasetInputs", "as_seen", "is_dataset"]

#: A label that asks for nothing: that of a padded or given word (as torch's cross_entropy has it).
IGNORED = -100
#: Where a batch by name has its labels: under the first of these that is there.
_LABELS = ("labels", "label", "targets", "target", "y")
_BATCH = 256  # examples, where all labels are read


def is_dataset(value: object) -> bool:
    """Whether something is a torch data set or loader, or like one: with items and a length, and no array or list."""
    if isinstance(value, DataLoader | torch.utils.data.Dataset):
        return True
    plain = isinstance(value, Sequence | Mapping | Tensor) or hasattr(value, "__array__")
    return not plain and hasattr(value, "__getitem__") and hasattr(value, "__len__")


@dataclasses.dataclass(frozen=True, eq=False)
class DatasetInputs:
    """The examples of a data set at `indices`, each made anew whenever it is in a batch.

    A batch is what `collate` makes of a list of items. By name its labels are `labels`, `label`, `targets`, `target` or
    `y`, and the rest is what the network is called with by name; of a tuple or list the last is the labels, and what
    is before it the inputs; anything else is inputs without labels.

    Args:
        dataset: Anything with `dataset[i]`.
        indices: Which of its items, int64 (n,).
        collate: Makes a batch of a list of items, as `collate_fn` of a DataLoader.
        workers: Processes that make batches, as `num_workers` of a DataLoader.
        device: Where batches go.
    """

    dataset: Any
    indices: Tensor
    collate: Callable[[list[Any]], Any] = default_collate
    workers: int = 0
    device: torch.device | str = "cpu"

    @classmethod
    def of(cls, source: Any) -> DatasetInputs:
        """Of a map-style data set, of an iterable one, which is read once into memory, or of a DataLoader over either.

        Of a loader the collate function and the number of workers are taken; what is drawn into which batch is the
        training's to say.

        Raises:
            DataError: There is nothing in it.
        """
        collate, workers, is_batched = default_collate, 0, False
        if isinstance(source, DataLoader):
            is_batched = source.batch_size is None and source.batch_sampler is None
            collate, workers = (default_collate if is_batched else source.collate_fn), source.num_workers
            source = source.dataset
        if is_batched:  # its items are batches
            batches = list(source) if isinstance(source, IterableDataset) else [source[i] for i in range(len(source))]
            source = [mapped(batch, lambda tensor, i=i: tensor[i]) for batch in batches for i in range(count(batch))]  # type: ignore[misc]
        elif isinstance(source, IterableDataset):
            source = list(source)
        try:
            length = len(source)
        except TypeError:
            raise DataError(f"{kind_of(source)} has no length; give one that has, or an IterableDataset") from None
        if not length:
            raise DataError("the data set has no examples; each split needs at least one")
        return cls(source, torch.arange(length), collate, workers)

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, index: Tensor) -> DatasetInputs:
        """The examples at `index`."""
        return dataclasses.replace(self, indices=self.indices[index.cpu()])

    def to(self, device: torch.device | str) -> DatasetInputs:
        """The same examples, whose batches go to `device`."""
        return dataclasses.replace(self, device=device)

    def batch(self, index: Tensor | slice) -> tuple[Inputs, Tensor | None]:
        """Inputs and labels (None: the data set has none) of the examples at `index`."""
        chosen = self.indices[index.cpu() if isinstance(index, Tensor) else index]
        return self._parts(self.collate([self.dataset[i] for i in chosen.tolist()]))

    def batches(self, indices: Iterable[Tensor]) -> Iterator[tuple[Inputs, Tensor | None]]:
        """`batch` of each, in their order; workers make them ahead."""
        if not self.workers:
            yield from map(self.batch, indices)
            return
        chosen = [self.indices[index.cpu()].tolist() for index in indices]
        loader = DataLoader(self.dataset, batch_sampler=chosen, collate_fn=self.collate, num_workers=self.workers)
        yield from map(self._parts, loader)

    def _parts(self, batch: Any) -> tuple[Inputs, Tensor | None]:
        labels: Any = None
        if isinstance(batch, Mapping):
            name = next((name for name in _LABELS if name in batch), None)
            inputs: Inputs = {key: part for key, part in batch.items() if key != name}
            labels = None if name is None else batch[name]
        elif isinstance(batch, tuple | list) and len(batch) > 1:
            *before, labels = batch
            inputs = before[0] if len(before) == 1 else tuple(before)
        else:
            inputs = batch[0] if isinstance(batch, tuple | list) and batch else batch
        if labels is not None:
            labels = _labels(labels).to(self.device)
        return mapped(inputs, lambda tensor: as_seen(tensor).to(self.device)), labels

    @functools.cached_property
    def labels(self) -> Tensor:
        """The labels of all examples, from a pass over them; shorter rows are filled with -100.

        Raises:
            DataError: They cannot be put together, or an example fails.
        """
        said_labels = self._said_labels()
        if said_labels is not None:
            return said_labels.to(self.device)
        parts = []
        chosen = [torch.arange(at, min(at + _BATCH, len(self))) for at in range(0, len(self), _BATCH)]
        for (inputs, labels), size in zip(self.batches(chosen), map(len, chosen), strict=True):
            labelled = size if labels is None else len(labels) if labels.ndim else 0
            if count(inputs) != size or labelled != size:
                shown = f"{count(inputs)} inputs" + ("" if labels is None else f" and {labelled} labels")
                raise DataError(f"of {size} examples the data set makes a batch of {shown}; must be one for each")
            parts.append(torch.full((size,), IGNORED, device=self.device) if labels is None else labels)
        try:
            return torch.cat(_evenly_long(parts))
        except (RuntimeError, TypeError) as cause:
            raise DataError(f"labels of the data set do not fit together: {cause}") from cause

    def _said_labels(self) -> Tensor | None:
        """Labels that the data set has as an attribute `targets`, as torchvision's have, if its items agree with it."""
        dataset: Any = self.dataset
        indices = self.indices
        while isinstance(dataset, Subset):
            dataset, indices = dataset.dataset, torch.as_tensor(list(dataset.indices))[indices]
        try:
            said = _labels(torch.as_tensor(dataset.targets))[indices]
            few = torch.linspace(0, len(self) - 1, min(len(self), 8)).long()
            labels = self.batch(few)[1]
        except Exception:  # somebody else's attribute may be anything
            return None
        return said if labels is not None and torch.equal(said[few], labels.cpu()) else None


def _labels(labels: Any) -> Tensor:
    """Whole numbers as int64, floats and truth values as float32."""
    tensor: Tensor = torch.as_tensor(labels).detach()
    return tensor.float() if tensor.is_floating_point() or tensor.dtype == torch.bool else tensor.long()


def as_seen(tensor: Tensor) -> Tensor:
    """What a network sees of a tensor: floats as float32, whole numbers as int64, truth values as they are."""
    tensor = tensor.detach()
    if tensor.is_floating_point():
        return tensor.float()
    return tensor if tensor.dtype == torch.bool or tensor.is_complex() else tensor.long()


def _evenly_long(parts: Sequence[Tensor]) -> list[Tensor]:
    """Class labels (n, L) of several L, filled to the longest."""
    if all(part.ndim == 2 and part.dtype == torch.int64 for part in parts):
        longest = max(part.shape[1] for part in parts)
        return [torch.nn.functional.pad(part, (0, longest - part.shape[1]), value=IGNORED) for part in parts]
    return list(parts)

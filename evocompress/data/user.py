"""Make splits of what a user's own loader returns, or say clearly what is wrong with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evocompress.data.examples import SPLITS, Examples, Splits
from evocompress.data.torch_datasets import IGNORED, is_dataset
from evocompress.errors import DataError, EvocompressError
from evocompress.support.inputs import Inputs, mapped, tensors_in

__all__ = ["as_splits"]


def as_splits(name: str, result: Any) -> Splits:
    """`result` as `Splits`: it is one, or three parts in a tuple or list, or a dict of train, validation and audit.

    The order is train, validation, audit; a dict may also give `classes`, and `transform`: a function of a batch's
    inputs and a torch generator that returns what the network is to see of them in training.

    A part is

    - a pair (x, y) of arrays or tensors, x (n, c, h, w) or any (n, …), y (n,): integers are classes, floats (n, …)
      numbers to predict, integers or booleans (n, classes) 1 where a class holds. uint8 images are scaled to [0, 1];
      floats are taken as they are, so normalise them. For a network of several inputs x is a tuple or a dict of arrays;
    - a torch `Dataset`, map-style or iterable, or a `DataLoader`, as `data.torch_datasets.DatasetInputs` has it;
    - x alone, or a list of other than two single inputs, which are stacked: then there are no labels, as calibration
      needs none.

    Raises:
        DataError: Anything else; names the split.
    """
    if isinstance(result, Splits):
        return result
    parts, classes, transform = _parts(name, result)
    examples = [_examples(f"{name}, {split}", part) for split, part in zip(SPLITS, parts, strict=True)]
    if transform is not None:
        if not callable(transform):
            raise DataError(f"{name}: transform {transform!r} must be a function (inputs, generator) -> inputs")
        examples[0] = dataclasses.replace(examples[0], augmentation=transform)
    if classes is None:
        classes = max(1, *map(_classes, examples))
    if not isinstance(classes, int) or classes < 1:
        raise DataError(f"{name}: classes {classes!r} must be a positive integer")
    return Splits(name, classes, *examples)


def _classes(examples: Examples) -> int:
    """Classes up to the largest label, 0 where there are none; of numbers, how many an example has."""
    return examples.labels[0].numel() if examples.has_numbers else 1 + int(examples.labels.max())


def _parts(name: str, result: Any) -> tuple[list[Any], Any, Any]:
    if isinstance(result, Mapping):
        if set(result) - {"classes", "transform"} != set(SPLITS):
            keys = ", ".join(sorted(map(str, result)))
            raise DataError(f"{name}: the loader's dict has the keys {keys}; must be train, validation, audit")
        return [result[split] for split in SPLITS], result.get("classes"), result.get("transform")
    if isinstance(result, Sequence) and not isinstance(result, str | bytes) and len(result) == len(SPLITS):
        return list(result), None, None
    returned = f"a {type(result).__name__}" + (f" of {len(result)}" if isinstance(result, Sequence) else "")
    rule = f"three pairs (images, labels), or images alone, or data sets: {', '.join(SPLITS)}"
    raise DataError(f"{name}: the loader returned {returned}; must be {rule}")


def _examples(part_name: str, part: Any) -> Examples:
    if isinstance(part, Examples):
        return part
    if is_dataset(part):
        try:
            return Examples.of_dataset(part)
        except EvocompressError as failure:
            raise DataError(f"{part_name}: {failure}") from failure
        except Exception as failure:  # of somebody else's data set
            raise DataError(f"{part_name}: an example fails: {type(failure).__name__}: {failure}") from failure
    inputs, labels = _inputs_and_labels(part_name, part)
    if labels.is_complex() or (labels.dtype == torch.bool and labels.ndim < 2):
        rule = "must be integers, the class of each image, or floats, numbers to predict"
        raise DataError(f"{part_name}: labels are {labels.dtype}; {rule}")
    # Where they are 0 or 1 for each class:
    several = labels.dtype == torch.bool or (labels.ndim == 2 and isinstance(inputs, Tensor) and inputs.ndim > 3)
    labels = labels.float() if several or labels.is_floating_point() else labels.long()
    inputs = mapped(inputs, lambda tensor: tensor.float() if tensor.is_floating_point() else tensor)
    if any(tensor.is_floating_point() and not bool(tensor.isfinite().all()) for tensor in tensors_in(inputs)):
        raise DataError(f"{part_name}: images hold NaN or infinity; all values must be finite in float32")
    is_bytes = isinstance(inputs, Tensor) and inputs.dtype == torch.uint8
    try:
        return Examples(inputs, labels, std=(255.0,) if is_bytes else (1.0,))
    except DataError as failure:
        raise DataError(f"{part_name}: {failure}") from failure


def _inputs_and_labels(part_name: str, part: Any) -> tuple[Inputs, Tensor]:
    """Both of a pair; inputs alone get labels that ask for nothing."""
    sequence = isinstance(part, Sequence) and not isinstance(part, str | bytes)
    if sequence and len(part) == 2 and part[1] is not None:
        return _inputs(f"{part_name}, images", part[0]), _tensor(f"{part_name}, labels", part[1])
    if isinstance(part, Mapping):
        keys = ", ".join(sorted(map(str, part)))
        raise DataError(f"{part_name}: is a dict of {keys}; give a pair (dict of inputs, labels)")
    if not hasattr(part, "__array__") and (not sequence or len(part) == 1):
        kind = f"a {type(part).__name__}" + (" of 1" if sequence else "")
        raise DataError(f"{part_name}: must be a pair (images, labels), or images alone without labels; is {kind}")
    images = _tensor(f"{part_name}, images", part[0] if sequence and len(part) == 2 else part)
    return images, torch.full(images.shape[:1], IGNORED)


def _inputs(part_name: str, value: Any) -> Inputs:
    """One array, or several by name or in a tuple."""
    if isinstance(value, Mapping):
        return {name: _tensor(f"{part_name}, {name}", part) for name, part in value.items()}
    if isinstance(value, tuple) and value and all(hasattr(part, "__array__") and np.ndim(part) for part in value):
        return tuple(_tensor(f"{part_name}, input {place}", part) for place, part in enumerate(value))
    return _tensor(part_name, value)


def _tensor(part_name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    try:
        if isinstance(value, Sequence) and value and all(isinstance(item, Tensor) for item in value):
            return torch.stack([*value]).detach()
        return torch.tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError) as failure:
        raise DataError(f"{part_name}: a {type(value).__name__} is no array of numbers ({failure})") from failure

"""Make splits of what a user's own loader returns, or say clearly what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evocompress.data.examples import IGNORED, SPLITS, Examples, Splits
from evocompress.errors import DataError

__all__ = ["as_splits"]


def as_splits(name: str, result: Any) -> Splits:
    """`result` as `Splits`: it is one, or ((x, y), (x, y), (x, y)), or a dict of train, validation and audit.

    The order is train, validation, audit; a dict may also give `classes`. x is (n, c, h, w), y (n,), arrays or tensors:
    integers are classes, floats (n, …) numbers to predict, integers or booleans (n, classes) 1 where a class holds.
    In the place of a pair there may be x alone, or a sequence of other than two single inputs, which are stacked: then
    there are no labels, as calibration needs none. uint8 images are scaled to [0, 1]; floats are taken as they are, so
    normalise them. Raises DataError, naming the split, for anything else.
    """
    if isinstance(result, Splits):
        return result
    parts, classes = _parts(name, result)
    examples = [_examples(f"{name}, {split}", part) for split, part in zip(SPLITS, parts, strict=True)]
    if classes is None:
        classes = max(1, *map(_classes, examples))
    if not isinstance(classes, int) or classes < 1:
        raise DataError(f"{name}: classes {classes!r} must be a positive integer")
    return Splits(name, classes, *examples)


def _classes(examples: Examples) -> int:
    """Classes up to the largest label, 0 where there are none; of numbers, how many an example has."""
    return examples.labels[0].numel() if examples.has_numbers else 1 + int(examples.labels.max())


def _parts(name: str, result: Any) -> tuple[list[Any], Any]:
    if isinstance(result, Mapping):
        if set(result) - {"classes"} != set(SPLITS):
            keys = ", ".join(sorted(map(str, result)))
            raise DataError(f"{name}: the loader's dict has the keys {keys}; must be train, validation, audit")
        return [result[split] for split in SPLITS], result.get("classes")
    if isinstance(result, Sequence) and not isinstance(result, str | bytes) and len(result) == len(SPLITS):
        return list(result), None
    returned = f"a {type(result).__name__}" + (f" of {len(result)}" if isinstance(result, Sequence) else "")
    rule = f"three pairs (images, labels), or images alone: {', '.join(SPLITS)}"
    raise DataError(f"{name}: the loader returned {returned}; must be {rule}")


def _examples(part_name: str, part: Any) -> Examples:
    if isinstance(part, Examples):
        return part
    images, labels = _inputs_and_labels(part_name, part)
    if labels.is_complex() or (labels.dtype == torch.bool and labels.ndim < 2):
        rule = "must be integers, the class of each image, or floats, numbers to predict"
        raise DataError(f"{part_name}: labels are {labels.dtype}; {rule}")
    several = labels.dtype == torch.bool or (labels.ndim == 2 and images.ndim > 3)  # 0 or 1 for each class
    labels = labels.float() if several or labels.is_floating_point() else labels.long()
    if images.is_floating_point():
        images = images.float()
        if not bool(images.isfinite().all()):
            raise DataError(f"{part_name}: images hold NaN or infinity; all values must be finite in float32")
    try:
        return Examples(images, labels, std=(255.0,) if images.dtype == torch.uint8 else (1.0,))
    except DataError as failure:
        raise DataError(f"{part_name}: {failure}") from failure


def _inputs_and_labels(part_name: str, part: Any) -> tuple[Tensor, Tensor]:
    """Both of a pair; inputs alone get labels that ask for nothing."""
    sequence = isinstance(part, Sequence) and not isinstance(part, str | bytes)
    if sequence and len(part) == 2 and part[1] is not None:
        return _tensor(f"{part_name}, images", part[0]), _tensor(f"{part_name}, labels", part[1])
    if not hasattr(part, "__array__") and (not sequence or len(part) == 1):
        kind = f"a {type(part).__name__}" + (" of 1" if sequence else "")
        raise DataError(f"{part_name}: must be a pair (images, labels), or images alone without labels; is {kind}")
    images = _tensor(f"{part_name}, images", part[0] if sequence and len(part) == 2 else part)
    return images, torch.full(images.shape[:1], IGNORED)


def _tensor(part_name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    try:
        if isinstance(value, Sequence) and value and all(isinstance(item, Tensor) for item in value):
            return torch.stack([*value]).detach()
        return torch.tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError) as failure:
        raise DataError(f"{part_name}: a {type(value).__name__} is no array of numbers ({failure})") from failure

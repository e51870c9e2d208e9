"""Splits as plain arrays, which processes of one machine can share without a copy."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evocompress.data.examples import SPLITS, Examples, Splits
from evocompress.data.torch_datasets import DatasetInputs
from evocompress.support.inputs import mapped, tensors_in

__all__ = ["as_arrays", "from_arrays"]

_LEAST = 32 << 20  # bytes: smaller data are read again as quickly


def as_arrays(splits: Splits) -> dict[str, Any] | None:
    """Everything in the splits, tensors as numpy arrays of the same memory; None where sharing is of no use.

    So it is of little data, and of data sets that make their inputs when they are asked for.
    """
    parts: list[Examples] = [getattr(splits, name) for name in SPLITS]
    if any(isinstance(part.inputs, DatasetInputs) for part in parts):
        return None
    tensors = [tensor for part in parts for tensor in (*tensors_in(part.inputs), part.labels)]
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors) < _LEAST:
        return None
    described = {name: _plain(part) for name, part in zip(SPLITS, parts, strict=True)}
    return {"name": splits.name, "classes": splits.classes, "parts": described}


def from_arrays(plain: dict[str, Any]) -> Splits:
    """The splits of what `as_arrays` gave; their memory is that of the arrays, which may be read-only."""
    parts = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes to examples
        for name, part in plain["parts"].items():
            fields = part | {"inputs": _tensors(part["inputs"]), "labels": _tensors(part["labels"])}
            parts[name] = Examples(**fields)
    return Splits(plain["name"], plain["classes"], **parts)


def _plain(examples: Examples) -> dict[str, Any]:
    fields = {field.name: getattr(examples, field.name) for field in dataclasses.fields(examples)}
    return fields | {"inputs": mapped(examples.inputs, _array), "labels": _array(examples.labels)}


def _tensors(value: Any) -> Any:
    """What `mapped` made of a batch's structure, arrays as tensors again."""
    if isinstance(value, dict):
        return {name: _tensors(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(map(_tensors, value))
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _array(tensor: Tensor) -> Any:
    return tensor.cpu().contiguous().numpy()

"""CIFAR-10 (Krizhevsky, 2009), from `cifar-10-batches-bin` or `cifar-10-batches-py`."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TypeAlias

import numpy as np

from evocompress.data.examples import Augmentation, Splits
from evocompress.data.location import missing
from evocompress.data.pickles import load_plain
from evocompress.data.splits import Bytes, Raw
from evocompress.errors import DataError

__all__ = ["BATCHES", "cifar10"]

BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PIXELS = 3 * 32 * 32
_LARGEST = 1 << 30  # bytes of a batch; those of the set have 31 MB

Batch: TypeAlias = tuple[Bytes, Bytes]


def cifar10(
    root: Path, seed: int, *, train: int | None = None, validation: int = 5000, augmentation: Augmentation = "crop-flip"
) -> Splits:
    """Colour photographs of 32×32: `validation` held out of 50 000 to train, 10 000 for the audit."""
    batches = _read(root)
    images = np.concatenate([batch for batch, _ in batches[:-1]])
    labels = np.concatenate([batch for _, batch in batches[:-1]])
    raw = Raw("cifar10", images, labels, *batches[-1], mean=MEAN, std=STD)
    return raw.split(seed, train=train, validation=validation, augmentation=augmentation)


def _read(root: Path) -> list[Batch]:
    binary, python = root / "cifar-10-batches-bin", root / "cifar-10-batches-py"
    if not binary.is_dir() and python.is_dir():
        return [read_python_batch(_existing(python / name)) for name in BATCHES]
    return [read_binary_batch(_existing(binary / f"{name}.bin")) for name in BATCHES]


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise missing("cifar10", path)
    return path


def _size(path: Path) -> int:
    """Bytes of a file that is not too large to be a batch."""
    size = path.stat().st_size
    if size > _LARGEST:
        raise DataError(f"{path}: is {size} bytes long; a batch of at most {_LARGEST} is read")
    return size


def read_binary_batch(path: Path) -> Batch:
    """Images (n, 3, 32, 32) and labels (n,) of a file of records, one label byte and 3 072 pixels each."""
    size = _size(path)
    if not size or size % (1 + _PIXELS):
        raise DataError(f"{path}: is {size} bytes long, no multiple of {1 + _PIXELS}; delete it and fetch it again")
    records = np.fromfile(path, np.uint8, size).reshape(-1, 1 + _PIXELS)
    return _checked(path, records[:, 1:], records[:, 0])


def read_python_batch(path: Path) -> Batch:
    """The same of a pickled dict with `data` (n, 3072) and `labels`; nothing in the pickle is executed."""
    _size(path)
    try:
        content = load_plain(path.read_bytes())
    except pickle.UnpicklingError as failure:
        raise DataError(f"{path}: is not a CIFAR-10 batch: {failure}; delete it and fetch it again") from failure
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}, not a dict; delete it and fetch it again")
    pixels = content.get(b"data", content.get("data"))
    labels = content.get(b"labels", content.get("labels"))
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (_PIXELS,):
        raise DataError(f"{path}: its `data` is not a uint8 array (n, {_PIXELS}); delete it and fetch it again")
    if not isinstance(labels, list) or not all(isinstance(n, int) and 0 <= n < 10 for n in labels):
        raise DataError(f"{path}: its `labels` is not a list of integers 0..9; delete it and fetch it again")
    return _checked(path, pixels, np.array(labels, np.uint8))


def _checked(path: Path, pixels: Bytes, labels: Bytes) -> Batch:
    if len(labels) != len(pixels) or not len(labels) or labels.max() >= 10:
        raise DataError(
            f"{path}: {len(pixels)} images, {len(labels)} labels; must be as many, 0..9; delete it and fetch it again"
        )
    return pixels.reshape(-1, 3, 32, 32), labels

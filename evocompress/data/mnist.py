"""MNIST (LeCun et al., 1998) and Fashion-MNIST (Xiao et al., 2017), in the folder layout of torchvision."""

from __future__ import annotations

from pathlib import Path

from evocompress.data.examples import Augmentation, Splits
from evocompress.data.idx import read_idx
from evocompress.data.location import missing
from evocompress.data.splits import Bytes, Raw
from evocompress.errors import DataError

__all__ = ["IDX_FILES", "fashion_mnist", "mnist"]

IDX_FILES = {  # the files and their sizes in bytes, in the order in which `_read` returns them
    "train-images-idx3-ubyte": 47_040_016,
    "train-labels-idx1-ubyte": 60_008,
    "t10k-images-idx3-ubyte": 7_840_016,
    "t10k-labels-idx1-ubyte": 10_008,
}


def mnist(
    root: Path, seed: int, *, train: int | None = None, validation: int = 5000, augmentation: Augmentation = "none"
) -> Splits:
    """Handwritten digits, 28×28 grey: `validation` held out of 60 000 to train, 10 000 for the audit."""
    raw = Raw("mnist", *_read("mnist", root / "MNIST" / "raw"), mean=(0.1307,), std=(0.3081,))
    return raw.split(seed, train=train, validation=validation, augmentation=augmentation)


def fashion_mnist(
    root: Path, seed: int, *, train: int | None = None, validation: int = 5000, augmentation: Augmentation = "none"
) -> Splits:
    """Articles of clothing, 28×28 grey: `validation` held out of 60 000 to train, 10 000 for the audit."""
    raw = Raw("fashion_mnist", *_read("fashion_mnist", root / "FashionMNIST" / "raw"), mean=(0.2860,), std=(0.3530,))
    return raw.split(seed, train=train, validation=validation, augmentation=augmentation)


def _read(name: str, folder: Path) -> tuple[Bytes, Bytes, Bytes, Bytes]:
    images, labels, test_images, test_labels = (read_idx(_path(name, folder, file)) for file in IDX_FILES)
    for array, targets, part in ((images, labels, "train"), (test_images, test_labels, "t10k")):
        if array.ndim != 3 or array.shape[1:] != (28, 28) or targets.shape != array.shape[:1]:
            contents, rule = f"images {array.shape} and labels {targets.shape}", "must be (n, 28, 28) and (n,)"
            path = folder / f"{part}-images-idx3-ubyte"
            raise DataError(f"{path}: holds {contents}; {rule}; delete it and fetch it again")
    return images[:, None], labels, test_images[:, None], test_labels


def _path(name: str, folder: Path, file: str) -> Path:
    for path in (folder / file, folder / f"{file}.gz"):
        if path.is_file():
            return path
    raise missing(name, folder / file)

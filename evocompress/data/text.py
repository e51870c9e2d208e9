"""A text file as bytes, for language models: windows of it, each with the byte that follows at each place."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from evocompress.data.examples import Examples, Splits
from evocompress.errors import DataError

__all__ = ["text"]

_LARGEST = 1 << 30


def text(root: Path, seed: int, *, path: str = "", length: int = 128, held_out: float = 0.05) -> Splits:
    """Bytes (n, length) of a file, to predict the next one at each place; `root` is not used.

    The file is cut into a hundred stretches; of these `held_out` are validation and as many audit, drawn by `seed`, so
    that all parts of a text are in each split and no window crosses from one into another.

    Args:
        root: Not used.
        seed: Of the draw.
        path: The file, from the folder where the command is started.
        length: Bytes of a window.
        held_out: The share of validation, and that of the audit.

    Raises:
        DataError: The file cannot be read, or is too short or too large.
    """
    if not path:
        raise DataError("data set 'text': give the option path, the file to read (data_options.path)")
    if length < 1 or not 0 < held_out < 0.5:
        raise DataError(f"data set 'text': length is {length}, at least 1; held_out is {held_out}, above 0, below 0.5")
    content = _read(path)
    stretches = np.array_split(content, 100)
    count = max(round(100 * held_out), 1)
    order = np.random.default_rng(seed).permutation(100)
    parts = [np.sort(order[:count]), np.sort(order[count : 2 * count]), np.sort(order[2 * count :])]
    validation, audit, train = (_windows([stretches[place] for place in part], length, path) for part in parts)
    return Splits("text", 256, train, validation, audit)


def _read(path: str) -> npt.NDArray[np.uint8]:
    try:
        size = os.path.getsize(path)
        if size > _LARGEST:
            raise DataError(f"data set 'text': {path} has {size} bytes; a text of at most {_LARGEST} is read")
        return np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"data set 'text': {path}: {error.strerror or error}") from error


def _windows(stretches: list[npt.NDArray[np.uint8]], length: int, path: str) -> Examples:
    windows = []
    for stretch in stretches:
        count = (len(stretch) - 1) // length
        if count > 0:
            starts = np.arange(count)[:, None] * length + np.arange(length + 1)
            windows.append(stretch[starts])
    if not windows:
        raise DataError(f"data set 'text': {path} is too short for windows of {length} bytes in a hundred stretches")
    tokens = torch.from_numpy(np.concatenate(windows).astype(np.int32))
    return Examples(tokens[:, :-1].contiguous(), tokens[:, 1:].long().contiguous())

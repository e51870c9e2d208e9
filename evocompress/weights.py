"""Weight files: safetensors in and out, and `.evc`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from evocompress.errors import EvocompressError, FormatError
from evocompress.packing import unpack
from evocompress.replacing import write_bytes

if TYPE_CHECKING:
    import torch

__all__ = ["read_file", "read_weights", "write_weights"]


def read_file(path: str | os.PathLike[str]) -> bytes:
    """A file's bytes.

    Raises:
        EvocompressError: It cannot be read; one line, for a user.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise EvocompressError(f"{path}: {error.strerror or error}") from None


def read_weights(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The state dict in a `.safetensors` or `.evc` file.

    Raises:
        EvocompressError: It cannot be read, or is neither (a pickled checkpoint is not opened: it could run code).
    """
    data = read_file(path)
    if data[:3] == b"EVC":
        return unpack(data)
    import safetensors
    import safetensors.torch

    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        hint = (
            " It looks like a pickled checkpoint; save it with safetensors.torch.save_file."
            if data[:2] in (b"PK", b"\x80\x02")
            else ""
        )
        raise FormatError(f"{path} is neither safetensors nor .evc: {error}.{hint}") from None


def write_weights(state: Mapping[str, torch.Tensor], path: str | os.PathLike[str]) -> None:
    """Write a state dict as safetensors, whole or not at all."""
    import safetensors.torch

    write_bytes(path if isinstance(path, str) else Path(path), safetensors.torch.save(dict(state)))

"""Foreign file formats: what a file is that should have been a checkpoint, in words."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["why_no_checkpoint"]

_RESAVE = "open it with what wrote it, and save its state dict with safetensors.torch.save_file"
_PICKLE = f"is a pickled checkpoint, which could run code when opened; {_RESAVE}"
#: What files of other formats begin with.
_FORMATS = (
    (b"PK\x03\x04", _PICKLE),  # torch.save since 1.6
    (b"\x80\x02", _PICKLE),
    (b"\x80\x04", _PICKLE),
    (b"\x93NUMPY", f"is a NumPy array; {_RESAVE}"),
    (b"\x89HDF", f"is an HDF5 file; {_RESAVE}"),
    (b"GGUF", f"is a GGUF file; {_RESAVE}"),
    (b"\x1f\x8b", "is compressed with gzip; unpack that first"),
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself; fetch that with git lfs pull"),
)
_HEAD = 32
_LENGTH = 8  # bytes of a safetensors file that say how long its header is


def why_no_checkpoint(path: str | os.PathLike[str], error: object) -> str:
    """Why a file cannot be read as safetensors or `.evc`: a sentence without its subject.

    Args:
        path: The file, which does not begin as `.evc` files do.
        error: What the safetensors library says of it, for when nothing better can be said.
    """
    size = Path(path).stat().st_size
    with Path(path).open("rb") as file:
        head = file.read(_HEAD)
        file.seek(_LENGTH)
        header = file.read(min(int.from_bytes(head[:_LENGTH], "little"), size))
    if not size:
        return "is empty"
    description = next((text for magic, text in _FORMATS if head.startswith(magic)), None)
    if description is not None:
        return description
    if header.startswith(b"{"):
        announced = _announced(int.from_bytes(head[:_LENGTH], "little"), header)
        if announced > size:
            return f"is truncated: its safetensors header announces {announced} bytes, the file has {size}"
        if 0 < announced < size:
            return f"is damaged: its safetensors header announces {announced} bytes, the file has {size}"
    return f"is neither safetensors nor .evc: {error}"


def _announced(length: int, header: bytes) -> int:
    """The size of a safetensors file by its header, as much as there is of it; 0 where it cannot be read."""
    if len(header) < length:
        return _LENGTH + length
    try:
        entries: dict[str, Any] = json.loads(header)
        ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
        return _LENGTH + length + max(ends, default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return 0

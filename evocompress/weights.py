"""Weight files: safetensors in and out, and `.evc`."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from evocompress.codecs.container import Contents, file_names, iterate, parse
from evocompress.errors import EvocompressError, FormatError
from evocompress.packing import to_numpy, unpack
from evocompress.safetensors_file import Slot, write_tensors

if TYPE_CHECKING:
    import torch

__all__ = ["read_file", "read_weights", "unpack_file", "write_weights"]


def read_file(path: str | os.PathLike[str]) -> bytes:
    """A file's bytes.

    Raises:
        EvocompressError: It cannot be read; one line, for a user.
    """
    with _opened(path) as file:
        return file.read()


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    try:
        with Path(path).open("rb") as file:
            yield file
    except OSError as error:
        raise EvocompressError(f"{path}: {error.strerror or error}") from None


def read_weights(
    path: str | os.PathLike[str], names: Callable[[Contents], Iterable[str]] | None = None
) -> dict[str, torch.Tensor]:
    """The state dict in a `.safetensors` or `.evc` file.

    Tensors of a safetensors file are mapped: each is read when it is used, and the file should stay as it is as long.

    Args:
        path: The file.
        names: Gives the names for a file that was packed without; else they are "0", "1", … .

    Raises:
        EvocompressError: It cannot be read, or is neither (a pickled checkpoint is not opened: it could run code).
    """
    with _opened(path) as file:
        head = file.read(3)
    if head == b"EVC":
        data = read_file(path)
        if names is None or (contents := parse(data)).lost_names is None:
            return unpack(data)
        return unpack(data, names=names(contents))
    import safetensors

    try:
        with safetensors.safe_open(os.fspath(path), "pt") as stored:
            in_order = getattr(stored, "offset_keys", stored.keys)  # since safetensors 0.5; before, keys are sorted
            return {name: stored.get_tensor(name) for name in in_order()}
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        hint = (
            " It looks like a pickled checkpoint; save it with safetensors.torch.save_file."
            if head[:2] in (b"PK", b"\x80\x02")
            else ""
        )
        raise FormatError(f"{path} is neither safetensors nor .evc: {error}.{hint}") from None


def write_weights(state: Mapping[str, torch.Tensor], path: str | os.PathLike[str]) -> None:
    """Write a state dict as safetensors, whole or not at all, with no copy of all of it in memory.

    Raises:
        CodecError: A tensor that is sparse or of a dtype that `.evc` files do not have.
    """
    slots = []
    for name, tensor in state.items():
        array = to_numpy(name, tensor)
        slots.append(Slot(name, array.dtype.name, array.shape))
    write_tensors(Path(path), slots, ((name, to_numpy(name, tensor)) for name, tensor in state.items()))


def unpack_file(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    names: Callable[[Contents], Iterable[str]] | None = None,
) -> tuple[int, int]:
    """Decode an `.evc` file to safetensors one tensor after the other; returns how many tensors and weights it has.

    In memory are the file and the work on one tensor. Arguments and errors are those of `read_weights`.
    """
    data = read_file(path)
    contents = parse(data)
    given = None if names is None or contents.lost_names is None else list(names(contents))
    called = file_names(contents, given)
    slots = [Slot(name, entry.dtype, entry.shape) for name, entry in zip(called, contents.tensors, strict=True)]
    write_tensors(Path(output), slots, iterate(data, given))
    return len(slots), sum(math.prod(slot.shape) for slot in slots)

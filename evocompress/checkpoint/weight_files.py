"""Weight files: safetensors and `.evc`, read and written; torch.save's, ONNX, GGUF and folders, read; others named."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from evocompress.checkpoint.folders import EVC, note_on_shard, shards
from evocompress.checkpoint.gguf_file import is_gguf, read_gguf
from evocompress.checkpoint.onnx_file import read_onnx, write_onnx
from evocompress.checkpoint.other_files import kind_of_file, part_of_another_kind
from evocompress.checkpoint.packing import to_numpy, to_torch, unpack
from evocompress.checkpoint.safetensors_file import Slot, write_tensors
from evocompress.checkpoint.torch_files import is_torch_file, read_torch
from evocompress.codecs.container import Contents, file_names, iterate, parse
from evocompress.codecs.dtypes import name_of
from evocompress.errors import CodecError, EvocompressError, FormatError
from evocompress.support.wording import kind_of, listed

if TYPE_CHECKING:
    import torch

__all__ = [
    "errors_name",
    "evc_of",
    "read_evc",
    "read_weights",
    "unpack_file",
    "unpack_into",
    "write_weights",
]

_MAGIC, _ONNX = b"EVC", ".onnx"
_HEAD = 32
_LENGTH = 8  # bytes of a safetensors file that say how long its header is


def read_evc(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file that begins as `.evc` files do; a folder stands for the `model.evc` in it.

    Raises:
        EvocompressError: It cannot be read; one line, for a user.
        FormatError: It is another file; says which, if that is known.
    """
    path = evc_of(path)
    with _opened(path) as file:
        data = file.read(len(_MAGIC))
        if data == _MAGIC:
            return data + file.read()
        head = data + file.read(_HEAD)
    try:
        if not is_gguf(head) and not _is_onnx(path, head):  # these take a library, and time
            read_weights(path)
    except FormatError as error:
        raise FormatError(f"Not an .evc file: {error}") from None
    raise FormatError(f"Not an .evc file: {path} is a checkpoint; pack makes an .evc file of it.")


def evc_of(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The `.evc` file that a folder stands for: `model.evc`, or the only one; any other path as it is.

    Raises:
        FormatError: A folder without any, or with several of other names.
    """
    if not isinstance(path, str | os.PathLike) or not os.path.isdir(path):
        return path
    place = Path(path)
    if (place / EVC).is_file():
        return place / EVC
    evc_files = sorted(place.glob("*.evc"))
    if len(evc_files) != 1:
        raise FormatError(f"{place} is a folder, which must hold {EVC}; it has {len(evc_files) or 'no'} .evc files.")
    return evc_files[0]


@contextlib.contextmanager
def errors_name(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say which file a FormatError or CodecError is about."""
    try:
        yield
    except FormatError as error:
        raise FormatError(f"{os.fspath(path)}: {error}") from error
    except CodecError as error:
        raise CodecError(f"{os.fspath(path)}: {error}") from error


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    if not isinstance(path, str | os.PathLike):
        raise EvocompressError(f"path is {kind_of(path)}; it must be that of a file.")
    try:
        with Path(path).open("rb") as file:
            yield file
    except OSError as error:
        raise EvocompressError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:  # a null byte
        raise EvocompressError(f"{os.fspath(path)!r} is no path: {error}") from None


def read_weights(
    path: str | os.PathLike[str],
    names: Callable[[Contents], Collection[str]] | None = None,
    say: Callable[[str], object] | None = None,
    *,
    max_output_bytes: int | None = None,
) -> dict[str, torch.Tensor]:
    """The state dict in a `.safetensors` or `.evc` file, in one of torch.save, ONNX or GGUF, or in a folder.

    Tensors of a safetensors file are mapped: each is read when it is used, and the file should stay as it is as long.
    Of files of torch.save only tensors are read; nothing that they name is run (`torch_files`). A folder, or the index
    in it, stands for all its shards (`folders`). ONNX models, whose names end in `.onnx`, give their initialisers
    (`onnx_file`), GGUF files their tensors, dequantised (`gguf_file`); each needs its library.

    Args:
        path: The file.
        names: Gives the names for a file that was packed without; else they are "0", "1", … . For a bare file it
            gives a mapping, as in `unpack`.
        say: Told what was found where and left out, if there is anything to tell.
        max_output_bytes: As for `unpack`, of an `.evc` file; a small one of these can hold much.

    Raises:
        EvocompressError: It cannot be read, or is none of these.
    """
    if (files := shards(path)) is not None:
        return _joined(path, files, names, say)
    with _opened(path) as file:
        head = file.read(_HEAD)
    if kind := part_of_another_kind(Path(path)):
        raise FormatError(f"{os.fspath(path)} {kind}.")
    if is_gguf(head):
        return _as_tensors(path, read_gguf(path), say)
    if _is_onnx(path, head):
        return _as_tensors(path, read_onnx(path), say)
    if is_torch_file(head):
        state, note = read_torch(path)
        _tell(say, path, note)
        return state
    _tell(say, path, note_on_shard(path))
    head = head[: len(_MAGIC)]
    if head == _MAGIC:
        data = read_evc(path)
        with errors_name(path):
            if names is None:
                return unpack(data, max_output_bytes=max_output_bytes)
            contents = parse(data, max_output_bytes=max_output_bytes)
            lost_names = None if contents.lost_names is None else names(contents)
            return unpack(data, names=lost_names, max_output_bytes=max_output_bytes)
    import safetensors

    try:
        with safetensors.safe_open(os.fspath(path), "pt") as stored:
            in_order = getattr(stored, "offset_keys", stored.keys)  # since safetensors 0.5; before, keys are sorted
            return {name: stored.get_tensor(name) for name in in_order()}
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise FormatError(f"{os.fspath(path)} {_why_no_checkpoint(path, error)}.") from None


def _is_onnx(path: str | os.PathLike[str], head: bytes) -> bool:
    """Whether a file is to be read as an ONNX model, which its content does not tell: by its name, if nothing else."""
    named = Path(path).suffix.lower() == _ONNX
    return named and not head.startswith(_MAGIC) and not is_torch_file(head) and not kind_of_file(Path(path))


def _as_tensors(
    path: str | os.PathLike[str], content: tuple[dict[str, Any], str], say: Callable[[str], object] | None
) -> dict[str, torch.Tensor]:
    arrays, note = content
    _tell(say, path, note)
    return {name: to_torch(array) for name, array in arrays.items()}


def _joined(
    path: str | os.PathLike[str],
    files: list[Path],
    names: Callable[[Contents], Collection[str]] | None,
    say: Callable[[str], object] | None,
) -> dict[str, torch.Tensor]:
    """The tensors of all files, which must not share a name."""
    state: dict[str, torch.Tensor] = {}
    for file in files:
        part = read_weights(file, names)
        if twice := sorted(state.keys() & part.keys()):
            raise FormatError(f"{os.fspath(path)}: tensor {twice[0]!r} is in {file.name} and in a file before it.")
        state |= part
    _tell(say, path, f"{len(state)} tensors in {listed([file.name for file in files])}")
    return state


def _tell(say: Callable[[str], object] | None, path: str | os.PathLike[str], note: str) -> None:
    if say is not None and note:
        say(f"{os.fspath(path)}: {note}")


def write_weights(state: Mapping[str, torch.Tensor], path: str | os.PathLike[str]) -> None:
    """Write a state dict as safetensors, whole or not at all, with no copy of all of it in memory.

    Raises:
        CodecError: A tensor that is sparse or of a dtype that `.evc` files do not have.
    """
    slots = []
    for name, tensor in state.items():
        array = to_numpy(name, tensor)
        slots.append(Slot(name, name_of(array.dtype), array.shape))
    write_tensors(Path(path), slots, ((name, to_numpy(name, tensor)) for name, tensor in state.items()))


def unpack_file(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    names: Callable[[Contents], Collection[str]] | None = None,
    *,
    max_output_bytes: int | None = None,
) -> tuple[int, int]:
    """Decode an `.evc` file to safetensors one tensor after the other; returns how many tensors and weights it has.

    In memory are the file and the work on one tensor.

    Args:
        path: The file.
        output: The file to write, whole or not at all.
        names: Gives the names of its tensors, or refuses them; those of a file that has names are its own. For a bare
            file it gives a mapping, as in `unpack`.
        max_output_bytes: As for `unpack`.

    Raises:
        EvocompressError: It cannot be read, is damaged, no `.evc` file, or beyond `max_output_bytes`.
    """
    data = read_evc(path)
    with errors_name(path):
        contents = parse(data, max_output_bytes=max_output_bytes)
        lost_names = None if names is None else names(contents)
        contents = parse(data, lost_names, max_output_bytes=max_output_bytes) if contents.unread else contents
        all_names = file_names(contents, lost_names)
        slots = [
            Slot(name, entry.dtype, entry.full_shape) for name, entry in zip(all_names, contents.tensors, strict=True)
        ]
        write_tensors(Path(output), slots, iterate(data, lost_names, max_output_bytes=max_output_bytes))
    return len(slots), sum(math.prod(slot.shape) for slot in slots)


def unpack_into(
    path: str | os.PathLike[str],
    model_path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    max_output_bytes: int | None = None,
) -> tuple[int, int]:
    """Decode an `.evc` file into the graph of an ONNX model; returns how many initialisers and weights it has.

    Args:
        path: The file. One that was packed without names or shapes takes the model's.
        model_path: The model, which is left as it is.
        output: The file to write, whole or not at all.
        max_output_bytes: As for `unpack`.

    Raises:
        EvocompressError: Either cannot be read, or they do not fit each other.
    """
    data = read_evc(path)
    arrays, _ = read_onnx(model_path)
    names = {name: (array.shape, name_of(array.dtype)) for name, array in arrays.items()}
    with errors_name(path):
        tensors = write_onnx(model_path, iterate(data, names, max_output_bytes=max_output_bytes), output, path)
    return tensors, sum(array.size for array in arrays.values())


def _why_no_checkpoint(path: str | os.PathLike[str], error: object) -> str:
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
    if kind := kind_of_file(Path(path)):
        return kind
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

"""Companion files of a network's weights: configuration and tokenizer, carried from one folder to another."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from evocompress.support.atomic_files import replacing
from evocompress.support.quantities import format_bytes
from evocompress.support.wording import listed, shortened

__all__ = ["Companions", "companions_of", "write_folder"]

Result = TypeVar("Result")

#: Endings of what is carried along: settings, tokenizers, texts, and a network's own code. Weights have others.
_SUFFIXES = (".json", ".jsonl", ".txt", ".md", ".jinja", ".model", ".tiktoken", ".vocab", ".bpe", ".spm", ".py")
_BARE_NAMES = ("license", "licence", "notice", "readme")
_INDEX = ".index.json"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".evc", ".h5", ".msgpack", ".onnx", ".gguf")
_LARGEST, _LARGEST_OF_ALL = 1 << 26, 1 << 28  # bytes: of one file, of all


class Companions(NamedTuple):
    """Paths of files, relative to their folder, and a sentence about what was left out, or ""."""

    files: tuple[Path, ...]
    note: str


def companions_of(folder: Path) -> Companions:
    """The small files of a folder, and of folders directly in it that hold nothing else, that are no weights.

    Links are followed only where they stay in the folder. Files of more than 64 MiB, and those beyond 256 MiB in sum,
    are left out; so are hidden ones.

    Raises:
        OSError: The folder cannot be read.
    """
    root, files, total = folder.resolve(), list[Path](), 0
    links, others = list[str](), list[str]()
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.lower().endswith((*_WEIGHTS, _INDEX)):
            continue
        parts = sorted(path.iterdir()) if path.is_dir() else [path]
        if not all(part.resolve().is_relative_to(root) for part in parts):
            links.append(path.name)
            continue
        size = sum(part.stat().st_size for part in parts if part.is_file())
        if all(map(_is_companion, parts)) and total + size <= _LARGEST_OF_ALL:
            total += size
            files += [part.relative_to(folder) for part in parts]
        else:
            others.append(path.name)
    return Companions(tuple(files), "; ".join(_notes(links, others)))


def _is_companion(path: Path) -> bool:
    name = path.name.lower()
    suits = name.endswith(_SUFFIXES) or name.partition(".")[0] in _BARE_NAMES
    return (
        path.is_file()
        and suits
        and not name.startswith(".")
        and not name.endswith((_INDEX, *_WEIGHTS))
        and path.stat().st_size <= _LARGEST
    )


def _notes(links: list[str], others: list[str]) -> Iterator[str]:
    if links:
        yield (
            f"left out {listed([*map(shortened, links)])}, which lead out of the folder; a copy of it (cp -RL) has "
            "them as files"
        )
    if others:
        most = format_bytes(_LARGEST)
        yield f"left out {listed([*map(shortened, others)])}: settings, tokenizers and texts of up to {most} go along"


def write_folder(
    output: Path, source: Path | None, name: str, write: Callable[[Path], Result]
) -> tuple[Result, Companions]:
    """Make a folder of a file of weights and what lies beside their source.

    A new folder is there whole or not at all. In one that exists already each file is written whole, that of the
    weights last; other files in it stay as they are.

    Args:
        output: The folder.
        source: The folder whose companions are copied; None for weights alone.
        name: What the file of weights is called in the folder.
        write: Writes it to the path that it is given.

    Returns:
        What `write` has returned, and the companions.

    Raises:
        OSError: A file cannot be read or written.
    """
    companions = Companions((), "") if source is None else companions_of(source)
    exists = output.is_dir()
    output.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".tmp", dir=output.parent))
    try:
        for file in companions.files:
            if source is not None:
                (place / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / file, place / file)
        result = write(place / name)
        if not exists:
            place.chmod(0o755)
            place.rename(output)
            return result, companions
        for file in (*companions.files, Path(name)):
            with replacing(output / file) as temporary:
                shutil.copyfile(place / file, temporary)
        return result, companions
    finally:
        shutil.rmtree(place, ignore_errors=True)

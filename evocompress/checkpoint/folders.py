"""Folders as Hugging Face models come in: a checkpoint in one file or in several shards, with an index of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

from evocompress.checkpoint.other_files import folder_of_another_kind
from evocompress.errors import FormatError
from evocompress.support.wording import listed

__all__ = ["EVC", "SAFETENSORS", "note_on_shard", "shards"]

#: What a folder's compressed weights are called, and its decoded ones.
EVC, SAFETENSORS = "model.evc", "model.safetensors"
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE = ("model.safetensors", "pytorch_model.bin", EVC)


def shards(path: object) -> list[Path] | None:
    """The files that a folder, or an index in it, stands for; None for any other file.

    Raises:
        FormatError: The index is damaged or names a file that is not there; the folder holds no checkpoint, or several.
    """
    if not isinstance(path, str | os.PathLike):
        return None
    place = Path(path)
    try:
        if place.name.endswith(".index.json"):
            return _indexed(place)
        if not place.is_dir():
            return None
        for name in _INDICES:
            if (place / name).is_file():
                return _indexed(place / name)
        for name in _SINGLE:
            if (place / name).is_file():
                return [place / name]
        weight_files = sorted(place.glob("*.safetensors")) or sorted(place.glob("*.evc"))
    except FormatError:
        raise
    except (OSError, ValueError):  # a null byte, say: whoever opens it tells
        return None
    if len(weight_files) == 1:
        return weight_files
    if kind := folder_of_another_kind(place):
        raise FormatError(f"{place} {kind}.")
    held = f"{len(weight_files)} of them and no index" if weight_files else "none"
    raise FormatError(
        f"{place} is a folder, which must hold {SAFETENSORS}, {EVC} or {_INDICES[0]}, or one file of safetensors or "
        f".evc; it has {held}."
    )


def note_on_shard(path: str | os.PathLike[str]) -> str:
    """What is to be said of a file that is one shard of several; nothing of any other."""
    place = Path(path)
    for name in _INDICES:
        try:
            parts = _indexed(place.parent / name) if (place.parent / name).is_file() else []
        except (FormatError, OSError):
            parts = []
        if len(parts) > 1 and place.name in {part.name for part in parts}:
            return f"is one of {len(parts)} shards, so this is a part of the network; give the folder for all of it"
    return ""


def _indexed(index: Path) -> list[Path]:
    """The shards that an index names, in its order, which lie beside it."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        names = dict.fromkeys(content["weight_map"].values())
    except OSError as error:
        raise FormatError(f"{index}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FormatError(f"{index} is no index of shards: it must have a table weight_map of file names.") from None
    files = []
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise FormatError(f"{index} names the shard {name!r}, which is no file beside it.")
        files.append(index.parent / name)
    if absent := [file.name for file in files if not file.is_file()]:
        verb = "is" if len(absent) == 1 else "are"
        raise FormatError(
            f"{index} names {len(files)} shards, of which {listed(absent, 3)} {verb} not there; a download may have "
            "stopped early."
        )
    return files

"""Recognition of files that are no checkpoints, or some of another kind, by name and first bytes: a sentence each."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from evocompress.support.wording import listed

__all__ = ["folder_of_another_kind", "kind_of_archive", "kind_of_file", "part_of_another_kind"]

_RESAVE = "open it with what wrote it, and save its state dict with safetensors.torch.save_file"
_PICKLE = f"is a pickle, which could run code when opened; {_RESAVE}"
_TENSORFLOW = "load it with TensorFlow, and save {name: array} of its variables with safetensors.numpy.save_file"
_HDF5 = f"is an HDF5 file, such as Keras and TensorFlow write; {_TENSORFLOW}"
_KERAS = f"is a Keras model; {_TENSORFLOW}"
_FLAX = (
    "is MessagePack, as Flax writes its weights; read it with flax.serialization.msgpack_restore, and save the arrays "
    "by name with safetensors.numpy.save_file"
)
_DISTRIBUTED = (
    "torch.distributed.checkpoint.format_utils.dcp_to_torch_save(FOLDER, 'weights.pt') makes one file of the folder, "
    "by code that opens its pickles: only where you trust it"
)
_PART = f"is a part of a checkpoint of torch.distributed.checkpoint; {_DISTRIBUTED}"
_CTRANSLATE2 = (
    "is a model of CTranslate2, whose package computes with it and gives no weights back; pack the checkpoint that it "
    "was converted from"
)
_GGML = "is a GGML file, older than GGUF; pack the checkpoint that it was converted from, or a GGUF file of it"
_OF_TENSORFLOW = f"is a part of a TensorFlow checkpoint; {_TENSORFLOW}"

#: What files of other formats begin with.
_MAGICS = (
    *((b"\x80" + bytes([protocol]), _PICKLE) for protocol in (3, 4, 5)),
    (b"\x93NUMPY", f"is a NumPy array; {_RESAVE}"),
    (b"\x89HDF", _HDF5),
    (b"\x1f\x8b", "is compressed with gzip; unpack that first"),
    (b"BZh", "is compressed with bzip2; unpack that first"),
    (b"\xfd7zXZ", "is compressed with xz; unpack that first"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd; unpack that first"),
    (b"7z\xbc\xaf", "is a 7z archive; unpack that first"),
    *((magic, _GGML) for magic in (b"lmgg", b"fmgg", b"tjgg")),
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself; fetch that with git lfs pull"),
)
#: What names of other formats look like.
_NAMES = (
    (r"\.data-\d{5}-of-\d{5}$|\.meta$", _OF_TENSORFLOW),
    (r"\.pb$", f"is a graph of TensorFlow; {_TENSORFLOW}"),
    (r"\.tflite$", f"is a TensorFlow Lite model; {_TENSORFLOW}"),
    (r"\.msgpack$", _FLAX),
)
_HEAD = 1 << 12
_MOST_JSON = 1 << 26  # bytes of a JSON file that are read to tell what it is
_TABLE_END = bytes.fromhex("57fb808b247547db")  # of the tables in which TensorFlow keeps a checkpoint's index
_TAR = 257  # where a tar archive says that it is one
_TFLITE = slice(4, 8)
#: The version of the format, and the length and name of the network's specification.
_OF_CTRANSLATE2 = re.compile(rb"[\x01-\x1f]\0\0\0.\0[A-Za-z0-9]+Spec\0", re.DOTALL)


def part_of_another_kind(path: Path) -> str:
    """What a file is whose content looks like torch.save's, but is a part of something; "" for any other file."""
    return _PART if path.suffix == ".distcp" or path.name == ".metadata" else ""


def kind_of_archive(members: list[str]) -> str:
    """What a zip archive is, by the names in it, that torch.save has not written: a sentence without its subject."""
    names = {member.rpartition("/")[2] for member in members}
    if "model.weights.h5" in names:
        return _KERAS
    if members and all(name.endswith(".npy") for name in names):
        return f"is a NumPy archive (.npz); {_RESAVE}"
    return f"is a zip archive of something else ({listed(members, 3)}); unpack that first"


def kind_of_file(path: Path) -> str:
    """What a file is that cannot be read as a checkpoint: a sentence without its subject; "" where that is not known.

    Raises:
        OSError: It cannot be read.
    """
    size = path.stat().st_size
    if not size:
        return "is empty"
    with path.open("rb") as file:
        head = file.read(_HEAD)
        file.seek(max(0, size - len(_TABLE_END)))
        tail = file.read()
    for magic, sentence in _MAGICS:
        if head.startswith(magic):
            return sentence
    if sentence := _markup(head):
        return sentence
    if head[_TAR : _TAR + 5] == b"ustar":
        return "is a tar archive; unpack that first"
    if head[_TFLITE] == b"TFL3":
        return f"is a TensorFlow Lite model; {_TENSORFLOW}"
    if _OF_CTRANSLATE2.match(head):
        return _CTRANSLATE2
    if tail == _TABLE_END:
        return _OF_TENSORFLOW
    if head.lstrip()[:1] in (b"{", b"["):
        return _json(path, size)
    for pattern, sentence in _NAMES:
        if re.search(pattern, path.name):
            return sentence
    return _FLAX if _is_map(head) else ""


def _markup(head: bytes) -> str:
    """What a page of the web is, which a download gives in the place of the file."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return (
            "is an HTML page, not the file itself: its address is that of a page, or the download needs a login or a "
            "licence to be accepted; fetch the file again"
        )
    if text.startswith(b"<?xml") or text.startswith(b"<error"):
        return "is an XML document, such as a server's message of an error; fetch the file again"
    return ""


def _json(path: Path, size: int) -> str:
    """What a JSON file is, of those that lie beside weights."""
    content: Any = None
    if size <= _MOST_JSON:
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return ""
    keys = set(content) if isinstance(content, dict) else set()
    what = "a JSON file"
    if "weight_map" in keys:
        return "is an index of shards under another name; name it model.safetensors.index.json, beside its shards"
    if "model" in keys and keys & {"added_tokens", "pre_tokenizer", "normalizer"}:
        what = "a tokenizer (tokenizer.json)"
    elif "tokenizer_class" in keys or "added_tokens_decoder" in keys:
        what = "a tokenizer's configuration"
    elif keys & {"model_type", "architectures", "hidden_size"}:
        what = "a network's configuration (config.json)"
    elif keys & {"error", "message"} and len(keys) < 5:
        return "is a server's message of an error in JSON, not the file itself; fetch the file again"
    return f"is {what}, not its weights; give the folder that it is in, or the file of the weights"


def _is_map(head: bytes) -> bool:
    """Whether it begins as a MessagePack map does whose first key is a short text."""
    if len(head) < 4:
        return False
    if 0x81 <= head[0] <= 0x8F:
        key = head[1:]
    elif head[0] == 0xDE:
        key = head[3:]
    else:
        return False
    length = key[0] - 0xA0
    return 0 < length <= 31 and key[1 : 1 + length].isascii() and key[1 : 1 + length].decode("ascii").isprintable()


def folder_of_another_kind(folder: Path) -> str:
    """What a folder is that holds no checkpoint of ours: a sentence without its subject; "" where that is not known."""
    names = {path.name for path in folder.iterdir()}
    if ".metadata" in names or any(name.endswith(".distcp") for name in names):
        return f"is a checkpoint of torch.distributed.checkpoint; {_DISTRIBUTED}"
    if "zero_to_fp32.py" in names or any(re.match(r"(zero_pp|mp)_rank_\d+", name) for name in names):
        return "is a checkpoint of DeepSpeed; its script zero_to_fp32.py makes one file of it"
    if "saved_model.pb" in names:
        return f"is a SavedModel of TensorFlow; {_TENSORFLOW}"
    if any(name.endswith(".index") for name in names) or "tf_model.h5" in names:
        return f"holds a checkpoint of TensorFlow; {_TENSORFLOW}"
    if flax := sorted(name for name in names if name.endswith(".msgpack")):
        return f"holds {flax[0]}, which {_FLAX}"
    for suffix, what in ((".gguf", "a GGUF file"), (".onnx", "an ONNX model")):
        if files := sorted(name for name in names if name.endswith(suffix)):
            return f"holds {what}, {files[0]}; give the file itself"
    return ""

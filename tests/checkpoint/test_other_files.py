"""Files and folders that are no checkpoints, or some of another kind: one line says what they are."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import evocompress
from evocompress.checkpoint.weight_files import read_evc, read_weights
from evocompress.errors import CodecError, FormatError, ModelError


def short_text(text: str) -> bytes:
    """A text of up to 31 bytes in MessagePack."""
    return bytes([0xA0 + len(text)]) + text.encode()


TOKENIZER = json.dumps({"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}}}).encode()
CONFIGURATION = json.dumps({"architectures": ["BertModel"], "model_type": "bert"}, indent=2).encode()
#: A file's name, its content, and what is said of it.
FILES = {
    "page": ("w.safetensors", b"\n<!doctype HTML>\n<html><body>Log in", "is an HTML page, not the file itself.*login"),
    "page for torch": ("pytorch_model.bin", b"<html>\n<head>", "is an HTML page"),
    "page for onnx": ("m.onnx", b"<html>\n<head>", "is an HTML page"),
    "page for msgpack": ("m.msgpack", b"<html>\n<head>", "is an HTML page"),
    "error of a store": ("w.safetensors", b"<?xml version='1.0'?><Error><Code>AccessDenied", "is an XML document"),
    "error in JSON": ("w.safetensors", b'{"error": "Invalid credentials"}', "is a server's message of an error"),
    "tokenizer": ("tokenizer.json", TOKENIZER, r"is a tokenizer \(tokenizer.json\), not its weights; give the folder"),
    "its settings": ("tokenizer_config.json", b'{"tokenizer_class": "X"}', "is a tokenizer's configuration"),
    "configuration": ("config.json", CONFIGURATION, r"is a network's configuration \(config.json\)"),
    "list": ("vocabulary.json", b"[1, 2]", "is a JSON file, not its weights"),
    "index": ("index.json.txt", b'{"weight_map": {}}', "is an index of shards under another name"),
    "hdf5": ("model.h5", b"\x89HDF\r\n\x1a\n", "is an HDF5 file, such as Keras and TensorFlow write"),
    "graph": ("frozen.pb", b"\x0a\x10\x0a\x05input", "is a graph of TensorFlow"),
    "saved model": ("saved_model.pb", b"\x08\x01\x12\x10", "is a graph of TensorFlow"),
    "index of TensorFlow": (
        "model.ckpt.index", bytes(40) + bytes.fromhex("57fb808b247547db"), "is a part of a TensorFlow checkpoint",
    ),
    "data of TensorFlow": ("model.ckpt.data-00000-of-00001", bytes(64), "is a part of a TensorFlow checkpoint"),
    "ctranslate2": (
        "model.bin",
        b"\6\0\0\0\x10\0TransformerSpec\0" + bytes(5000),
        "is a model of CTranslate2, whose package computes with it and gives no weights back; pack the checkpoint",
    ),
    "ggml": ("ggml-tiny.bin", b"lmgg" + bytes(64), "is a GGML file, older than GGUF"),
    "lite": ("m.tflite", b"\x1c\0\0\0TFL3" + bytes(24), "is a TensorFlow Lite model"),
    "flax": ("flax_model.msgpack", b"\x82" + short_text("params") + b"\x80", "is MessagePack, as Flax writes"),
    "flax without an ending": ("weights", b"\xde\x00\x20" + short_text("encoder") + b"\x80", "is MessagePack"),
    "pickle": ("w.pkl", pickle.dumps({"a": 1}, protocol=3), "is a pickle, which could run code"),
    "newer pickle": ("w.pkl", pickle.dumps({"a": 1}, protocol=5), "is a pickle, which could run code"),
    "xz": ("w.xz", b"\xfd7zXZ\0", "is compressed with xz; unpack that first"),
    "zstd": ("w.zst", b"\x28\xb5\x2f\xfd\0\0", "is compressed with zstd"),
    "bzip2": ("w.bz2", b"BZh91AY", "is compressed with bzip2"),
    "gzip": ("w.gz", b"\x1f\x8b\x08\0", "is compressed with gzip"),
    "7z": ("w.7z", b"7z\xbc\xaf\x27\x1c", "is a 7z archive"),
    "pointer": ("w.bin", b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer"),
    "part of distributed": ("__0_0.distcp", b"PK\x03\x04", "is a part of a checkpoint of torch.distributed.checkpoint"),
    "metadata of distributed": (".metadata", b"\x80\x02", "is a part of a checkpoint of torch.distributed.checkpoint"),
    "nothing": ("w.safetensors", b"", "is empty"),
    "noise": ("w.safetensors", bytes(range(3, 100)), "is neither safetensors nor .evc"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_a_file_is_named(tmp_path: Path, kind: str) -> None:
    name, content, message = FILES[kind]
    (tmp_path / name).write_bytes(content)
    for read in (read_weights, read_evc):
        with pytest.raises(FormatError, match=message) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value) and name in str(caught.value)


def test_archives_are_named(tmp_path: Path) -> None:
    path = tmp_path / "w.zip"
    for members, message in (
        (["config.json", "metadata.json", "model.weights.h5"], "is a Keras model"),
        (["w.npy", "b.npy"], r"is a NumPy archive \(.npz\)"),
        (["a.txt", "b.txt"], r"is a zip archive of something else \(a.txt, b.txt\); unpack that first"),
        ([], "is a zip archive of something else"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("placeholder", "") if not members else None
            for member in members:
                archive.writestr(member, "x")
        with pytest.raises(FormatError, match=message):
            read_weights(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, that TorchScript is old
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)
    with pytest.raises(FormatError, match="is a TorchScript archive, which is code"):
        read_weights(path)
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("w"))
    with pytest.raises(FormatError, match="is a tar archive; unpack that first"):
        read_weights(path)


def test_a_truncated_file_is_not_taken_for_another(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    for length in (0x7B, 0x5B, 0x20, 0x81A1):  # what JSON and MessagePack begin with
        header = b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'.ljust(length)
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
        with pytest.raises(FormatError, match="is truncated: its safetensors header announces"):
            read_weights(path)
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
        assert read_weights(path)["w"].tolist() == [0] * 4


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("__0_0.distcp", ".metadata"), "is a checkpoint of torch.distributed.checkpoint; .*dcp_to_torch_save"),
        (("mp_rank_00_model_states.pt", "latest"), "is a checkpoint of DeepSpeed; its script zero_to_fp32.py"),
        (("saved_model.pb", "fingerprint.pb"), "is a SavedModel of TensorFlow"),
        (("model.ckpt.index", "checkpoint"), "holds a checkpoint of TensorFlow"),
        (("config.json", "tf_model.h5"), "holds a checkpoint of TensorFlow"),
        (("config.json", "flax_model.msgpack"), "holds flax_model.msgpack, which is MessagePack"),
        (("config.json", "model-q4.gguf"), "holds a GGUF file, model-q4.gguf; give the file itself"),
        (("model.onnx",), "holds an ONNX model, model.onnx; give the file itself"),
        (("config.json",), "it has none"),
    ],
)
def test_a_folder_is_named(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(FormatError, match=message) as caught:
        read_weights(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_shards_are_counted(tmp_path: Path) -> None:
    table = {f"t{number}": f"model-{number}.safetensors" for number in range(6)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    safetensors.torch.save_file({"t0": torch.zeros(2)}, tmp_path / "model-0.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors.index.json"):
        with pytest.raises(FormatError, match="names 6 shards, of which model-1.* and 2 more are not there"):
            read_weights(path)


@pytest.fixture
def processes() -> Iterator[Callable[[int], Any]]:
    """A function that gives the mesh of so many processes, none of which is there but this one."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    def mesh(count: int) -> Any:
        torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=count)
        return init_device_mesh("cpu", (count,))

    yield mesh
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("count", [1, 2])
def test_parts_of_tensors_are_refused_and_whole_ones_taken(
    processes: Callable[[int], Any], count: int, tmp_path: Path
) -> None:
    from torch.distributed.tensor import DTensor, Shard

    part = torch.arange(6.0).reshape(2, 3)
    tensor = DTensor.from_local(part, processes(count), [Shard(0)], run_check=False)
    if count > 1:
        with pytest.raises(CodecError, match="Tensor 'w' is a DTensor, of which this process has a part; gather"):
            evocompress.pack({"w": tensor})
    else:
        assert np.allclose(evocompress.unpack(evocompress.pack({"w": tensor}, 1e-9), "numpy")["w"], part, atol=1e-2)
    torch.save({"w": tensor}, tmp_path / "w.pt")
    with pytest.raises(FormatError, match="holds DTensors, one process's parts of tensors; gather the state dict"):
        read_weights(tmp_path / "w.pt")
    if count > 1:  # torch says another thing where nobody has imported DTensor
        code = "import sys; from evocompress.checkpoint.weight_files import read_weights; read_weights(sys.argv[1])"
        words = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "w.pt")]
        assert "w.pt holds DTensors" in subprocess.run(words, capture_output=True, text=True, timeout=100).stderr


def test_a_wrapped_network_says_what_to_take_away(tmp_path: Path) -> None:
    wrapped = nn.DataParallel(nn.Linear(3, 2))
    (tmp_path / "w.evc").write_bytes(evocompress.pack(wrapped.state_dict()))
    with pytest.raises(ModelError, match="strip_prefix='module.'"):
        evocompress.load(tmp_path / "w.evc", nn.Linear(3, 2))
    evocompress.load(tmp_path / "w.evc", nn.Linear(3, 2), strip_prefix="module.")
    (tmp_path / "w.evc").write_bytes(evocompress.pack(wrapped.module.state_dict()))
    with pytest.raises(ModelError, match="use the module inside, model.module"):
        evocompress.load(tmp_path / "w.evc", wrapped)

"""GGUF files: floats as they are, quantised tensors as the library gguf dequantises them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import evocompress
from evocompress.checkpoint.packing import to_numpy
from evocompress.checkpoint.weight_files import read_weights
from evocompress.cli import app
from evocompress.errors import EvocompressError, FormatError

gguf: Any = pytest.importorskip("gguf", reason="needs gguf (of the gguf extra)")

KINDS = gguf.GGMLQuantizationType


def values() -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32)


def saved(path: Path, *quantised: str, plain: bool = True, **options: Any) -> Path:
    writer = gguf.GGUFWriter(path, "llama", **options)
    writer.add_name("tiny")
    if plain:
        writer.add_tensor("full", values())
        writer.add_tensor("half", values().astype(np.float16))
        writer.add_tensor("brain", values().astype(ml_dtypes.bfloat16).view(np.uint8), raw_dtype=KINDS.BF16)
        writer.add_tensor("ids", np.arange(-3, 3, dtype=np.int32))
    for name in quantised:
        kind = KINDS[name]
        writer.add_tensor(name, gguf.quants.quantize(values(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_floats_and_integers_are_as_they_are(tmp_path: Path) -> None:
    said = list[str]()
    state = read_weights(saved(tmp_path / "m.gguf"), say=said.append)
    assert not said
    assert torch.equal(state["full"], torch.from_numpy(values()))
    assert torch.equal(state["half"], torch.from_numpy(values()).half())
    assert torch.equal(state["brain"], torch.from_numpy(values()).bfloat16())
    assert state["ids"].tolist() == [-3, -2, -1, 0, 1, 2] and state["ids"].dtype == torch.int32
    before = (tmp_path / "m.gguf").read_bytes()
    state["full"].zero_()  # the file is mapped, and stays as it is
    assert (tmp_path / "m.gguf").read_bytes() == before


def test_quantised_tensors_are_dequantised_and_said(tmp_path: Path) -> None:
    path, said = saved(tmp_path / "m.gguf", "Q4_0", "Q8_0"), list[str]()
    state = read_weights(path, say=said.append)
    for name, bound in (("Q4_0", 0.5), ("Q8_0", 0.02)):
        expected = gguf.quants.dequantize(gguf.quants.quantize(values(), KINDS[name]), KINDS[name])
        assert np.array_equal(to_numpy(name, state[name]), expected) and state[name].dtype == torch.float32
        assert 0 < np.abs(expected - values()).max() < bound
    assert said == [
        f"{path}: 2 tensors had been quantised (Q4_0, Q8_0), and went in as float32 with the errors of that; give the "
        "original where you have it"
    ]


def test_pack_takes_them(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.gguf", "Q8_0")
    result = CliRunner().invoke(
        app, ["pack", str(path), "-o", str(tmp_path / "m.evc"), "--rate-weight", "1e-9"], catch_exceptions=False
    )
    assert "1 tensor had been quantised (Q8_0)" in result.output
    back = evocompress.unpack((tmp_path / "m.evc").read_bytes(), "numpy")
    assert np.abs(back["full"] - values()).max() < 1e-2 and back["brain"].dtype == ml_dtypes.bfloat16


def test_what_cannot_be_read_gets_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "m.gguf", "Q8_0")
    whole = path.read_bytes()
    for length in (6, 30, 200, len(whole) - 300):
        path.write_bytes(whole[:length])
        with pytest.raises(FormatError, match="m.gguf is damaged, or no GGUF file that the library gguf reads"):
            read_weights(path)
    with pytest.raises(FormatError, match="without tensors"):
        read_weights(saved(tmp_path / "vocabulary.gguf", plain=False))
    swapped = saved(tmp_path / "swapped.gguf", endianess=gguf.GGUFEndian.BIG)
    with pytest.raises(FormatError, match="of the other byte order"):
        read_weights(swapped)

    def unknown(*_: Any) -> Any:
        raise NotImplementedError

    path.write_bytes(whole)
    monkeypatch.setattr(gguf.quants, "dequantize", unknown)
    with pytest.raises(FormatError, match="tensor 'Q8_0' is quantised as Q8_0, which the library gguf cannot undo"):
        read_weights(path)


def test_without_the_library_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "m.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(EvocompressError, match=r"which is not installed: pip install 'evocompress\[gguf\]'"):
        read_weights(path)

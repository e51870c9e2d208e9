"""Every dtype that a file can hold: its bits survive, NaNs too, under every coder, through torch and through numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
import safetensors.torch
import torch
from oracle_file import read_symbols

import evocompress
from evocompress import Recipe, Rule
from evocompress.checkpoint.packing import to_numpy, to_torch
from evocompress.checkpoint.weight_files import read_weights, unpack_file, write_weights
from evocompress.codecs.coders import CODERS
from evocompress.codecs.container import parse
from evocompress.codecs.dtypes import DTYPES, FOREIGN, dtype_named, is_float, name_of
from evocompress.errors import CodecError, FormatError

NEW = DTYPES[13:]
COUNT = 512  # so that all patterns of a byte are there, and tensors are large enough to be tied


def all_bits(name: str, shape: tuple[int, ...] = (2, COUNT // 2)) -> npt.NDArray[Any]:
    """All patterns of a byte, NaNs and infinities of every kind among them, in an array of this dtype."""
    dtype = dtype_named(name)
    raw = np.random.default_rng(0).permutation(np.arange(COUNT * dtype.itemsize) % 256).astype(np.uint8)
    return raw.view(dtype).reshape(shape)


def bits(value: Any) -> bytes:
    array = value if isinstance(value, np.ndarray) else to_numpy("x", value)
    return array.tobytes()


def test_names_and_numbers_are_for_ever() -> None:
    assert all(name_of(dtype_named(name)) == name for name in DTYPES)
    assert DTYPES[13:22] == (
        "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2",
        "complex64", "complex128", "complex32",
    )  # fmt: skip
    assert DTYPES[22:] == tuple(f"{sign}int{width}" for sign in ("u", "") for width in range(1, 8))
    assert not any(map(is_float, NEW))


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize("coder", CODERS)
def test_bits_survive(name: str, coder: Any) -> None:
    array = all_bits(name)
    state = {"a": array, "tied": array.copy(), "none": array[:, :0], "scalar": array[0, 0].reshape(()), "row": array[1]}
    data = evocompress.pack(state, Recipe(1e-3, coder=coder))
    back = evocompress.unpack(data, "numpy")
    assert {key: (name_of(x.dtype), x.shape, bits(x)) for key, x in back.items()} == {
        key: (name, x.shape, bits(x)) for key, x in state.items()
    }
    assert parse(data).tensors[1].source == 0


@pytest.mark.parametrize("name", NEW)
def test_a_second_reader_finds_the_same_bytes(name: str) -> None:
    array = all_bits(name)
    data = evocompress.pack({"a": array}, Recipe(1e-3))
    (tensor,) = read_symbols(data)
    assert (tensor.dtype, tensor.shape) == (name, [2, COUNT // 2])
    assert np.array(tensor.planes[0], np.uint8).T.tobytes() == array.tobytes()


@pytest.mark.filterwarnings("ignore:ComplexHalf")  # torch's own, once for each process
@pytest.mark.parametrize("name", [name for name in NEW if hasattr(torch, name)])
def test_torch_has_them(name: str) -> None:
    tensor = to_torch(all_bits(name))
    assert str(tensor.dtype) == f"torch.{name}" and tensor.shape == (2, COUNT // 2)
    back = evocompress.unpack(evocompress.pack({"a": tensor, "b": tensor.t()}))
    assert back["a"].dtype == tensor.dtype and bits(back["a"]) == bits(tensor)
    for shape in ((), (0, 3)):
        part = to_torch(all_bits(name).reshape(-1)[: 0 if shape else 1].reshape(shape))
        again = evocompress.unpack(evocompress.pack({"a": part}))["a"]
        assert (again.dtype, again.shape, bits(again)) == (part.dtype, part.shape, bits(part))
    assert bits(back["b"]) == to_numpy("x", tensor).T.tobytes()
    bare = evocompress.pack({"a": tensor}, Recipe(1e-3, names=False, shapes=False))
    assert bits(evocompress.unpack(bare, names={"a": tensor})["a"]) == bits(tensor)
    assert bits(evocompress.unpack(bare, names={"a": all_bits(name)})["a"]) == bits(tensor)


def test_a_conjugate_is_what_it_shows() -> None:
    tensor = torch.tensor([1 + 2j, 3 - 1j]).conj()
    assert tensor.is_conj()
    assert torch.equal(evocompress.unpack(evocompress.pack({"a": tensor}))["a"], tensor)


_IN_SAFETENSORS = [name for name in NEW if name.startswith("float") or name == "complex64"]


@pytest.mark.parametrize("name", _IN_SAFETENSORS)
def test_safetensors_there_and_back(name: str, tmp_path: Path) -> None:
    state = {"a": to_torch(all_bits(name)), "b": torch.ones(3)}
    safetensors.torch.save_file(state, tmp_path / "theirs.safetensors")
    assert bits(read_weights(tmp_path / "theirs.safetensors")["a"]) == bits(state["a"])
    write_weights(state, tmp_path / "ours.safetensors")
    (tmp_path / "w.evc").write_bytes(evocompress.pack(state))
    unpack_file(tmp_path / "w.evc", tmp_path / "unpacked.safetensors")
    for file in ("ours", "unpacked"):
        back = safetensors.torch.load_file(tmp_path / f"{file}.safetensors")["a"]
        assert (back.dtype, back.shape, bits(back)) == (state["a"].dtype, state["a"].shape, bits(state["a"]))


@pytest.mark.parametrize("name", [name for name in NEW if name not in _IN_SAFETENSORS])
def test_what_safetensors_lacks_is_said(name: str, tmp_path: Path) -> None:
    (tmp_path / "w.evc").write_bytes(evocompress.pack({"a": all_bits(name)}))
    with pytest.raises(CodecError, match=f"Tensor 'a' has dtype {name}, which safetensors files do not have"):
        unpack_file(tmp_path / "w.evc", tmp_path / "w.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["w.evc"]


def test_two_floats_in_one_byte_need_a_dimension_in_safetensors(tmp_path: Path) -> None:
    with pytest.raises(CodecError, match="'a' of float4_e2m1fn_x2 has no dimension"):
        write_weights({"a": to_torch(all_bits("float4_e2m1fn_x2")[0, 0].reshape(()))}, tmp_path / "w.safetensors")


def test_numpy_users_have_the_types_of_ml_dtypes() -> None:
    state = {"a": np.array([1.5, -2, np.nan], ml_dtypes.float8_e4m3fn), "b": np.array([-8, 7], ml_dtypes.int4)}
    back = evocompress.unpack(evocompress.pack(state), "numpy")
    assert back["a"].dtype == ml_dtypes.float8_e4m3fn and bits(back["a"]) == bits(state["a"])
    assert name_of(back["b"].dtype) == "int4" and bits(back["b"]) == bits(state["b"])


def test_wide_unsigned_integers_survive() -> None:
    for name in ("uint16", "uint32", "uint64"):
        array = np.array([0, 1, np.iinfo(name).max], name)
        for value in (array, torch.from_numpy(array)):
            back = evocompress.unpack(evocompress.pack({"a": value}))["a"]
            assert str(back.dtype) == f"torch.{name}" and bits(back) == array.tobytes()


def test_a_rule_cannot_make_them_lossy() -> None:
    array = all_bits("float8_e5m2")
    data = evocompress.pack({"a": array, "w": np.ones((4, 4))}, Recipe(1e-3, (Rule(codecs=("deadzone",)),)))
    assert bits(evocompress.unpack(data, "numpy")["a"]) == bits(array)


def test_a_dtype_of_a_newer_version_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    data = evocompress.pack({"a": all_bits("int7")})
    monkeypatch.setattr("evocompress.codecs.tensor_table.DTYPES", DTYPES[:13])
    with pytest.raises(FormatError, match="dtype number 35, which this version does not know: it was"):
        evocompress.unpack(data)


def test_a_dtype_that_this_torch_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    data = evocompress.pack({"a": all_bits("uint3")})
    monkeypatch.delattr(torch, "uint3")
    with pytest.raises(CodecError, match="has no dtype uint3; a newer one has, and framework='numpy' reads it"):
        evocompress.unpack(data)
    assert bits(evocompress.unpack(data, "numpy")["a"]) == bits(all_bits("uint3"))


def test_foreign_are_those_that_numpy_lacks() -> None:
    assert all((name in FOREIGN) == (getattr(np, name.replace("bool", "bool_"), None) is None) for name in DTYPES)

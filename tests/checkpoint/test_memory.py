"""Large checkpoints: tensor by tensor, in parts, and without copies of everything."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch

from evocompress import Recipe, Rule, pack, unpack
from evocompress.checkpoint.presets import preset
from evocompress.checkpoint.safetensors_file import Slot, write_tensors
from evocompress.checkpoint.weight_files import read_weights, unpack_file, write_weights
from evocompress.codecs import CODECS, Cost, Sensitivity, choose, parse_codec, partial_decoding, rans
from evocompress.codecs.codec import SideReader
from evocompress.codecs.dtypes import to_dtype
from evocompress.codecs.feedback import inverse_factor, quantise_rows
from evocompress.codecs.partial_decoding import decode_in_parts
from evocompress.codecs.viterbi import trellis_quantise
from evocompress.errors import CodecError, EvocompressError, FormatError


def laplace(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).laplace(0, 0.02, shape).astype(np.float32)


def mixed() -> dict[str, torch.Tensor]:
    return {
        "mask": torch.tensor([True, False, True]),
        "w": torch.from_numpy(laplace(40, 30)),
        "half": torch.from_numpy(laplace(3, 5)).half(),
        "brain": torch.from_numpy(laplace(4, 7)).bfloat16().t(),
        "steps": torch.tensor(7),
        "none": torch.zeros(0, 3),
        "tied": torch.from_numpy(laplace(40, 30)),
        "ä": torch.from_numpy(laplace(5)).double(),
    }


def peak(work: Callable[[], object]) -> int:
    """Bytes that numpy and Python held at most, above what they held before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def test_many_tensors_take_no_more_than_the_work_on_one() -> None:
    state = {f"layers.{i}.weight": laplace(500, 400, seed=i) for i in range(20)}
    pack(state, preset("fast", 1e-5))  # compiles
    assert peak(lambda: pack(state, preset("fast", 1e-5))) < 1.5 * sum(x.nbytes for x in state.values())


def test_unpacking_to_a_file_is_streamed(tmp_path: Path) -> None:
    state = {f"layers.{i}.weight": laplace(500, 400, seed=i) for i in range(20)}
    (tmp_path / "w.evc").write_bytes(pack(state, preset("fast", 1e-5)))
    nbytes = sum(x.nbytes for x in state.values())
    assert peak(lambda: unpack_file(tmp_path / "w.evc", tmp_path / "w.safetensors")) < 0.8 * nbytes
    assert list(read_weights(tmp_path / "w.safetensors")) == list(state)


def test_a_file_is_unpacked_as_its_tensors_are(tmp_path: Path) -> None:
    data = pack(mixed(), 1e-6)
    (tmp_path / "w.evc").write_bytes(data)
    assert unpack_file(tmp_path / "w.evc", tmp_path / "w.safetensors") == (8, 2452)
    expected, found = unpack(data), safetensors.torch.load_file(tmp_path / "w.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


def test_a_file_without_names_is_unpacked_under_those_given(tmp_path: Path) -> None:
    state = {"b": laplace(20, 30), "a": laplace(10)}
    (tmp_path / "w.evc").write_bytes(pack(state, Recipe(1e-6, names=False)))
    unpack_file(tmp_path / "w.evc", tmp_path / "w.safetensors", lambda contents: ["a", "b"])
    assert {k: tuple(v.shape) for k, v in read_weights(tmp_path / "w.safetensors").items()} == {
        "a": (10,),
        "b": (20, 30),
    }


def test_a_damaged_file_leaves_nothing_behind(tmp_path: Path) -> None:
    data = bytearray(pack(mixed(), 1e-6))
    data[-20] ^= 1
    (tmp_path / "w.evc").write_bytes(data)
    with pytest.raises(FormatError):
        unpack_file(tmp_path / "w.evc", tmp_path / "w.safetensors")
    with pytest.raises(EvocompressError, match=r"none\.evc"):
        unpack_file(tmp_path / "none.evc", tmp_path / "w.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["w.evc"]


def test_safetensors_are_written_and_read_back_in_one_order(tmp_path: Path) -> None:
    state = mixed()
    write_weights(state, tmp_path / "w.safetensors")
    found, others = read_weights(tmp_path / "w.safetensors"), safetensors.torch.load_file(tmp_path / "w.safetensors")
    assert found.keys() == others.keys() == state.keys()
    for name, tensor in state.items():
        assert tensor.equal(found[name]) and tensor.equal(others[name]) and found[name].dtype == tensor.dtype
    assert list(found) == list(read_weights(tmp_path / "w.safetensors"))
    found["w"].zero_()  # the file is not changed
    assert read_weights(tmp_path / "w.safetensors")["w"].any()


def test_what_is_written_must_be_what_was_announced(tmp_path: Path) -> None:
    slots, array = [Slot("a", "float32", (2,)), Slot("b", "float32", (2,))], np.zeros(2, np.float32)
    for arrays, match in [
        ([("c", array)], "not among those announced"),
        ([("a", array), ("a", array)], "not among"),
        ([("a", np.zeros(3, np.float32))], "not among"),
        ([("a", array)], "nothing for the tensors b"),
    ]:
        with pytest.raises(CodecError, match=match):
            write_tensors(tmp_path / "w.safetensors", slots, arrays)
    with pytest.raises(CodecError, match="__metadata__"):
        write_tensors(tmp_path / "w.safetensors", [Slot("__metadata__", "bool", ())], [])
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 2^10 weights instead of 2^20, so that small tensors have some."""
    monkeypatch.setattr(partial_decoding, "_PART", 1 << 10)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("spec", ["trellis", "deadzone", "lossless"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_parts_decode_to_what_the_whole_decodes_to(spec: str, dtype: str) -> None:
    x, codec = laplace(110, 100), parse_codec(spec)
    given = x.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    coded = codec.encode(given if spec == "lossless" else given.astype(np.float64), Cost(1e-5))
    planes = [plane.symbols for plane in coded.planes]
    whole = to_dtype(codec.decode_from(iter(planes), SideReader(coded.side), x.shape), dtype, x.shape)
    parts = decode_in_parts(codec, planes, coded.side, x.shape, dtype)
    assert parts.dtype == whole.dtype and parts.tobytes() == whole.tobytes()


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("shape", [(2, 600), (3, 401), (7, 171)])
@pytest.mark.parametrize("spec", ["trellis", "deadzone", "codebook(passes=0)"])
def test_few_long_rows_decode_in_parts(spec: str, shape: tuple[int, int]) -> None:
    codec, x = parse_codec(spec), np.resize(laplace(1000), shape)
    coded = codec.encode(x, Cost(1e-6))
    found = decode_in_parts(codec, [plane.symbols for plane in coded.planes], coded.side, shape, "float32")
    assert np.array_equal(found, codec.decode(coded, shape).astype(np.float32))


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("spec", ["trellis", "deadzone", "codebook(passes=0)"])
def test_no_more_than_a_part_is_decoded_at_once(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, sizes = parse_codec(spec), list[int]()

    def seen(x: np.ndarray[Any, Any], name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        sizes.append(x.size)
        return to_dtype(x, name, shape)

    coded = codec.encode(laplace(110, 100), Cost(1e-5))
    monkeypatch.setattr(partial_decoding, "to_dtype", seen)
    decode_in_parts(codec, [plane.symbols for plane in coded.planes], coded.side, (110, 100), "float32")
    assert sizes == [1000] * 11


@pytest.mark.parametrize("shape", [(), (0, 4), (1, 1_200_000), (1_200_000,), (3, 2)])
def test_shapes_that_are_not_cut_into_parts(shape: tuple[int, ...]) -> None:
    codec, x = parse_codec("trellis"), np.full(shape, 0.25)
    coded = codec.encode(x, Cost(1e-5))
    found = decode_in_parts(codec, [plane.symbols for plane in coded.planes], coded.side, shape, "float32")
    assert found.shape == shape and found.dtype == np.float32
    assert np.array_equal(found, codec.decode(coded, shape).astype(np.float32))


@pytest.mark.parametrize("spec", sorted(set(CODECS) - {"lossless"}))
def test_every_codec_takes_float32_as_it_is(spec: str) -> None:
    x, codec = laplace(12, 10, 3, 3), parse_codec(spec)
    one, other = codec.encode(x, Cost(1e-6)), codec.encode(x.astype(np.float64), Cost(1e-6))
    errors = [float(np.square(codec.decode(coded, x.shape) - x).sum()) for coded in (one, other)]
    assert errors[0] == pytest.approx(errors[1], rel=0.05)


def test_steps_are_divided_by_on_the_way() -> None:
    x, step = laplace(300, 70), 2.0**-6
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 70))
    factor, weight = inverse_factor(rows.T @ rows, 0.01), rng.uniform(0.5, 2, 300)
    for given in (x, x.astype(np.float64)):
        whole = trellis_quantise(x.astype(np.float64) / step, 0.2)
        assert np.array_equal(trellis_quantise(given, 0.2, step=step), whole)
        whole = quantise_rows(x.astype(np.float64) / step, [factor], weight, 0.2, 2)
        assert np.array_equal(quantise_rows(given, [factor], weight, 0.2, 2, step=step), whole)
    with pytest.raises(CodecError, match="below 2"):
        trellis_quantise(x, 0.2, step=1e-30)


@pytest.mark.parametrize("second_order", [False, True])
def test_a_sample_of_a_large_tensor_chooses_for_all_of_it(second_order: bool) -> None:
    smooth = np.repeat(laplace(600, 100)[:, :, None], 9, axis=2).reshape(600, 100, 3, 3).astype(np.float64)
    smooth += laplace(600, 900).reshape(smooth.shape) / 100  # kernels that did not change at all would repeat
    sensitivity = Sensitivity(np.eye(900)[None], np.ones(600)) if second_order else None
    codec, coded = choose(
        [parse_codec("deadzone"), parse_codec("dct")], smooth, Cost(1e-5, 1.0, sensitivity), rans.State()
    )
    assert codec == parse_codec("dct")
    assert float(np.square(codec.decode(coded, smooth.shape) - smooth).mean()) < 1e-4


def test_a_large_tensor_packs_as_float32() -> None:
    state = {"w": laplace(2900, 2900)}
    rule = Rule("w", ("trellis",))
    decoded = unpack(pack(state, Recipe(1e-5, (rule,), coder="rans")), framework="numpy")["w"]
    assert float(np.square(decoded - state["w"]).mean()) < 1e-4
    state["w"][7, 7] = np.nan
    with pytest.raises(CodecError, match="'w' holds NaN"):
        pack(state, Recipe(1e-5, (rule,), coder="rans"))

"""ONNX models: initialisers go in as tensors and come back into the graph, external data too."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import invoke

import evocompress
from evocompress.checkpoint import onnx_file
from evocompress.checkpoint.weight_files import read_weights, unpack_into
from evocompress.errors import CodecError, EvocompressError, FormatError

onnx: Any = pytest.importorskip("onnx", reason="needs onnx (of the onnx extra)")
reference: Any = pytest.importorskip("onnx.reference")


def network(weight: np.ndarray[Any, Any] | None = None) -> Any:
    """y = relu(x·w + b), with a counter that no node uses, and integers of four bits."""
    helper, kinds = onnx.helper, onnx.TensorProto
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(6, 5)).astype(np.float32) if weight is None else weight
    initialisers = [
        onnx.numpy_helper.from_array(weight, "w"),
        helper.make_tensor("b", kinds.FLOAT, [5], rng.normal(size=5).tolist()),  # as float_data, not as raw bytes
        onnx.numpy_helper.from_array(np.array(7), "steps"),
        helper.make_tensor("nibbles", kinds.INT4, [5], [-8, -1, 0, 3, 7]),
        helper.make_tensor("small", kinds.FLOAT8E4M3FN, [2], [0.5, 448.0]),
    ]
    initialisers[0].doc_string = "the weight"
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "b"], ["s"]),
        helper.make_node("Relu", ["s"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kinds.FLOAT, [None, 6])],
        [helper.make_tensor_value_info("y", kinds.FLOAT, [None, 5])],
        initialisers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def saved(path: Path, *, external: bool = False, model: Any = None) -> Path:
    model = network() if model is None else model
    if external:
        onnx.save(model, path, save_as_external_data=True, location="weights.data", size_threshold=0)
    else:
        onnx.save(model, path)
    return path


def answer(path: Path) -> Any:
    return reference.ReferenceEvaluator(onnx.load(path)).run(None, {"x": np.ones((1, 6), np.float32)})[0]


@pytest.mark.parametrize("external", [False, True])
def test_there_and_back(tmp_path: Path, external: bool) -> None:
    path = saved(tmp_path / "model.onnx", external=external)
    assert (tmp_path / "weights.data").exists() == external
    state = read_weights(path)
    assert list(state) == ["w", "b", "steps", "nibbles", "small"]
    assert [str(tensor.dtype) for tensor in state.values()] == [
        f"torch.{name}" for name in ("float32", "float32", "int64", "int4", "float8_e4m3fn")
    ]
    invoke("pack", path, "-o", tmp_path / "m.evc", "--rate-weight", "1e-9")
    said = invoke("unpack", tmp_path / "m.evc", "-o", tmp_path / "new.onnx", "--into", path).output
    assert "new.onnx: 5 initialisers, 43 weights" in said
    (tmp_path / "weights.data").unlink(missing_ok=True)  # the new file stands alone
    new, old = onnx.load(tmp_path / "new.onnx"), network()
    onnx.checker.check_model(new)
    assert [tensor.name for tensor in new.graph.initializer] == list(state)
    assert new.graph.initializer[0].doc_string == "the weight" and new.graph.node == old.graph.node
    assert all(list(a.dims) == list(b.dims) for a, b in zip(new.graph.initializer, old.graph.initializer, strict=True))
    back = read_weights(tmp_path / "new.onnx")
    assert torch.equal(back["nibbles"].view(torch.int8), state["nibbles"].view(torch.int8)) and back["steps"] == 7
    assert torch.equal(back["small"].float(), torch.tensor([0.5, 448.0]))
    saved(path)
    assert np.abs(answer(tmp_path / "new.onnx") - answer(path)).max() < 1e-3


@pytest.mark.parametrize("shapes", [True, False])
def test_the_model_gives_names_and_shapes(tmp_path: Path, shapes: bool) -> None:
    path = saved(tmp_path / "model.onnx")
    recipe = evocompress.Recipe(1e-9, names=False, shapes=shapes)
    (tmp_path / "m.evc").write_bytes(evocompress.pack(read_weights(path), recipe))
    assert unpack_into(tmp_path / "m.evc", path, tmp_path / "new.onnx") == (5, 43)
    assert np.abs(answer(tmp_path / "new.onnx") - answer(path)).max() < 1e-3
    other = saved(tmp_path / "other.onnx", model=network(np.ones((7, 5), np.float32)))
    if not shapes:
        with pytest.raises(CodecError, match="are not those with which it was packed"):
            unpack_into(tmp_path / "m.evc", other, tmp_path / "no.onnx")
        assert not (tmp_path / "no.onnx").exists()


def test_other_weights_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    path, output = saved(tmp_path / "model.onnx"), tmp_path / "new.onnx"
    state = read_weights(path)
    for change, message in (
        ({"w": torch.zeros(5, 6)}, "'w' is float32 5×6 in the file, float32 6×5 in the model"),
        ({"w": torch.zeros(6, 5).half()}, "'w' is float16 6×5 in the file, float32 6×5 in the model"),
        ({"v": torch.zeros(3)}, "unknown to the model: v"),
    ):
        (tmp_path / "m.evc").write_bytes(evocompress.pack({**state, **change}))
        with pytest.raises(FormatError, match=f"m.evc does not fit .*model.onnx: {message}"):
            unpack_into(tmp_path / "m.evc", path, output)
    (tmp_path / "m.evc").write_bytes(evocompress.pack({"w": state["w"]}))
    with pytest.raises(FormatError, match="missing in the file: b, steps, nibbles, small"):
        unpack_into(tmp_path / "m.evc", path, output)
    assert not output.exists()


def test_what_is_left_out_is_said_and_stays_in_the_graph(tmp_path: Path) -> None:
    helper, model, said = onnx.helper, network(), list[str]()
    model.graph.initializer.append(helper.make_tensor("words", onnx.TensorProto.STRING, [1], [b"a"]))
    model.graph.initializer.append(helper.make_tensor("fours", onnx.TensorProto.FLOAT4E2M1, [2], [0.5, 1.0]))
    values = helper.make_tensor("", onnx.TensorProto.FLOAT, [2000], [0.0] * 2000)
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=values))
    branch = helper.make_graph([], "branch", [], [], [helper.make_tensor("k", onnx.TensorProto.FLOAT, [1], [1.0])])
    model.graph.node.append(helper.make_node("If", ["c"], [], then_branch=branch, else_branch=branch))
    dense = helper.make_tensor("s", onnx.TensorProto.FLOAT, [1], [1.0])
    places = helper.make_tensor("i", onnx.TensorProto.INT64, [1], [3])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(dense, places, [9]))
    path = saved(tmp_path / "model.onnx", model=model)
    state = read_weights(path, say=said.append)
    assert len(state) == 5
    assert said == [
        f"{path}: left out initialisers of other types (words, fours), 1 sparse initialiser, 2 initialisers of graphs "
        "inside nodes, 1 large constant in nodes"
    ]
    (tmp_path / "m.evc").write_bytes(evocompress.pack(state))
    unpack_into(tmp_path / "m.evc", path, tmp_path / "new.onnx")
    new = onnx.load(tmp_path / "new.onnx")
    assert [tensor.name for tensor in new.graph.initializer][5:] == ["words", "fours"]
    assert len(new.graph.node) == 5 and len(new.graph.sparse_initializer) == 1


def test_damaged_files_get_one_line(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.onnx", external=True)
    whole = path.read_bytes()
    (tmp_path / "weights.data").write_bytes(b"short")
    with pytest.raises(FormatError, match="model.onnx is damaged|external data of"):
        read_weights(path)
    (tmp_path / "weights.data").unlink()
    with pytest.raises(FormatError, match="model.onnx"):
        read_weights(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match="is damaged, or no ONNX model"):
        read_weights(path)
    for content, message in (
        (b"\x08\x0a", "is no ONNX model: it has no graph"),
        (onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])).SerializeToString(), "without initialisers"),
        (b"<!DOCTYPE html><html>", "is an HTML page"),
        (b"", "is empty"),
    ):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=message):
            read_weights(path)


def test_external_data_outside_of_the_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(120))
    (tmp_path / "model").mkdir()
    model = network()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret"
    path = tmp_path / "model" / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(FormatError, match="m.onnx"):
        read_weights(path)


def test_two_initialisers_of_one_name_are_refused(tmp_path: Path) -> None:
    model = network()
    model.graph.initializer.append(model.graph.initializer[0])
    with pytest.raises(FormatError, match="two initialisers have the name 'w'"):
        read_weights(saved(tmp_path / "m.onnx", model=model))


def test_a_model_beyond_what_protobuf_reads_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "model.onnx")
    (tmp_path / "m.evc").write_bytes(evocompress.pack(read_weights(path)))
    monkeypatch.setattr(onnx_file, "_LARGEST", 100)
    with pytest.raises(FormatError, match="holds less than 2 GiB; unpack to safetensors instead"):
        unpack_into(tmp_path / "m.evc", path, tmp_path / "new.onnx")
    assert not (tmp_path / "new.onnx").exists()


def test_without_the_library_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, imported = saved(tmp_path / "model.onnx"), builtins.__import__

    def absent(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "onnx":
            raise ModuleNotFoundError(f"No module named {name!r}", name="onnx")
        return imported(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(EvocompressError, match=r"'onnx', which is not installed: pip install 'evocompress\[onnx\]'"):
        read_weights(path)


def test_it_is_no_evc_file_also_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "model.onnx")
    monkeypatch.setattr("evocompress.checkpoint.weight_files.read_onnx", None)
    with pytest.raises(FormatError, match=r"Not an .evc file: .*model.onnx is a checkpoint; pack makes"):
        invoke("inspect", path)
    path.write_bytes(evocompress.pack({"a": torch.ones(2)}))  # and a name alone makes no ONNX model
    assert read_weights(path).keys() == {"a"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-o", "new.onnx"), "an ONNX model needs its graph; name a model with --into"),
        (("-o", "new/", "--into", "model.onnx"), "give no --model, and no folder"),
        (("-o", "new.onnx", "--into", "model.onnx", "--model", "digits_cnn"), "give no --model, and no folder"),
        (("-o", "model.onnx", "--into", "model.onnx"), "is the input itself"),
        (("-o", "new.onnx", "--into", "m.evc"), "is no|or no ONNX model"),
    ],
)
def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.evc").write_bytes(evocompress.pack(read_weights(saved(tmp_path / "model.onnx"))))
    with pytest.raises(EvocompressError, match=message):
        invoke("unpack", "m.evc", *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.evc", "model.onnx"]

"""Weights from a file into a module: all of it, in place, or nothing and a message with both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

import evocompress
from evocompress.checkpoint.loading import load_state
from evocompress.errors import EvocompressError, FormatError, ModelError


def network(width: int = 6) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten(), nn.Linear(width, 2))


def saved(module: nn.Module, path: Path) -> Path:
    if path.suffix == ".evc":
        path.write_bytes(evocompress.pack(module.state_dict(), 1e-9))
    else:
        safetensors.torch.save_file(module.state_dict(), path)
    return path


def values(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", ["w.evc", "w.safetensors"])
def test_a_file_is_loaded_in_place(tmp_path: Path, name: str) -> None:
    source, target = network(), network()
    path = saved(source, tmp_path / name)
    parameters = list(target.parameters())
    assert evocompress.load(path, target) is target
    assert all(a is b for a, b in zip(parameters, target.parameters(), strict=True))
    assert all(parameter.requires_grad for parameter in parameters)
    expected = evocompress.unpack(path.read_bytes()) if name.endswith("evc") else values(source)
    assert same(values(target), expected)
    evocompress.load(str(path), target)  # a path as text will do


def test_dtypes_of_the_model_stay(tmp_path: Path) -> None:
    source, target = network(), network().to(torch.bfloat16)
    evocompress.load(saved(source, tmp_path / "w.evc"), target)
    weight = next(target.parameters())
    assert weight.dtype == torch.bfloat16
    torch.testing.assert_close(weight.float(), next(source.parameters()), atol=2e-3, rtol=1e-2)


def test_a_mismatch_lists_both_sides_and_changes_nothing(tmp_path: Path) -> None:
    target = nn.ModuleDict({"body": nn.Linear(4, 3), "head": nn.Linear(3, 2)})
    before = values(target)
    state = {"body.weight": torch.ones(3, 5), "body.bias": torch.ones(3), "tail.bias": torch.ones(2)}
    (tmp_path / "w.evc").write_bytes(evocompress.pack(state))
    with pytest.raises(ModelError) as caught:
        evocompress.load(tmp_path / "w.evc", target)
    message = str(caught.value)
    assert "w.evc" in message and "\n" not in message
    assert "missing in the file: head.weight, head.bias" in message and "unknown to the model: tail.bias" in message
    assert "body.weight (3×5 in the file, 3×4 in the model)" in message
    assert same(values(target), before)
    evocompress.load(tmp_path / "w.evc", target, strict=False)
    after = values(target)
    assert torch.allclose(after.pop("body.bias"), torch.ones(3), atol=0.05)
    before.pop("body.bias")
    assert same(after, before)


def test_long_lists_are_cut(tmp_path: Path) -> None:
    target = nn.Sequential(*(nn.Linear(2, 2) for _ in range(50)))
    (tmp_path / "w.evc").write_bytes(evocompress.pack({"0.weight": torch.eye(2)}))
    with pytest.raises(ModelError, match="1.bias, 2.weight, 2.bias and 94 more") as caught:
        evocompress.load(tmp_path / "w.evc", target)
    assert len(str(caught.value)) < 400


def test_a_file_without_anything_that_fits_is_an_error_even_if_not_strict(tmp_path: Path) -> None:
    (tmp_path / "w.evc").write_bytes(evocompress.pack({"module.weight": torch.eye(2)}))
    with pytest.raises(ModelError, match="Nothing in .* fits the model: .*module.weight"):
        evocompress.load(tmp_path / "w.evc", nn.Linear(2, 2), strict=False)


def test_fractions_do_not_become_integers(tmp_path: Path) -> None:
    target = nn.BatchNorm1d(2)
    state = {**values(target), "num_batches_tracked": torch.tensor(1.5)}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="num_batches_tracked .float32 in the file, int64 in the model"):
        evocompress.load(tmp_path / "w.safetensors", target)


def test_tied_weights_and_counters_may_be_missing(tmp_path: Path) -> None:
    target = nn.ModuleDict({"embedding": nn.Embedding(5, 4), "norm": nn.BatchNorm1d(4), "head": nn.Linear(4, 5, False)})
    target["head"].weight = target["embedding"].weight
    state = values(target)
    del state["head.weight"], state["norm.num_batches_tracked"]
    state["embedding.weight"] = torch.full((5, 4), 2.0)
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    evocompress.load(tmp_path / "w.safetensors", target)
    assert torch.equal(target.state_dict()["head.weight"], torch.full((5, 4), 2.0))


def test_a_lazy_layer_takes_its_shape_and_a_meta_one_is_refused(tmp_path: Path) -> None:
    path = saved(nn.Linear(4, 3), tmp_path / "w.safetensors")
    assert evocompress.load(path, nn.LazyLinear(3)).weight.shape == (3, 4)
    with pytest.raises(ModelError, match="meta device.*to_empty"):
        evocompress.load(path, nn.Linear(4, 3, device="meta"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"EVCjunk-junk", "w.bin: The checksum does not match|format version"),
        (b"", "is empty"),
        (b"PK\x03\x04 zip", "damaged, or no checkpoint of torch.save"),
        (b"\x80\x04 a pickle", "is a pickle, which could run code.*save_file"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"plain text, and more than a little", "neither safetensors nor .evc"),
    ],
)
def test_a_file_that_is_none(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "w.bin").write_bytes(content)
    with pytest.raises(EvocompressError, match=message):
        evocompress.load(tmp_path / "w.bin", nn.Linear(2, 2))


@pytest.mark.parametrize("kept", [40, 1000])
def test_a_truncated_file_says_both_sizes(tmp_path: Path, kept: int) -> None:
    path = saved(network(), tmp_path / "w.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    with pytest.raises(FormatError, match=rf"truncated: its safetensors header announces (\d+) bytes.*has {kept}"):
        evocompress.load(path, network())
    path.write_bytes(whole + b"more")
    with pytest.raises(FormatError, match=rf"announces {len(whole)} bytes, the file has {len(whole) + 4}"):
        evocompress.load(path, network())


@pytest.mark.parametrize(
    ("path", "model", "message"),
    [
        ("w.evc", 3, "model is an int; it must be a torch.nn.Module"),
        ("w.evc", nn.Linear, "model is the class Linear"),
        (nn.Linear(2, 2), nn.Linear(2, 2), "path is a Linear"),
        ("a\0b", nn.Linear(2, 2), "is no path"),
    ],
)
def test_arguments_of_another_kind(path: Any, model: Any, message: str) -> None:
    with pytest.raises(EvocompressError, match=message):
        evocompress.load(path, model)


@pytest.mark.parametrize("prefix", ["module.", "module._orig_mod."])
def test_names_that_only_begin_differently(tmp_path: Path, prefix: str) -> None:
    plain, wrapped = tmp_path / "plain.evc", tmp_path / "wrapped.evc"
    plain.write_bytes(evocompress.pack(network().state_dict()))
    wrapped.write_bytes(evocompress.pack({prefix + name: value for name, value in network().state_dict().items()}))
    with pytest.raises(ModelError, match=rf"in the file begin with '{prefix}': load\(…, strip_prefix='{prefix}'\)"):
        evocompress.load(wrapped, network())
    stored = evocompress.unpack(wrapped.read_bytes())
    loaded = evocompress.load(wrapped, network(), strip_prefix=prefix).state_dict()
    assert all(torch.equal(value, stored[prefix + name]) for name, value in loaded.items())
    with pytest.raises(ModelError, match="no tensor's name begins with 'modul_.'"):
        evocompress.load(wrapped, network(), strip_prefix="modul_.")
    outer: nn.Module = network()
    for name in reversed(prefix.split(".")[:-1]):
        outer = nn.ModuleDict({name: outer})
    with pytest.raises(
        ModelError, match=rf"in the model begin with '{prefix}': use the module inside, model.{prefix[:-1]}"
    ):
        evocompress.load(plain, outer)


def test_long_names_are_cut(tmp_path: Path) -> None:
    (tmp_path / "w.evc").write_bytes(evocompress.pack({"a" * 500 + "b": torch.ones(2)}))
    with pytest.raises(ModelError, match="a…a*b") as caught:
        evocompress.load(tmp_path / "w.evc", nn.Linear(2, 2))
    assert len(str(caught.value).replace(str(tmp_path), "")) < 300


class Picky(nn.Linear):
    """A layer of somebody's own that takes no negative biases, or has no way to be asked."""

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: Any,
        missing_keys: Any,
        unexpected_keys: Any,
        error_msgs: Any,
    ) -> None:
        if (state_dict[f"{prefix}bias"] < 0).any():
            error_msgs.append(f"{prefix}bias is negative")
        if (state_dict[f"{prefix}bias"] > 9).any():
            raise OverflowError("bias is large")
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


@pytest.mark.parametrize(("bias", "message"), [(-1.0, "1.bias is negative"), (10.0, "1: OverflowError: bias is large")])
def test_any_layer_that_loads_in_a_way_of_its_own_is_asked_before_anything_is_loaded(bias: float, message: str) -> None:
    model = nn.Sequential(nn.Linear(2, 2), Picky(2, 2), nn.BatchNorm1d(2))
    before = values(model)
    state = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
    with pytest.raises(ModelError, match=f"^w.evc does not fit the model: {message}"):
        load_state(model, state | {"1.bias": torch.full((2,), bias)}, "w.evc")
    assert same(values(model), before)
    load_state(model, state, "w.evc")
    assert same(values(model), state)


def test_small_floats_and_complex_numbers_load_where_they_can(tmp_path: Path) -> None:
    weight = torch.tensor([[0.5, -2.0], [448.0, 0.0]])
    path = tmp_path / "w.evc"
    path.write_bytes(evocompress.pack({"weight": weight.to(torch.float8_e4m3fn)}))
    model = nn.Linear(2, 2, bias=False)
    assert torch.equal(evocompress.load(path, model).weight, weight)
    path.write_bytes(evocompress.pack({"weight": weight.to(torch.complex64)}))
    with pytest.raises(ModelError, match="complex64 in the file, float32 in the model, which cannot hold imaginary"):
        evocompress.load(path, model)
    assert torch.equal(evocompress.load(path, nn.Linear(2, 2, bias=False, dtype=torch.complex64)).weight.real, weight)

"""Weights from a file into a module: all of it, in place, or nothing and a message with both sides."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import evocompress
from evocompress.errors import EvocompressError, ModelError


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
    with pytest.raises(ModelError, match="num_batches_tracked .torch.float32 in the file, torch.int64 in the model"):
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


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "junk.evc").write_bytes(b"EVCjunk")
    for name in ("none.evc", "junk.evc"):
        with pytest.raises(EvocompressError):
            evocompress.load(tmp_path / name, nn.Linear(2, 2))

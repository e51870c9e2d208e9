"""Checkpoints as people have them: files of torch.save, folders with shards; read without running anything."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn
from typer.testing import CliRunner

import evocompress
from evocompress.checkpoint.weight_files import read_weights
from evocompress.cli import app
from evocompress.errors import FormatError, ModelError


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))


def same(state: dict[str, torch.Tensor], model: nn.Module) -> bool:
    wanted = model.state_dict()
    return list(state) == list(wanted) and all(torch.equal(state[name], wanted[name]) for name in wanted)


def checkpoints(model: nn.Module) -> dict[str, tuple[Any, str]]:
    """Content of a file, and what is said of it."""
    state = model.state_dict()
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.ones(4, 6)).sum().backward()
    optimiser.step()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    average = {name: tensor + 1 for name, tensor in state.items()}
    return {
        "plain": (state, ""),
        "lightning": (
            {"epoch": 3, "state_dict": state, "optimizer_states": [optimiser.state_dict()], "lr_schedulers": []},
            "took the tensors in 'state_dict'; left out epoch, optimizer_states, lr_schedulers",
        ),
        "average behind": ({"model": state, "ema": average}, "took the tensors in 'model'; left out ema"),
        "deeper": ({"a": {"net": state}, "optimizer": optimiser.state_dict()}, "took the tensors in 'a.net'"),
        "mixed": ({**state, "epoch": 3, "note": "best"}, "left out epoch, note"),
    }


@pytest.mark.parametrize("kind", checkpoints(network()))
@pytest.mark.parametrize("zipped", [True, False])
def test_the_state_dict_is_found(tmp_path: Path, kind: str, zipped: bool) -> None:
    model = network()
    content, note = checkpoints(model)[kind]
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    said: list[str] = []
    assert same(read_weights(tmp_path / "w.pth", say=said.append), model)
    assert note in " ".join(said) and bool(said) == bool(note)


def test_load_and_pack_take_them(tmp_path: Path) -> None:
    model = network()
    torch.save({"model": model.state_dict(), "epoch": 1}, tmp_path / "w.ckpt")
    assert same(evocompress.load(tmp_path / "w.ckpt", network()).state_dict(), model)
    result = CliRunner().invoke(app, ["pack", str(tmp_path / "w.ckpt"), "-o", str(tmp_path / "w.evc")])
    assert result.exit_code == 0, result.output
    assert "w.ckpt: took the tensors in 'model'; left out epoch" in result.output
    assert evocompress.load(tmp_path / "w.evc", network()) is not None


def test_a_prefix_is_taken_away_on_request(tmp_path: Path) -> None:
    model = network()
    torch.save({"model": {f"module.{name}": value for name, value in model.state_dict().items()}}, tmp_path / "w.pth")
    words = ["pack", str(tmp_path / "w.pth"), "-o", str(tmp_path / "w.evc")]
    assert CliRunner().invoke(app, [*words, "--strip-prefix", "module."]).exit_code == 0
    assert evocompress.load(tmp_path / "w.evc", network()) is not None
    with pytest.raises(ModelError, match="--strip-prefix: no tensor's name begins with"):
        CliRunner().invoke(app, [*words, "--strip-prefix", "modul."], catch_exceptions=False)


class Touches:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    for zipped in (True, False):
        torch.save(
            {"w": torch.ones(2), "x": Touches(touched)}, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped
        )
        with pytest.raises(FormatError, match="whose code would run when it is opened.*state_dict"):
            read_weights(tmp_path / "w.pt")
    (tmp_path / "w.pt").write_bytes(pickle.dumps(Touches(touched), protocol=2))
    with pytest.raises(FormatError, match=r"whose code would run|no checkpoint of torch\.save"):
        read_weights(tmp_path / "w.pt")
    assert not touched.exists()


def test_what_is_no_checkpoint_says_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(network(), path)
    with pytest.raises(FormatError, match=r"object of torch\.nn\.modules\.container\.Sequential.*state_dict"):
        read_weights(path)
    torch.save({"epoch": 3, "optimizer": {"exp_avg": torch.ones(3)}}, path)
    with pytest.raises(FormatError, match="holds no state dict"):
        read_weights(path)
    whole = tmp_path / "whole.pt"
    torch.save(network().state_dict(), whole)
    for end in (30, 200, len(whole.read_bytes()) - 40):
        path.write_bytes(whole.read_bytes()[:end])
        with pytest.raises(FormatError, match="damaged"):
            read_weights(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(FormatError, match="zip archive of something else"):
        read_weights(path)


def folder(path: Path, model: nn.Module) -> Path:
    """A model in two shards, as Hugging Face writes it."""
    path.mkdir()
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    names, weight_map = list(state), {}
    for number, part in enumerate((names[:3], names[3:]), start=1):
        file = f"model-{number:05}-of-00002.safetensors"
        safetensors.torch.save_file({name: state[name] for name in part}, path / file, {"format": "pt"})
        weight_map.update(dict.fromkeys(part, file))
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (path / "config.json").write_text("{}")
    return path


def test_a_folder_stands_for_all_its_shards(tmp_path: Path) -> None:
    model, said = network(), list[str]()
    place = folder(tmp_path / "model", model)
    for path in (place, place / "model.safetensors.index.json"):
        found = read_weights(path, say=said.append)
        assert same({name: found[name] for name in model.state_dict()}, model)
        assert "tensors in model-00001-of-00002.safetensors, model-00002-of-00002.safetensors" in said.pop()
    assert same(evocompress.load(place, network()).state_dict(), model)
    part = read_weights(place / "model-00001-of-00002.safetensors", say=said.append)
    assert len(part) == 3 and "one of 2 shards" in said.pop()


def test_a_folder_of_one_file_is_that_file(tmp_path: Path) -> None:
    model = network()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert same(read_weights(tmp_path), model)


def test_a_folder_that_holds_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is a folder, which must hold model.safetensors.*it has none"):
        read_weights(tmp_path)
    place = folder(tmp_path / "model", network())
    (place / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FormatError, match="names 2 shards, of which model-00002-of-00002.safetensors is not there"):
        read_weights(place)
    for content, message in (
        ('{"weight_map": {"a": "../x.safetensors"}}', "is no file beside it"),
        ('{"weight_map": 3}', "is no index of shards"),
        ("<html>", "is no index of shards"),
    ):
        (place / "model.safetensors.index.json").write_text(content)
        with pytest.raises(FormatError, match=message):
            read_weights(place)

"""Folders as Hugging Face has them, in and out: weights and what lies beside them, by the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from commands import invoke
from torch import nn

import evocompress
from evocompress.checkpoint import companions
from evocompress.checkpoint.companions import companions_of, write_folder
from evocompress.checkpoint.weight_files import read_weights, write_weights
from evocompress.errors import ConfigError, EvocompressError, FormatError

#: What goes along, and what does not.
CARRIED = (
    "1_Pooling/config.json",
    "LICENSE",
    "README.md",
    "config.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.json",
)
LEFT = (
    "pytorch_model.bin", "model.safetensors.index.json", "training_args.bin", ".hidden", "events.out",
    "checkpoint-5/x.pt", "deep/er/config.json", "tf_model.h5",
)  # fmt: skip


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    place = tmp_path / "model"
    for name in (*CARRIED, *LEFT):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(name)
    (place / "model.safetensors.index.json").unlink()
    (place / "pytorch_model.bin").unlink()
    torch.manual_seed(0)
    safetensors.torch.save_file(nn.Linear(30, 20).state_dict(), place / "model.safetensors", {"format": "pt"})
    return place


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def test_there_and_back(model_folder: Path, tmp_path: Path) -> None:
    said = invoke("pack", model_folder, "-o", f"{tmp_path}/small/", "--rate-weight", "1e-9")
    small, back = tmp_path / "small", tmp_path / "back"
    assert files(small) == sorted((*CARRIED, "model.evc"))
    assert all((small / name).read_text() == name for name in CARRIED)
    assert "small: with 1_Pooling/config.json, LICENSE" in said.stdout and "small/model.evc: " in said.stdout
    assert "left out checkpoint-5, deep, events.out: settings, tokenizers and texts of up to" in said.stderr
    assert "small/model.evc" not in said.stderr and "620 weights" in invoke("inspect", small).output
    assert "back/model.safetensors: 2 tensors, 620 weights" in invoke("unpack", small, "-o", f"{back}/").output
    assert files(back) == sorted((*CARRIED, "model.safetensors"))
    before, after = (safetensors.torch.load_file(place / "model.safetensors") for place in (model_folder, back))
    assert all((before[name] - after[name]).abs().max() < 1e-3 for name in before)
    with safetensors.safe_open(back / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert torch.equal(evocompress.load(small, nn.Linear(30, 20)).weight, after["weight"])
    assert (small.stat().st_mode & 0o777, (small / "model.evc").stat().st_mode & 0o777) == (0o755, 0o644)


def test_a_folder_that_is_there_keeps_its_other_files(model_folder: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    (small / "mine").write_text("mine")
    (small / "config.json").write_text("old")
    for _ in range(2):  # also over what the command itself has written
        invoke("pack", model_folder, "-o", small)
        assert files(small) == sorted((*CARRIED, "mine", "model.evc"))
        assert (small / "config.json").read_text() == "config.json" and (small / "mine").read_text() == "mine"


def test_a_file_goes_into_a_folder_alone(model_folder: Path, tmp_path: Path) -> None:
    invoke("pack", model_folder / "model.safetensors", "-o", f"{tmp_path}/alone/")
    assert files(tmp_path / "alone") == ["model.evc"]
    invoke("unpack", tmp_path / "alone" / "model.evc", "-o", f"{tmp_path}/back/")
    assert files(tmp_path / "back") == ["model.safetensors"]
    invoke("unpack", tmp_path / "alone", "-o", tmp_path / "w.safetensors")
    assert read_weights(tmp_path / "w.safetensors").keys() == {"weight", "bias"}


def test_a_folder_without_names_needs_the_network(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    (tmp_path / "model.evc").write_bytes(evocompress.pack(model.state_dict(), evocompress.Recipe(1e-9, names=False)))
    assert torch.allclose(evocompress.load(tmp_path, nn.Linear(3, 2)).weight, model.weight, atol=1e-3)


def test_links_out_of_the_folder_are_not_followed(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("secret")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key.txt").write_text("secret")
    (model_folder / "vocab.json").symlink_to(tmp_path / "secret.json")
    (model_folder / "broken.json").symlink_to(tmp_path / "gone")
    (model_folder / "linked").symlink_to(tmp_path / "secrets", target_is_directory=True)
    (model_folder / "same.json").symlink_to(model_folder / "config.json")
    found = companions_of(model_folder)
    assert {path.as_posix() for path in found.files} == {*CARRIED, "same.json"}
    assert "left out broken.json, linked, vocab.json, which lead out of the folder; a copy of it (cp -RL)" in found.note
    said = invoke("pack", model_folder, "-o", f"{tmp_path}/small/").stderr
    assert "which lead out of the folder" in said
    assert "secret" not in {path.read_text() for path in (tmp_path / "small").rglob("*.json")}
    assert not (tmp_path / "small" / "same.json").is_symlink()


def test_what_is_large_stays(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(companions, "_LARGEST", 100)
    (model_folder / "tokenizer.json").write_text("x" * 101)
    found = companions_of(model_folder)
    assert {path.as_posix() for path in found.files} == {*CARRIED} - {"tokenizer.json"}
    assert "tokenizer.json" in found.note
    monkeypatch.setattr(companions, "_LARGEST_OF_ALL", 30)
    assert [path.as_posix() for path in companions_of(model_folder).files] == ["1_Pooling/config.json", "LICENSE"]


@pytest.mark.parametrize("there", [False, True])
def test_nothing_half_written_is_left(model_folder: Path, tmp_path: Path, there: bool) -> None:
    output = tmp_path / "small"
    if there:
        output.mkdir()
        (output / "config.json").write_text("old")

    def fails(path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        write_folder(output, model_folder, "model.evc", fails)
    assert sorted(tmp_path.rglob("*")) == before
    assert not there or (output / "config.json").read_text() == "old"


def test_a_damaged_file_leaves_no_folder(model_folder: Path, tmp_path: Path) -> None:
    invoke("pack", model_folder, "-o", f"{tmp_path}/small/")
    file = tmp_path / "small" / "model.evc"
    file.write_bytes(file.read_bytes()[:-9] + bytes(9))
    with pytest.raises(FormatError, match="small"):
        invoke("unpack", tmp_path / "small", "-o", f"{tmp_path}/back/")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "small"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("pack", "model", "-o", "model"), "is the input itself"),
        (("pack", "model", "-o", "model/"), "is the input itself"),
        (("pack", "model", "-o", "model/config.json/"), "is there and is no folder"),
        (("pack", "model", "-o", "no/such/"), "its folder does not exist"),
        (("pack", "model", "-o", "link/"), "is there and is no folder"),
        (("unpack", "model", "-o", "model/"), "is the input itself"),
        (("unpack", "model", "-o", "back/"), "model is a folder, which must hold model.evc; it has no .evc files"),
        (("pack", "model", "-o", "model/model.safetensors"), "is the input itself"),
    ],
)
def test_mistakes(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("elsewhere")
    before = (model_folder / "model.safetensors").read_bytes(), files(tmp_path)
    with pytest.raises((ConfigError, EvocompressError), match=message):
        invoke(*words)
    assert before == ((model_folder / "model.safetensors").read_bytes(), files(tmp_path))


def test_safetensors_say_whose_they_are_and_may_hold_that_name(tmp_path: Path) -> None:
    state: dict[str, Any] = {"a": torch.ones(2)}
    write_weights(state, tmp_path / "w.safetensors")
    with safetensors.safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert json.loads((tmp_path / "w.safetensors").read_bytes()[8:].partition(b"}}")[0] + b"}}")["__metadata__"]
    with pytest.raises(EvocompressError, match="safetensors cannot hold this name"):
        write_weights({"__metadata__": torch.ones(2)}, tmp_path / "no.safetensors")

"""Files without names: the reader must have them from elsewhere, and gets the right ones or an error."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn
from typer.testing import CliRunner

from evocompress import Recipe, load, pack
from evocompress.checkpoint.loading import names_for
from evocompress.cli import app
from evocompress.codecs.container import parse
from evocompress.errors import ModelError
from evocompress.networks import build

NAMELESS = Recipe(1e-8, names=False)


def network(seed: int = 0) -> nn.Module:
    """Two tied weights of the same shape as a third one: names in a wrong order would not be seen by their shapes."""
    torch.manual_seed(seed)
    model = nn.ModuleDict({name: nn.Linear(9, 9) for name in ("middle", "alike", "tail")})
    model["norm"] = nn.BatchNorm1d(9)
    model["tail"].weight = model["middle"].weight
    return model


def stored(state: dict[str, torch.Tensor], path: Path) -> Path:
    path.write_bytes(pack(state, NAMELESS))
    return path


LESS = {
    "whole": [],
    "without counters": ["norm.num_batches_tracked"],
    "the first of the tied": ["tail.weight"],
    "the last of the tied": ["middle.weight"],
    "the last of the tied, without counters": ["middle.weight", "norm.num_batches_tracked"],
}


@pytest.mark.parametrize("kind", sorted(LESS))
def test_names_come_from_the_model_however_the_checkpoint_was_saved(kind: str, tmp_path: Path) -> None:
    source, target = network(0), network(1)
    state = {name: value for name, value in source.state_dict().items() if name not in LESS[kind]}
    path = stored(state, tmp_path / "w.evc")
    assert list(names_for(target, parse(path.read_bytes()))) == sorted(state)
    load(path, target)
    for name, value in source.state_dict().items():
        assert torch.allclose(target.state_dict()[name].double(), value.double(), atol=1e-3), name


def test_another_model_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path, target = stored(dict(network().state_dict()), tmp_path / "w.evc"), nn.Linear(9, 9)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(
        ModelError, match="11 tensors without names, and they were not those of this model, which has 2"
    ):
        load(path, target)
    renamed = nn.ModuleDict({"model": network()})
    with pytest.raises(ModelError, match=r"which has 11: model\.middle\.weight"):
        load(path, renamed)
    with pytest.raises(ModelError, match="has 0: none"):
        load(path, nn.Identity())
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_another_shape_is_refused(tmp_path: Path) -> None:
    path = stored({"weight": torch.ones(3, 4), "bias": torch.ones(3)}, tmp_path / "w.evc")
    with pytest.raises(ModelError, match="3×4 in the file, 3×5 in the model"):
        load(path, nn.Linear(5, 3))


def test_unpack_takes_the_names_from_a_network(tmp_path: Path) -> None:
    state = build("lenet5_caffe", seed=3).state_dict()
    path, output = stored(dict(state), tmp_path / "w.evc"), tmp_path / "w.safetensors"
    runner = CliRunner()
    done = runner.invoke(app, ["unpack", str(path), "-o", str(output), "--model", "lenet5_caffe"])
    assert done.exit_code == 0, done.output
    assert {name: x.shape for name, x in safetensors.torch.load_file(output).items()} == {
        name: x.shape for name, x in state.items()
    }
    done = runner.invoke(app, ["unpack", str(path), "-o", str(output)])
    assert done.exit_code == 0
    assert sorted(safetensors.torch.load_file(output)) == sorted(str(i) for i in range(len(state)))
    done = runner.invoke(app, ["unpack", str(path), "-o", str(output), "--model", "resnet20"])
    assert done.exit_code != 0


def test_inspect_says_what_is_tied(tmp_path: Path) -> None:
    x = torch.randn(20, 30)
    (tmp_path / "w.evc").write_bytes(pack({"embedding": x, "head": x}))
    done = CliRunner().invoke(app, ["inspect", str(tmp_path / "w.evc")])
    assert done.exit_code == 0 and "tied to" in done.output
    done = CliRunner().invoke(app, ["inspect", str(tmp_path / "w.evc"), "--json"])
    assert '"tied_to": "embedding"' in done.output


def test_a_recipe_without_names_is_kept_as_json() -> None:
    assert Recipe.from_json(NAMELESS.to_json()) == NAMELESS
    assert Recipe.from_json({key: x for key, x in NAMELESS.to_json().items() if key != "names"}).names

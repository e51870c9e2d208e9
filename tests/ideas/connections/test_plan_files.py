"""Files of over-provisioned networks: loaded, refused, and known by their names."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

import evocompress
from evocompress.checkpoint.loading import fitting_names
from evocompress.checkpoint.weight_files import unpack_file
from evocompress.errors import ModelError
from evocompress.networks import build


def test_values_that_a_layer_refuses_are_one_error(tmp_path: Path) -> None:
    """The plan of connections of another seed: same names, same shapes, other connections."""
    options: dict[str, Any] = {"image_size": 8, "width": 2}
    other = build("connected_cnn", {**options, "plan": {"seed": 5}})
    path = tmp_path / "other.evc"
    path.write_bytes(evocompress.pack(other.state_dict()))
    with pytest.raises(ModelError, match=r"other\.evc does not fit the model: .*conv1"):
        evocompress.load(path, build("connected_cnn", options))


@pytest.mark.parametrize("names", [True, False])
def test_files_of_another_plan_are_known_by_their_names(tmp_path: Path, names: bool) -> None:
    options: dict[str, Any] = {"image_size": 8, "width": 2}
    state = build("connected_cnn", {**options, "plan": {"near": 0.5, "decay": 0.3}}).state_dict()
    plain, path, output = build("connected_cnn", options), tmp_path / "w.evc", tmp_path / "w.safetensors"
    path.write_bytes(evocompress.pack(state, evocompress.Recipe(1e-9, names=names)))
    unpack_file(path, output, functools.partial(fitting_names, plain))
    back = safetensors.torch.load_file(output)
    assert {name: value.shape for name, value in back.items()} == {n: v.shape for n, v in state.items()}
    assert state["conv1.links"].shape != plain.state_dict()["conv1.links"].shape
    with pytest.raises(ModelError, match="does not fit the model|were not those of this model"):
        unpack_file(path, output, functools.partial(fitting_names, build("digits_cnn")))

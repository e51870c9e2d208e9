"""The teacher of a run: made once, the same at every resume, refused where it does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import evocompress
from evocompress.errors import ConfigError, ModelError, RunError
from evocompress.evolve.config import Config, parse_config
from evocompress.evolve.driver import prepare, run_experiment
from evocompress.networks import build
from evocompress.search.history import read_history

pytestmark = pytest.mark.slow


def config(**changes: Any) -> Config:
    values: dict[str, Any] = {
        "model": "digits_cnn",
        "data": "digits",
        "reference_epochs": 0,
        "search": {"segments": 2, "initial": 2, "probes": 0, "deterministic": True},
        "genes": {"epochs": 1, "distillation": 0.5, "batch_size": 64},
        "teacher": {"epochs": 2, "model_options": {"width": 4}},
        "resources": {"executor": "inline"},
    }
    return parse_config(values | changes)


@pytest.fixture(autouse=True)
def digits() -> None:
    pytest.importorskip("sklearn", reason="its digits are the data")


def files(folder: Path) -> dict[str, str]:
    return {leaf.leaf_id: leaf.sha256 for outcome in read_history(folder).outcomes for leaf in outcome.leaves}


def test_a_run_trains_its_teacher_once(tmp_path: Path) -> None:
    heard: list[Any] = []
    run_experiment(config(), tmp_path / "a", observer=heard.append)
    assert any("training the teacher, 2 epochs" in str(event) for event in heard)
    (event,) = read_history(tmp_path / "a").events("teacher")
    data = (tmp_path / "a" / "teacher.evc").read_bytes()
    narrow = build("digits_cnn", {"width": 4})
    narrow.load_state_dict(evocompress.unpack(data, names=narrow.state_dict()))
    assert 0 < event["validation_quality"] <= 1

    # A resume takes the file that is there; where it is gone it is made again, the same.
    more = config(search={"segments": 3, "initial": 2, "probes": 0, "deterministic": True})
    (tmp_path / "a" / "teacher.evc").unlink()
    run_experiment(more, tmp_path / "a", resume=True, override=True)
    assert (tmp_path / "a" / "teacher.evc").read_bytes() == data
    assert len(read_history(tmp_path / "a").events("teacher")) == 1

    (tmp_path / "a" / "teacher.evc").write_bytes(data[:-1])
    with pytest.raises(RunError, match="is not the teacher that the run began with"):
        run_experiment(more, tmp_path / "a", resume=True)

    # Another teacher, by an override that was accepted.
    run_experiment(more.model_copy(update={"teacher": config(teacher={"epochs": 1}).teacher}), tmp_path / "a",
                   resume=True, override=True)  # fmt: skip
    assert len(read_history(tmp_path / "a").events("teacher")) == 2


def test_it_counts(tmp_path: Path) -> None:
    run_experiment(config(), tmp_path / "a")
    run_experiment(config(), tmp_path / "b")
    run_experiment(config(teacher={}, genes={"epochs": 1, "batch_size": 64}), tmp_path / "c")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert set(files(tmp_path / "a").values()).isdisjoint(files(tmp_path / "c").values())


def test_given_weights(tmp_path: Path) -> None:
    network = build("digits_cnn", {}, seed=5)
    torch.save(network.state_dict(), tmp_path / "teacher.pt")
    run_experiment(config(teacher={"weights": str(tmp_path / "teacher.pt")}), tmp_path / "run")
    data = (tmp_path / "run" / "teacher.evc").read_bytes()
    for name, tensor in evocompress.unpack(data).items():
        assert torch.equal(tensor, network.state_dict()[name])
    with pytest.raises(ModelError, match="teacher: "):
        prepare(config(teacher={"weights": str(tmp_path / "teacher.pt"), "model_options": {"width": 4}}))
    with pytest.raises(ModelError, match=r"teacher: .*classes"):
        prepare(config(teacher={"epochs": 1, "model_options": {"classes": 3}}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": {}}, "genes.distillation needs a teacher"),
        ({"genes": {"epochs": 1}}, "nobody learns from the teacher"),
        ({"genes": {"distillation": [0.0, 0.5]}, "teacher": {}}, "genes.distillation needs a teacher"),
        ({"teacher": {"epochs": 1, "weights": "a.pt"}}, "give weights or epochs, not both"),
        ({"teacher": {"model": "digits_cnn"}}, "give its weights, or how many epochs"),
        ({"teacher": {"epoch": 1}}, "Did you mean 'teacher.epochs'"),
        ({"genes": {"distillation": 1.5}}, "distillation"),
    ],
)
def test_what_does_not_fit_together_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**changes)

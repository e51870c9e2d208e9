"""A run folder that somebody sends is data: nothing that it names is imported unasked, nothing beside it deleted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_process import evocompress_in

from evocompress.errors import RunError
from evocompress.evolve.driver import config_of_run
from evocompress.evolve.trust import check_trust, imports_of, made_by
from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.run_folder import open_run
from evocompress.search.storage import open_storage
from evocompress.search.toy_segment import ToySegment, toy_settings, toy_space

_MODULE = """
import pathlib
import numpy as np
from torch import nn
pathlib.Path("imported").touch()

def network():
    return nn.Linear(2, 2)

def data(seed):
    x = np.random.default_rng(seed).normal(size=(64, 2)).astype(np.float32)
    return [(x, (x[:, 0] > 0).astype(int))] * 3
"""
_CONFIG = """
model = "theirs:network"
data = "theirs:data"
reference_epochs = 0
[search]
segments = 2
initial = 2
[genes]
epochs = 1
batch_size = 16
[resources]
executor = "inline"
"""


def sent(folder: Path) -> None:
    """As if the folder came from somebody else."""
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"made_by": "somebody"}))


@pytest.mark.slow
def test_a_folder_that_was_made_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(_MODULE)
    (tmp_path / "theirs.toml").write_text(_CONFIG)
    done = evocompress_in(tmp_path, "run", "theirs.toml", "--out", "run")
    assert done.returncode == 0, done.stdout + done.stderr
    imported = tmp_path / "imported"
    again = ("run", "--resume", "--out", "run", "--override", "--set", "search.segments=3")

    def names_it(*arguments: str) -> bool:
        imported.unlink(missing_ok=True)
        done = evocompress_in(tmp_path, *arguments)
        assert done.returncode == 2 and not imported.exists(), done.stdout + done.stderr
        return "would import and run theirs:network, theirs:data" in done.stderr and "--trust" in done.stderr

    # One's own goes on without a question.
    imported.unlink()
    assert evocompress_in(tmp_path, *again).returncode == 0 and imported.exists()
    sent(tmp_path / "run")
    file = next((tmp_path / "run" / "seg").rglob("*.evc"))
    assert names_it(*again)
    assert names_it("certify", str(file))
    for command in (("front", "run"), ("report", "run"), ("inspect", str(file))):
        imported.unlink(missing_ok=True)
        done = evocompress_in(tmp_path, *command)
        assert done.returncode == 0 and not imported.exists(), done.stdout + done.stderr
    for arguments in ((*again[:-1], "search.segments=4", "--trust"), ("certify", str(file), "--trust")):
        imported.unlink(missing_ok=True)
        done = evocompress_in(tmp_path, *arguments)
        assert done.returncode == 0 and imported.exists(), done.stdout + done.stderr
    # And who gives the configuration says it with that.
    assert evocompress_in(tmp_path, "run", "theirs.toml", *again[1:-1], "search.segments=5").returncode == 0


def test_what_counts_as_code() -> None:
    config = {"model": "a:b", "data": "digits", "task": "c:D", "teacher": {"model": "e:f"}, "name": "x:y"}
    assert imports_of(config) == ["a:b", "c:D", "e:f"] and imports_of({"model": 3, "teacher": None}) == []
    check_trust("run", {}, {"model": "lenet5_caffe", "data": "mnist"})
    check_trust("run", {"made_by": made_by()}, config)
    with pytest.raises(RunError, match="would import and run a:b, c:D, e:f"):
        check_trust("run", {"made_by": ""}, config)


def test_a_name_that_cannot_be_kept_trusts_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert made_by() == ""
    with pytest.raises(RunError, match="made elsewhere"):
        check_trust("run", {"made_by": ""}, {"model": "a:b"})
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert made_by() == made_by() != ""


def test_a_run_without_a_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no run: it has no run.json"):
        config_of_run(tmp_path)


@pytest.mark.parametrize("forged", ["run.json", "journal/000001.jsonl", "seg", "seg/x", "other/a/b", "./run.json"])
def test_a_forged_path_of_a_leaf_deletes_nothing(tmp_path: Path, forged: str) -> None:
    with open_run(tmp_path, header={"config": {}}, space=toy_space(), settings=toy_settings(segments=4)) as run:
        assert run.drive(InlineExecutor(ToySegment(), run.storage)) == "finished"
        run.search._suspects["forged"] = forged
        before = sorted(path for path in tmp_path.rglob("*"))
        with pytest.raises(RunError, match="not below seg/; it is damaged, or somebody wrote it"):
            run.finished([])
        assert sorted(path for path in tmp_path.rglob("*")) == before


def test_a_link_leads_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    storage = open_storage(tmp_path / "run")
    storage.write("seg/a/b/file", b"x")
    (tmp_path / "run" / "seg" / "s").symlink_to(outside)
    for path in ("seg/s/precious", "seg/s/precious/more"):
        with pytest.raises(RunError, match="leads out of"):
            storage.delete(path)
    storage.delete("seg/s")  # the link itself, or nothing
    assert (outside / "precious").exists()
    storage.delete("seg/a/b/file")
    assert storage.find("seg/a") == []

"""Runs of before there were tasks, which know an accuracy only: `old_run/` is one, made by that version."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ideas_present import with_all_ideas

from evocompress.errors import ConfigError
from evocompress.evolve.config import parse_config
from evocompress.evolve.driver import config_of_run, counted_as_before, prepare
from evocompress.runs.export import export_run, segment_rows
from evocompress.runs.front import audits, front, reference
from evocompress.runs.recorded_measurements import of_leaf
from evocompress.runs.report.payload import payload
from evocompress.search.history import read_history
from evocompress.search.records import Leaf
from evocompress.support.intervals import wilson_interval
from evocompress.tasks.classification import ACCURACY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(Path(__file__).parent / "old_run", tmp_path / "old_run"))


def test_an_old_run_has_its_front(folder: Path) -> None:
    history = read_history(folder)
    assert history.quality == ACCURACY and "quality" not in history.run
    points = front(history)
    assert [point.file for point in points] == ["004654B_0.9304.evc", "004661B_0.9471.evc"]
    for point, correct in zip(points, (334, 340), strict=True):
        assert point.audited and point.details == {"correct": correct, "total": 359} and point.total == 359
        assert point.quality == correct / 359 and point.error == 1.0 - correct / 359
        assert (point.low, point.high) == wilson_interval(correct, 359)
        assert of_leaf(history.leaves[point.leaf_id]).total == 359
    line = reference(history)
    assert line is not None and line.quality == 230 / 359 and line.low < line.quality < line.high
    assert len(audits(history)) == 2


def test_an_old_run_is_exported(folder: Path) -> None:
    history = read_history(folder)
    export = export_run(history, folder, lambda leaf: history.storage.read(leaf.path))
    assert [path.name for path in export.front_files] == ["004654B_0.9304.evc", "004661B_0.9471.evc"]
    assert export.report_html.is_file() and payload(history)["quality"]["name"] == "accuracy"
    row = next(row for row in segment_rows(history) if row["leaf_id"] == front(history)[-1].leaf_id)
    assert row["audited_quality"] == 340 / 359 and row["quality_name"] == "accuracy"
    assert row["float_quality"] > 0.5 and len(row["train_quality"]) == 6


@with_all_ideas  # its configuration has their genes
def test_an_old_run_whose_lambda_has_another_unit_does_not_go_on(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"rate_weight.*squared error per bit"):
        config_of_run(folder)


def test_old_records_are_read_once_and_written_new() -> None:
    old = {"leaf_id": "a", "path": "a.evc", "sha256": "", "nbytes": 9, "accuracy": 0.75, "genome": {}}
    old["measurements"] = {"correct": 3, "total": 4, "loss": -1.0}
    leaf = Leaf.from_json(old)
    assert (leaf.quality, leaf.error) == (0.75, 0.25) and Leaf.from_json(leaf.to_json()) == leaf
    found = of_leaf(leaf)
    assert found.loss is None and found.details == {"correct": 3, "total": 4}
    assert (found.low, found.high) == wilson_interval(3, 4)


_NORMED = """
from torch import nn

def normed(classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, classes))
"""


def test_a_run_that_counted_no_integers_keeps_its_range_of_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "normed_network.py").write_text(_NORMED)
    monkeypatch.syspath_prepend(tmp_path)
    config = parse_config({"name": "r", "model": "normed_network:normed", "data": "digits", "genes": {}})
    now = prepare(config)
    assert now.header["network"]["float32_bytes"] == 4 * now.header["network"]["parameters"] + 8
    stored = {"network": now.header["network"] | {"float32_bytes": 4 * now.header["network"]["parameters"]}}
    before = counted_as_before(now, stored)
    assert before.header["network"] == stored["network"]
    assert before.settings.bytes_range[1] < now.settings.bytes_range[1]
    assert counted_as_before(now, now.header) is now and counted_as_before(now, {}) is now

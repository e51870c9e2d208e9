"""`export` and `open_run`: the table has what was recorded, every column is explained, and files load."""

from __future__ import annotations

import csv
import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from commands import invoke_caught
from synthetic_run import content, synthetic_run, write_synthetic_run

import evocompress
from evocompress import Recipe
from evocompress.errors import ConfigError, EvocompressError, ModelError, RunError
from evocompress.evolve.seeding import Seeds
from evocompress.extensions import EXPORTERS
from evocompress.packer.job import PackResult
from evocompress.runs.export import ReadLeaf
from evocompress.runs.file_exporter import FileExporter
from evocompress.runs.leaf_table import COLUMNS, flat_rows, meaning_of, write_table
from evocompress.search.history import History, read_history
from evocompress.training.cycle import Compressed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_synthetic_run(tmp_path / "run", synthetic_run(30))
    return tmp_path / "run"


def test_a_row_for_each_leaf_with_its_genes_layers_and_times(folder: Path) -> None:
    history = read_history(folder)
    rows = flat_rows(history)
    without = [outcome for outcome in history.outcomes if not outcome.leaves]
    assert len(rows) == len(history.leaves) + len(without) and without
    assert all(row.keys() == rows[0].keys() for row in rows)
    for row in rows:
        if row["leaf_id"] is None:
            assert row["status"] != "ok" and row["bytes"] is None
            continue
        leaf = history.leaves[row["leaf_id"]]
        genes = {name.removeprefix("gene."): value for name, value in row.items() if name.startswith("gene.")}
        assert {name: genes[name] for name in leaf.genome} == leaf.genome
        layers = {name: value for name, value in row.items() if name.startswith("layer.") and value is not None}
        assert sum(layers.values()) + row["header_bytes"] == pytest.approx(leaf.nbytes, abs=1)
        assert row["started"].tzinfo is datetime.UTC and row["started"] <= row["finished"]
    assert all(meaning_of(name).endswith(".") for name in rows[0])


def test_csv_and_parquet_hold_the_same(folder: Path) -> None:
    for kind in ("csv", "parquet"):
        result = invoke_caught("export", folder, "--to", kind)
        assert result.exit_code == 0, result.output
    rows = flat_rows(read_history(folder))
    with open(folder / "export" / "leaves.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    table = pyarrow.parquet.read_table(folder / "export" / "leaves.parquet")
    assert len(lines) == table.num_rows == len(rows) and table.column_names == list(lines[0])
    assert [line["bytes"] for line in lines] == ["" if row["bytes"] is None else str(row["bytes"]) for row in rows]
    assert table.column("quality").to_pylist() == [row["quality"] for row in rows]
    assert lines[0]["started"] == rows[0]["started"].isoformat(timespec="milliseconds")
    meanings = json.loads(table.schema.metadata[b"columns"])
    assert meanings.keys() == rows[0].keys()
    printed = invoke_caught("export", folder, "--columns").output
    assert all(f"{name}: {meaning_of(name)}" in printed for name in COLUMNS)


def test_genes_of_several_kinds_and_a_run_without_outcomes_can_be_written(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"leaf_id": str(value), "gene.x": value} for value in (1, "one", None)]
    write_table(rows, tmp_path / "mixed.parquet")
    assert pyarrow.parquet.read_table(tmp_path / "mixed.parquet")["gene.x"].to_pylist() == ["1", "one", None]
    write_table([], tmp_path / "none.csv")
    assert (tmp_path / "none.csv").read_text().strip() == ",".join(COLUMNS)


def test_a_study_in_sqlite(folder: Path, tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    result = invoke_caught("export", folder, "--to", "optuna", "-o", tmp_path / "run.db")
    assert result.exit_code == 0, result.output
    (name,) = optuna.get_all_study_names(f"sqlite:///{tmp_path / 'run.db'}")
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{tmp_path / 'run.db'}")
    history = read_history(folder)
    assert sorted(trial.values[0] for trial in study.trials if trial.values) == sorted(
        float(leaf.nbytes) for leaf in history.leaves.values()
    )
    again = invoke_caught("export", folder, "--to", "optuna", "-o", tmp_path / "run.db")
    assert isinstance(again.exception, EvocompressError) and "not written over" in str(again.exception)
    wrong = invoke_caught("export", folder, "--to", "parquet", "-o", tmp_path / "run.csv")
    assert "ends with .parquet" in str(wrong.exception)


def test_any_exporter_is_found_by_its_name(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sizes(history: History, place: Path, read_leaf: ReadLeaf) -> list[Path]:
        (place / "sizes.txt").write_text(" ".join(str(leaf.nbytes) for leaf in history.archive))
        return [place / "sizes.txt"]

    monkeypatch.setitem(EXPORTERS._loaded, "sizes", sizes)
    monkeypatch.setitem(EXPORTERS._builtin, "sizes", "math:pi")
    printed = invoke_caught("export", folder, "--to", "sizes").output
    assert printed.split() == [str(folder / "export" / "sizes.txt")] and (folder / "export" / "sizes.txt").is_file()
    invoke_caught("export", folder, "--to", "picture", "-o", tmp_path / "front.png")
    assert (tmp_path / "front.png").is_file()
    elsewhere = invoke_caught("export", folder, "--to", "sizes", "-o", tmp_path / "sizes.txt")
    assert isinstance(elsewhere.exception, ConfigError) and "leave this out" in str(elsewhere.exception)

    def broken(history: History, place: Path, read_leaf: ReadLeaf) -> list[Path]:
        raise KeyError("colour")

    def broken_too(history: History, path: Path) -> None:
        raise KeyError("colour")

    for exporter in (broken, FileExporter("sizes.txt", broken_too)):
        monkeypatch.setitem(EXPORTERS._loaded, "sizes", exporter)
        failed = invoke_caught("export", folder, "--to", "sizes").exception
        assert isinstance(failed, RunError) and "the exporter 'sizes' failed: KeyError: 'colour'" in str(failed)
    unknown = invoke_caught("export", folder, "--to", "parket")
    assert isinstance(unknown.exception, ConfigError) and "Did you mean 'parquet'" in str(unknown.exception)
    assert "evocompress.open_run(RUN).dataframe()" in str(
        invoke_caught("export", folder, "--to", "dataframe").exception
    )


def test_a_run_for_notebooks(folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    run = evocompress.open_run(folder)
    points = run.front()
    assert [point.nbytes for point in points] == sorted(point.nbytes for point in points)
    frame = run.dataframe()
    assert isinstance(frame, pandas.DataFrame) and len(frame) == len(run.rows())
    assert min(frame["bytes"].dropna().tolist()) == min(leaf.nbytes for leaf in run.history.leaves.values())
    leaf = run.leaf(points[0].leaf_id)
    assert leaf.read() == content(leaf.record)
    with pytest.raises(RunError, match="ids are such as"):
        run.leaf("nothing")
    (folder / leaf.record.path).unlink()
    with pytest.raises(RunError, match="is gone"):
        leaf.read()


def test_what_a_notebook_prints_is_short(folder: Path) -> None:
    run = evocompress.open_run(folder)
    history, points = run.history, run.front()
    assert repr(run) == f"<OpenedRun {folder}: {len(history.outcomes)} segments, front of {len(points)} files>"
    assert repr(history) == f"<History {folder}: segments {len(history.outcomes)}, files {len(history.leaves)}>"
    leaf = run.leaf(points[0].leaf_id)
    assert repr(leaf).startswith(f"<OpenedLeaf {points[0].leaf_id}: ") and "accuracy" in repr(leaf)
    data = bytes(10_000)
    made = [PackResult(data, 1e-4), Compressed(data, Recipe(1e-4), 0.9, 0.9), Seeds("run", ((leaf.record, data),), 3)]
    for thing in (run, history, leaf, leaf.record, points[0], *made):
        assert len(repr(thing)) < 1000, type(thing)
    assert "genome" not in repr(points[0]) and "measurements" not in repr(leaf.record)


def test_a_leaf_goes_into_a_module(folder: Path) -> None:
    run = evocompress.open_run(folder)
    leaf, model = run.leaf(run.front()[0].leaf_id), torch.nn.Linear(3, 2)
    state = {name: torch.ones_like(tensor) for name, tensor in model.state_dict().items()}
    (folder / leaf.record.path).write_bytes(evocompress.pack(state, 1e-9))
    assert leaf.load(model) is model and bool((model.weight - 1).abs().max() < 1e-3)
    with pytest.raises(ModelError):
        leaf.load(torch.nn.Linear(4, 2))
    with pytest.raises(EvocompressError, match="max_output_bytes"):
        leaf.load(torch.nn.Linear(3, 2), max_output_bytes=8)

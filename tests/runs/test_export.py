"""Export of a run: front files, tables, pictures, an Optuna study; and the comparison of fronts."""

import csv
import dataclasses
import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import optuna
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from PIL import Image
from synthetic_run import MadeRun, content, synthetic_run, write_synthetic_run

from evocompress.errors import EvocompressError, RunError
from evocompress.runs.comparison import attainment, bd_rate, steps
from evocompress.runs.export import (
    FRONT_COLUMNS,
    check_libraries,
    export_run,
    segment_rows,
    to_optuna,
    write_segments_parquet,
)
from evocompress.runs.front import front, in_view
from evocompress.runs.front_figure import compare_figure, front_figure, write_front_png
from evocompress.search.history import read_history
from evocompress.search.quality import Quality
from evocompress.search.records import Leaf, genome_hash
from evocompress.support.atomic_files import replacing, write_bytes


def test_export_of_a_run_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    made = synthetic_run(40)
    write_synthetic_run(folder, made)
    history = read_history(folder)
    assert [leaf.leaf_id for leaf in history.archive] == [leaf.leaf_id for leaf in made.archive]
    export = export_run(history, folder, lambda leaf: (folder / leaf.path).read_bytes())
    points = front(history)
    with export.front_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:5] == ["file", "bytes", "quality", "validation_quality", "ratio"]
    assert tuple(rows[0]) == FRONT_COLUMNS and len(rows) == len(points) >= 5
    for row, point in zip(rows, points, strict=True):
        data = (folder / row["file"]).read_bytes()
        assert len(data) == int(row["bytes"]) == point.nbytes
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        assert float(row["quality"]) == pytest.approx(point.quality, abs=1e-6)
        assert row["quality_name"] == "accuracy" and float(row["error"]) == pytest.approx(1 - point.quality, abs=1e-6)
        assert json.loads(row["genome"]) == point.genome
    assert {path.name for path in (folder / "export").iterdir()} >= {
        "front", "front.csv", "front.png", "report.html", "segments.parquet"
    }  # fmt: skip
    assert {path.name for path in (folder / "export/front").iterdir()} == {point.file for point in points}


def test_second_export_removes_the_files_of_the_first(tmp_path: Path) -> None:
    export_run(synthetic_run(10), tmp_path, content)
    later = export_run(synthetic_run(80), tmp_path, content)
    assert set((tmp_path / "export/front").iterdir()) == set(later.front_files)


def test_export_refuses_bytes_that_were_not_evaluated(tmp_path: Path) -> None:
    def flipped(leaf: Leaf) -> bytes:
        data = content(leaf)
        return bytes([data[0] ^ 1]) + data[1:]

    with pytest.raises(RunError, match="not the one that was evaluated"):
        export_run(synthetic_run(10), tmp_path, flipped)
    with pytest.raises(RunError, match="not the one that was evaluated"):
        export_run(synthetic_run(10), tmp_path, lambda leaf: content(leaf)[:-1])
    assert not (tmp_path / "export/front.csv").exists()


@pytest.mark.parametrize("library", ["matplotlib", "pyarrow", "plotly"])
def test_what_cannot_be_drawn_keeps_the_front_from_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: str
) -> None:
    modules = {"matplotlib": ["evocompress.runs.front_figure", "evocompress.support.figure_style"]}
    for name in [*sys.modules]:
        if name.partition(".")[0] == library or name in modules.get(library, ()):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(EvocompressError, match=rf"'{library}'.*evocompress\[report\]") as failure:
        check_libraries()
    assert "\n" not in str(failure.value)
    history = synthetic_run(10)
    export = export_run(history, tmp_path, content)
    assert export.missing and export.problems and not any(path.exists() for path in export.missing)
    assert export.front_csv in export.written and all(path.exists() for path in (*export.written, *export.front_files))
    assert len(export.front_files) == len(front(history)) > 0
    assert all(library in problem and "\n" not in problem for problem in export.problems)


def test_libraries_that_are_there_are_no_reason_to_stop() -> None:
    check_libraries()


def test_export_of_an_empty_run(tmp_path: Path) -> None:
    export = export_run(synthetic_run(0, reference=False), tmp_path, content)
    assert export.front_csv.read_text() == ",".join(FRONT_COLUMNS) + "\n"
    assert pq.read_table(export.segments_parquet).num_rows == 0


def test_replacing_is_whole_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_bytes(path, b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_segment_rows_have_everything(tmp_path: Path) -> None:
    history = synthetic_run(40)
    path = tmp_path / "segments.parquet"
    write_segments_parquet(history, path)
    table = pq.read_table(path)
    rows = table.to_pylist()
    assert set(table.column_names) == {key for row in segment_rows(history) for key in row}
    failed = [outcome for outcome in history.outcomes if not outcome.leaves]
    assert failed and len(rows) == len(history.leaves) + len(failed)
    by_leaf = {row["leaf_id"]: row for row in rows if row["leaf_id"]}
    for leaf in history.leaves.values():
        row, task = by_leaf[leaf.leaf_id], history.tasks[history.segment_of[leaf.leaf_id]]
        assert row["bytes"] == leaf.nbytes and row["genome_hash"] == genome_hash(leaf.genome)
        assert row["parent_sha256"] == " ".join(parent.sha256 for parent in task.parents)
        assert row["parent_weights_sha256"] == " ".join(parent.weights_sha256 for parent in task.parents)
        assert sum(item["payload_bytes"] + item["side_bytes"] for item in row["layers"]) + row[
            "header_bytes"
        ] == pytest.approx(leaf.nbytes)
        assert len(row["train_loss"]) == task.genome["epochs"]
        assert row["in_archive"] == (leaf in history.archive) == (row["audited_quality"] is not None)
    for row in rows:
        assert row["git_revision"] == history.run["git_revision"] and row["data_sha256"] == "ab" * 32
        assert (row["status"] == "ok") == (row["leaf_id"] is not None) == (not row["diverged"])
        assert row["status"] == "ok" or "nan" in row["error"]
    told = {outcome.segment_id: line for outcome, line in zip(history.outcomes, history.told, strict=True)}
    accepted = {row["leaf_id"] for row in rows if row["accepted"]}
    assert accepted == {leaf_id for line in told.values() for leaf_id in line["accepted"]}


def test_completion_is_the_journals() -> None:
    history = synthetic_run(5, 1)
    lines = history.events("finished")
    for record in history.records:
        if record["type"] == "finished":
            record["completion"] = len(lines) - 1 - record["completion"]
    assert [row["completion"] for row in segment_rows(history)] == [4, 3, 2, 1, 0]


def test_optuna_study() -> None:
    history = synthetic_run(40)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = to_optuna(history, study_name="made up")
    failed = [outcome for outcome in history.outcomes if not outcome.leaves]
    states = [trial.state for trial in study.trials]
    assert states.count(optuna.trial.TrialState.COMPLETE) == len(history.leaves)
    assert states.count(optuna.trial.TrialState.FAIL) == len(failed) > 0
    best = {trial.user_attrs["leaf_id"] for trial in study.best_trials}
    assert {leaf.leaf_id for leaf in history.archive} <= best
    trial = next(trial for trial in study.trials if trial.user_attrs.get("leaf_id") == history.archive[0].leaf_id)
    assert trial.params == history.archive[0].genome
    assert trial.values == [history.archive[0].nbytes, history.archive[0].quality]
    assert trial.user_attrs["audited_quality"] is not None
    learning_rate = trial.distributions["learning_rate"]
    assert isinstance(learning_rate, optuna.distributions.FloatDistribution) and learning_rate.log


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(EvocompressError, match=r"'optuna'.*evocompress\[optuna\]"):
        to_optuna(synthetic_run(1))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(EvocompressError, match=r"evocompress\[report\]"):
        write_segments_parquet(synthetic_run(1), tmp_path / "x.parquet")


def test_front_figure_shows_what_is_there() -> None:
    history = synthetic_run(120)
    points = front(history)
    axes = front_figure(history).axes[0]
    markers = [line for line in axes.lines if str(line.get_label()).startswith("front")]
    assert [np.asarray(line.get_xdata()).tolist() for line in markers] == [[point.nbytes for point in points]]
    assert len(np.asarray(axes.collections[0].get_offsets())) == len(history.leaves) - len(points)
    texts = [text.get_text() for text in axes.texts]
    assert any("knee" in text for text in texts) and any("uncompressed: 98.06 %" in text for text in texts)
    (left, _), (low, _) = axes.get_xlim(), axes.get_ylim()
    useful = [point for point in points if point.quality >= 0.5 * points[-1].quality]
    assert all(left <= point.nbytes and low <= 100 * point.low for point in useful)


def test_other_files_stand_beside_the_front() -> None:
    beside = {"by hand": [(3000, 0.8), (9000, 0.9)], "of $ others": [(4000, 0.85)]}
    axes = front_figure(synthetic_run(120), beside).axes[0]
    shown = {line.get_label(): line for line in axes.lines}
    assert np.asarray(shown["by hand"].get_xydata()).tolist() == [[3000, pytest.approx(80)], [9000, pytest.approx(90)]]
    assert shown["by hand"].get_color() != shown["of $ others"].get_color()
    assert axes.get_legend() is not None and axes.get_xlim()[1] > 9000


def test_files_that_guess_are_out_of_view_and_counted() -> None:
    history = synthetic_run(120, audited=False)
    guessing = dataclasses.replace(history.archive[0], nbytes=20, quality=0.1, error=0.9)
    history.leaves[guessing.leaf_id] = guessing
    history.archive[0] = guessing
    points, axes = front(history), front_figure(history).axes[0]
    assert axes.get_xlim()[0] > 20 and axes.get_ylim()[0] > 10
    hidden = sum(point.quality < 0.5 * points[-1].quality for point in points)
    assert any(text.get_text().startswith(f"{hidden} smaller file") for text in axes.texts)


def test_pictures_of_a_minimised_quality() -> None:
    quality = Quality(r"cost $\frac{ $", unit=r"$\m{ $", direction="minimise", digits=3)
    history = synthetic_run(120, quality=quality)
    points, axes = front(history), front_figure(history).axes[0]
    (low, high), shown = axes.get_ylim(), in_view(points, quality)
    assert 0 < len(points) - len(shown) < 3 and low < points[-1].low and shown[0].high < high < points[0].high
    texts = [text.get_text() for text in axes.texts]
    assert any(text.startswith("uncompressed: 0.058 $") for text in texts)
    assert any("above this view" in text for text in texts)
    assert axes.get_ylabel() == rf"{quality.name} in {quality.unit}, 95 % interval"
    others = {"a": history, "b $": synthetic_run(9, quality=quality, audited=False)}
    for figure in (front_figure(history), front_figure(others["b $"]), compare_figure(others)):
        figure.savefig(io.BytesIO())
    study = to_optuna(history)
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MINIMIZE"]
    assert {leaf.leaf_id for leaf in history.archive} <= {trial.user_attrs["leaf_id"] for trial in study.best_trials}


def of_experiment(name: str, seed: int) -> MadeRun:
    history = synthetic_run(30, seed=seed)
    history.run["config"] = {**history.run["config"], "model": name, "seed": seed}
    return history


def legend_of(figure: Figure) -> list[str]:
    figure.savefig(io.BytesIO())
    legend = figure.axes[0].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_compare_figure_has_a_front_per_run() -> None:
    runs = {f"run {seed}": of_experiment("cnn", seed) for seed in range(2)} | {"none": synthetic_run(0)}
    assert legend_of(compare_figure(runs)) == ["run 0", "run 1"]


def test_compare_figure_has_a_band_for_the_seeds_of_an_experiment_and_bd_rates() -> None:
    runs = {f"a {seed}": of_experiment("cnn", seed) for seed in range(3)}
    figure = compare_figure(runs)
    assert legend_of(figure) == ["a 0 and 2 more: median, middle half, all"]
    assert figure.get_supxlabel() == ""
    figure = compare_figure(runs | {"b": of_experiment("mlp", 5)})
    assert legend_of(figure) == ["a 0 and 2 more: median, middle half, all", "b"]
    groups = list(runs.values()), [of_experiment("mlp", 5)]

    def told(useful: bool) -> str:
        """What is said of the BD-rate where files of chance level are left out, or count."""
        quality = groups[1][0].quality
        chosen = [[in_view(front(run), quality) if useful else front(run) for run in group] for group in groups]
        return f"b: {bd_rate(*(attainment([steps(points, quality) for points in one]) for one in chosen)):+.1f} %"

    assert told(True) != told(False) and told(True) in figure.get_supxlabel()
    assert told(False) in compare_figure(runs | {"b": groups[1][0]}, chance_level=True).get_supxlabel()


@pytest.mark.parametrize("segments", [0, 1, 30])
def test_front_png_is_a_picture(tmp_path: Path, segments: int) -> None:
    history = synthetic_run(segments, 1, reference=segments > 1)
    history.run["network"]["name"] = r"cost $\frac{ 5$"  # somebody's text is no mathtext
    write_front_png(history, tmp_path / "front.png")
    with Image.open(tmp_path / "front.png") as picture:
        assert picture.format == "PNG" and picture.width > 1000
        assert len(set(picture.convert("L").resize((200, 120)).tobytes())) > 5


def test_leaf_without_measurements_is_exported(tmp_path: Path) -> None:
    history = synthetic_run(3, 1, audited=False)
    for leaf_id, leaf in list(history.leaves.items()):
        history.leaves[leaf_id] = dataclasses.replace(leaf, measurements={})
    history.archive[:] = [history.leaves[leaf.leaf_id] for leaf in history.archive]
    history.outcomes[:] = [
        dataclasses.replace(outcome, metrics={}, leaves=tuple(history.leaves[leaf.leaf_id] for leaf in outcome.leaves))
        for outcome in history.outcomes
    ]
    export = export_run(history, tmp_path, content)
    row = next(csv.DictReader(export.front_csv.read_text().splitlines()))
    assert row["total"] == "" and row["quality_low"] == row["quality_high"] == row["quality"]

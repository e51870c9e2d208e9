"""`front`: what fails is counted, limits that nothing meets are no success, runs on different data are not compared."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from synthetic_run import synthetic_run, write_synthetic_run
from toy_runs import open_toy
from typer.testing import CliRunner, Result

from evocompress.cli import app
from evocompress.errors import ConfigError, HopelessError
from evocompress.runs.comparison import bd_rate, steps
from evocompress.runs.export import write_front_csv
from evocompress.runs.front import KNEE, FrontPoint, front, in_view, knee
from evocompress.runs.report.payload import payload
from evocompress.search.history import read_history
from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.records import Outcome, SegmentTask
from evocompress.tasks.classification import ACCURACY


def invoke(*words: object) -> Result:
    return CliRunner().invoke(app, ["front", *(str(word) for word in words)])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_synthetic_run(tmp_path / "run", synthetic_run(30))
    return tmp_path / "run"


def test_segments_that_left_no_file_are_counted(run: Path, tmp_path: Path) -> None:
    failed = sum(outcome.status != "ok" for outcome in synthetic_run(30).outcomes)
    ended = f"{failed} of 30 segments left no file:\n  {failed} × diverged: loss is nan after epoch 1\n"
    assert failed and ended in invoke(run).output
    told = json.loads(invoke(run, "--json").output)[str(run)]
    assert (told["segments"], told["failed"]) == (30, failed)
    assert told["failures"] == [{"status": "diverged", "error": "loss is nan after epoch 1", "count": failed}]
    write_synthetic_run(tmp_path / "well", synthetic_run(30, failures=False))
    assert "left no file" not in invoke(tmp_path / "well").output


@dataclasses.dataclass(frozen=True)
class Failing:
    """A segment that cannot succeed."""

    def __call__(self, task: SegmentTask, folder: str, parent_files: Sequence[bytes]) -> Outcome:
        raise ValueError("no such kernel")


def test_a_run_that_was_given_up_has_no_file_and_says_why(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(HopelessError), open_toy(folder, give_up_after=4) as driven:
        driven.drive(InlineExecutor(Failing(), driven.storage))
    shown = invoke(folder)
    reasons = "4 of 4 segments left no file:\n  4 × failed: ValueError: no such kernel\n"
    assert shown.exit_code == 0 and shown.output == f"{folder}: no file yet\n{reasons}\n"
    twice = invoke(folder, folder).output
    assert twice.startswith(shown.output) and f"{folder} is given more than once, and is shown once" in twice
    assert json.loads(invoke(folder, "--json").output)[str(folder)] == {
        "front": [],
        "segments": 4,
        "failed": 4,
        "failures": [{"status": "failed", "error": "ValueError: no such kernel", "count": 4}],
    }
    page = payload(read_history(folder))["segments"]
    assert page["statuses"] == {"failed": 4} and page["failures"][0]["segments"] == [1, 2, 3, 4]


def test_details_and_genome_are_objects_in_json_and_texts_in_a_table(run: Path, tmp_path: Path) -> None:
    points = front(synthetic_run(30))
    rows = json.loads(invoke(run, "--json").output)[str(run)]["front"]
    assert [row["genome"] for row in rows] == [point.genome for point in points]
    assert [row["details"] for row in rows] == [point.details for point in points]
    write_front_csv(points, tmp_path / "front.csv", ACCURACY)
    with (tmp_path / "front.csv").open(newline="") as lines:
        assert [json.loads(row["genome"]) for row in csv.DictReader(lines)] == [point.genome for point in points]


@pytest.mark.parametrize("limit", [("--under", "1"), ("--above", "0.99999"), ("--under", "1", "--above", "0.5")])
def test_limits_that_nothing_meets_are_no_success(run: Path, limit: tuple[str, ...]) -> None:
    result = invoke(run, *limit)
    assert result.exit_code == 3 and "no file of the front meets this" in result.output
    points = front(synthetic_run(30))
    nearest = points[0] if limit[0] == "--under" else min(points, key=lambda point: point.error)
    kind = "smallest" if limit[0] == "--under" else "best"
    assert f"this. The {kind}: {nearest.file}, " in result.output
    if limit[0] == "--above":
        size = str(points[0].nbytes)
        assert f"The best of that size: {points[0].file}, " in invoke(run, *limit, "--under", size).output
    assert invoke(run, *limit, "--json").exit_code == 3
    assert invoke(run, "--under", "1GB").exit_code == 0


def test_runs_on_different_data_are_compared_only_when_told(run: Path, tmp_path: Path) -> None:
    write_synthetic_run(tmp_path / "other", synthetic_run(30, seed=1))
    stored = json.loads((tmp_path / "other" / "run.json").read_text())
    stored["data"] = {**stored.get("data", {}), "sha256": "of another split"}
    (tmp_path / "other" / "run.json").write_text(json.dumps(stored))
    assert "Compared" in invoke(run, tmp_path / "other").output
    stored["config"] = {**stored.get("config", {}), "data": "of another kind"}
    (tmp_path / "other" / "run.json").write_text(json.dumps(stored))
    refused = invoke(run, tmp_path / "other")
    assert isinstance(refused.exception, ConfigError) and "--different-data" in str(refused.exception)
    assert "Compared" in invoke(run, tmp_path / "other", "--different-data").output


def test_the_knee_is_that_of_the_whole_front_whatever_is_asked_for(run: Path) -> None:
    points = front(synthetic_run(30))
    bend = knee(points, ACCURACY)
    assert bend is not None

    def marked(*limits: object) -> list[str]:
        return [line.split()[1] for line in invoke(run, *limits).output.splitlines() if line.startswith("* ")]

    assert marked() == marked("--under", bend.nbytes) == [str(bend.nbytes)]
    assert marked("--under", bend.nbytes - 1) == []
    assert KNEE in invoke(run).output and KNEE not in invoke(run, "--under", bend.nbytes - 1).output


def test_files_of_chance_level_are_left_out_of_the_table_and_counted(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_synthetic_run(run, synthetic_run(30, seed=5))
    points = front(synthetic_run(30, seed=5))
    useful = in_view(points, ACCURACY)
    assert 0 < len(useful) < len(points)

    def rows(*words: object) -> list[int]:
        lines = [line.removeprefix("*").split() for line in invoke(run, *words).output.splitlines()]
        sizes = {point.nbytes for point in points}
        return [int(line[0]) for line in lines if line and line[0].isdigit() and int(line[0]) in sizes]

    assert rows() == [point.nbytes for point in useful]
    assert "2 files of chance level are left out; --all shows them" in invoke(run).output
    assert rows("--all") == [point.nbytes for point in points] and "left out" not in invoke(run, "--all").output
    assert rows("--under", points[0].nbytes) == [points[0].nbytes]
    assert len(json.loads(invoke(run, "--json").output)[str(run)]["front"]) == len(points)


def test_files_of_chance_level_do_not_count_where_runs_are_compared(run: Path, tmp_path: Path) -> None:
    write_synthetic_run(tmp_path / "other", synthetic_run(30, seed=5))
    fronts = [front(synthetic_run(30)), front(synthetic_run(30, seed=5))]

    def row(*words: object) -> list[str]:
        lines = invoke(run, tmp_path / "other", *words).output.partition("Compared")[2].splitlines()
        return next(line for line in lines if line.startswith(str(tmp_path / "other"))).split()[1:]

    def expected(chosen: Sequence[Sequence[FrontPoint]]) -> list[str]:
        rate = bd_rate(*(steps(points, ACCURACY) for points in chosen))
        return [str(len(chosen[1])), str(chosen[1][0].nbytes), f"{rate:+.1f}"]

    useful = [in_view(points, ACCURACY) for points in fronts]
    hidden = sum(map(len, fronts)) - sum(map(len, useful))
    for words, chosen in (((), useful), (("--all",), fronts)):
        shown = row(*words)
        assert [*shown[:2], shown[-2]] == expected(chosen)
    assert expected(useful)[1:] != expected(fronts)[1:]
    note = f"{hidden} files of chance level are left out of the comparison; --all lets them count"
    assert note in invoke(run, tmp_path / "other").output and note not in invoke(run, run, "--all").output
    tiny = invoke(run, tmp_path / "other", "--under", fronts[1][0].nbytes).output  # nothing is left to compare
    assert "no common range" in tiny


def test_seeds_of_an_experiment_are_compared_as_one(run: Path, tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        history = synthetic_run(30, seed=seed)
        history.run["config"] = {**history.run["config"], "seed": seed, **({"model": "mlp"} if seed == 3 else {})}
        write_synthetic_run(tmp_path / f"seed{seed}", history)
    same = invoke(run, tmp_path / "seed1", tmp_path / "seed2").output
    assert "and 2 more, which differ in their seeds" in same and "BD-rate of the column" not in same
    others = invoke(run, tmp_path / "seed1", tmp_path / "seed2", tmp_path / "seed3").output
    assert "median accuracy" in others and "BD-rate of the column against the row" in others
    assert "Attained by" not in invoke(run, tmp_path / "seed1").output

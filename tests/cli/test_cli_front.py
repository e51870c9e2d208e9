"""`front`: what fails is counted, limits that nothing meets are no success, runs on different data are not compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from synthetic_run import synthetic_run, write_synthetic_run
from typer.testing import CliRunner, Result

from evocompress.cli import app
from evocompress.errors import ConfigError
from evocompress.runs.front import KNEE, front, in_view, knee
from evocompress.tasks.classification import ACCURACY


def invoke(*words: object) -> Result:
    return CliRunner().invoke(app, ["front", *(str(word) for word in words)])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_synthetic_run(tmp_path / "run", synthetic_run(30))
    return tmp_path / "run"


def test_segments_that_left_no_file_are_counted(run: Path, tmp_path: Path) -> None:
    failed = sum(outcome.status != "ok" for outcome in synthetic_run(30).outcomes)
    assert failed and f"{failed} of 30 segments left no file: " in invoke(run).output
    write_synthetic_run(tmp_path / "well", synthetic_run(30, failures=False))
    assert "left no file" not in invoke(tmp_path / "well").output


@pytest.mark.parametrize("limit", [("--under", "1"), ("--above", "0.99999"), ("--under", "1", "--above", "0.5")])
def test_limits_that_nothing_meets_are_no_success(run: Path, limit: tuple[str, ...]) -> None:
    result = invoke(run, *limit)
    assert result.exit_code == 3 and "no file of the front meets this" in result.output
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
    assert len(json.loads(invoke(run, "--json").output)[str(run)]) == len(points)


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

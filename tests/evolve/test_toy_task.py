"""A task whose quality is minimised, from its name in a configuration to the front, the report and a resume."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from synthetic_run import synthetic_run, write_synthetic_run
from toy_task import DigitError
from typer.testing import CliRunner

from evocompress.checkpoint.loading import load_state
from evocompress.checkpoint.packing import unpack
from evocompress.cli import app
from evocompress.errors import ConfigError, ModelError, RunError
from evocompress.evolve.config import Config, parse_config
from evocompress.evolve.driver import config_of_run, prepare, run_experiment
from evocompress.runs.front import front, knee, reference
from evocompress.search.events import Finished
from evocompress.search.history import read_history
from evocompress.tasks.measure import measure

pytestmark = pytest.mark.slow

TOY: dict[str, Any] = {
    "name": "toy",
    "model": "digits_cnn",
    "model_options": {"width": 8},
    "data": "digits",
    "task": "toy_task:DigitError",
    "reference_epochs": 2,
    "search": {
        "segments": 6, "initial": 3, "probes": 2, "deterministic": True, "lag": 2, "error_range": [0.0, 3.0],
    },
    "genes": {
        "epochs": 2, "rate_weight": [0.03, 3.0], "sensitivity": ["none"], "learning_rate": 3e-3, "l1": 0.0,
        "weight_decay": 0.0, "noise": 0.0, "projection": ["free"],
    },
    "resources": {"executor": "inline"},
}  # fmt: skip


def toy(**changes: Any) -> Config:
    return parse_config({**TOY, **changes})


class StopsAfter:
    """Sends what Ctrl-C sends once so many segments are finished."""

    left = 3

    def __call__(self, event: object) -> None:
        self.left -= isinstance(event, Finished)
        if isinstance(event, Finished) and self.left == 0:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "toy"
    assert run_experiment(toy(), folder).finished
    return folder


def test_the_front_is_ranked_by_the_tasks_error(finished: Path) -> None:
    history = read_history(finished)
    assert history.quality == DigitError.quality and history.run["quality"]["name"] == "RMSE"
    points = front(history)
    assert len(points) >= 2 and all(point.audited for point in points)
    for smaller, larger in zip(points, points[1:], strict=False):
        assert smaller.nbytes < larger.nbytes and smaller.quality > larger.quality
    splits, model = prepare(toy()).segment.experiment.splits(), prepare(toy()).segment.experiment.network()
    for point in points:
        assert point.quality == point.error and point.low < point.quality < point.high
        load_state(model, unpack(history.storage.read(point.path), names=model.state_dict()), point.path)
        measured = measure(DigitError(), model, splits.audit)
        assert measured.value == pytest.approx(point.quality) and measured.details["worst"] == point.details["worst"]
        assert point.file == f"{point.nbytes:06d}B_{point.quality:.3f}.evc"
    line = reference(history)
    assert line is not None and line.quality < 3.0
    assert knee(points, history.quality) in (None, *points[1:-1])
    leaf = history.archive[0]
    assert {"quality_low", "quality_high", "loss", "total", "details"} <= set(leaf.measurements)


def test_everything_says_rmse(finished: Path) -> None:
    export, points = finished / "export", front(read_history(finished))
    report = (export / "report.html").read_text()
    before, _, data = report.partition('<script type="application/gzip" id="data">')
    page = before + gzip.decompress(base64.b64decode(data[: data.index("<")])).decode()[:2000]
    assert "RMSE" in page and "accura" not in page and "Smallest below" in page
    with (export / "front.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["quality_name"] for row in rows] == ["RMSE"] * len(points)
    assert [float(row["quality"]) for row in rows] == pytest.approx([point.quality for point in points])
    table = pq.read_table(export / "segments.parquet").to_pylist()
    assert {row["quality_name"] for row in table} == {"RMSE"} and all(row["loss"] >= 0 for row in table)


def said(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_the_command_line_asks_in_the_quality_own_way(finished: Path) -> None:
    points = front(read_history(finished))
    whole = said("front", finished)
    assert "RMSE" in whole and "accura" not in whole and f"{points[0].quality:.3f} steps" in whole
    level = f"{points[-1].quality + 1e-4} steps"
    for option in ("--above", "--below"):
        text = said("front", finished, option, level)
        assert f"smallest: {points[-1].file}" in text and points[0].file not in text
        rows = json.loads(said("front", finished, option, level, "--json"))[str(finished)]["front"]
        assert [row["bytes"] for row in rows] == [points[-1].nbytes]
    with pytest.raises(ConfigError, match=r"--below: RMSE='5 m' is not a number, with or without the unit steps"):
        said("front", finished, "--below", "5 m")
    with pytest.raises(ConfigError, match="ask for the same"):
        said("front", finished, "--below", "5", "--above", "5")


def test_runs_of_one_task_are_compared_and_of_two_are_not(finished: Path, tmp_path: Path) -> None:
    run_experiment(toy(seed=1, reference_epochs=0, search={**TOY["search"], "segments": 3}), tmp_path / "other")
    text = said("front", finished, tmp_path / "other", "--png", tmp_path / "both.png")
    assert "best RMSE" in text and (tmp_path / "both.png").stat().st_size > 1000
    write_synthetic_run(tmp_path / "classes", synthetic_run(6))
    with pytest.raises(ConfigError, match="measures RMSE and .* accuracy: they cannot be compared"):
        said("front", finished, tmp_path / "classes")


def test_stopped_and_resumed_it_ends_as_if_nothing_had_been(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    assert not run_experiment(toy(reference_packs=False), folder, observer=StopsAfter()).finished
    assert len(read_history(folder).outcomes) < 6
    assert run_experiment(config_of_run(folder), folder, resume=True).finished
    archives = [
        [(leaf.sha256, leaf.quality, leaf.error) for leaf in read_history(path).archive] for path in (folder, finished)
    ]
    assert archives[0] == archives[1]


def test_another_task_is_another_run(finished: Path) -> None:
    with pytest.raises(RunError, match="quality.direction was"):
        run_experiment(toy(task="classification"), finished, resume=True, override=True)


def test_a_network_that_does_not_fit_the_task_is_refused() -> None:
    with pytest.raises(ModelError, match=r"must return \(n, classes\)"):
        prepare(toy(model="torch.nn:Identity", model_options={}))
    with pytest.raises(ConfigError, match="task: is empty; give a name, or 'package.module:Class'"):
        toy(task=" ")


def test_a_quality_that_is_not_finite_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lost(DigitError):
        def meter(self) -> Any:
            meter = super().meter()
            meter.add = lambda outputs, targets: meter.squares.append(outputs[:, 0].double() * float("nan"))  # type: ignore[method-assign]
            return meter

    monkeypatch.setattr(sys.modules["toy_task"], "DigitError", Lost)
    run_experiment(toy(search={**TOY["search"], "segments": 1, "initial": 1}, reference_epochs=1), tmp_path / "run")
    history = read_history(tmp_path / "run")
    assert [outcome.status for outcome in history.outcomes] == ["diverged"]
    assert "no file has a finite RMSE" in history.outcomes[0].error
    assert history.events("reference")[0]["quality"] is None and reference(history) is None

"""Trackers: what they are given of a run, also after a kill, and what the built-in ones leave in real files."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from small_package import installed, write_package
from toy_runs import open_toy
from typer.testing import CliRunner

from evocompress.cli import app
from evocompress.errors import ConfigError, EvocompressError
from evocompress.extensions import Extensions
from evocompress.protocols import Said
from evocompress.runs.trackers import TrackedFront, TrackedRun, TrackedSegment, Trackers
from evocompress.search.attempt import run_attempt
from evocompress.search.events import Finished, Opened
from evocompress.search.history import read_history
from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.records import Outcome, SegmentTask
from evocompress.search.toy_segment import ToySegment

SETTINGS: dict[str, Any] = {"segments": 6, "initial": 3, "deterministic": False}


class Remembers:
    """A tracker that keeps what it is given; shared by all that are made, as a server would be."""

    given: list[Any] = []
    failing = 0

    def begin(self, run: TrackedRun) -> None:
        run.kept.setdefault("id", "first")
        self.given.append(run)

    def log(self, segment: TrackedSegment) -> None:
        if Remembers.failing:
            Remembers.failing -= 1
            raise OSError("the server is away")
        self.given.append(segment)

    def end(self, front: TrackedFront) -> None:
        self.given.append(front)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    some = Extensions("tracker", "evocompress.test_trackers", {"remembers": f"{__name__}:Remembers"})
    monkeypatch.setattr("evocompress.runs.trackers.observer.TRACKERS", some)
    monkeypatch.setattr(Remembers, "given", [])
    return Remembers.given


class Curved(ToySegment):
    """The toy, with a curve of training, of which a part is no number; the third fails."""

    def __call__(self, task: SegmentTask, folder: str, parent_files: Sequence[bytes]) -> Outcome:
        if task.index == 2:
            raise ValueError("no such kernel")
        outcome = super().__call__(task, folder, parent_files)
        outcome.metrics["curves"] = {"train_loss": [2.0, 1.0], "odd": [1.0, float("nan"), 2.0], "none": None}
        return outcome


def drive(
    folder: Path, names: Sequence[str], *, resume: bool = False, stop_after: int = 100, **options: Any
) -> list[Any]:
    """Drive a toy run and log it; what an observer beside the trackers hears."""
    heard: list[Any] = []

    def stop() -> bool:
        return sum(isinstance(event, Finished) for event in heard) >= stop_after

    with open_toy(folder, resume=resume, **SETTINGS) as run, Trackers(names, folder, heard.append, **options) as log:
        log(Opened("toy"))
        run.drive(InlineExecutor(Curved(), run.storage), observer=log, should_stop=stop)
    return heard


def kinds(given: list[Any], kind: type) -> list[Any]:
    return [item for item in given if isinstance(item, kind)]


def test_each_segment_the_curve_and_the_front(tmp_path: Path, given: list[Any]) -> None:
    heard = drive(tmp_path, ["remembers"])
    history, segments = read_history(tmp_path), kinds(given, TrackedSegment)
    assert [segment.segment_id for segment in segments] == [outcome.segment_id for outcome in history.outcomes]
    assert [segment.hypervolume for segment in segments] == list(history.hypervolumes)
    for segment in segments:
        task = history.tasks[segment.segment_id]
        assert segment.genome == task.genome and segment.parent == (task.parents[0].leaf_id if task.parents else "")
    assert segments[-1].parent
    failed = segments[2]
    assert (failed.number, failed.status, failed.error) == (3, "failed", "ValueError: no such kernel")
    assert "bytes" not in failed.numbers and failed.numbers["files"] == 0
    assert segments[0].curves == {"train_loss": [2.0, 1.0], "odd": [1.0]}
    assert segments[0].numbers["bytes"] == history.outcomes[0].leaves[0].nbytes
    begun, ended = given[0], given[-1]
    assert begun.name == tmp_path.name and ended.finished
    assert [row["bytes"] for row in ended.rows] == [leaf.nbytes for leaf in history.archive]
    assert sum(isinstance(event, Finished) for event in heard) == 6 and not kinds(heard, Said)


def test_a_resume_logs_what_is_missing_and_nothing_twice(tmp_path: Path, given: list[Any]) -> None:
    drive(tmp_path, ["remembers"], stop_after=2)
    assert not given[-1].finished
    with open_toy(tmp_path, resume=True, **SETTINGS) as run:  # a driver without trackers
        task = run.search.ask()
        assert task is not None
        run.submitted([(task, False)])
        run_attempt(Curved(), task, run.storage)  # and one segment that was stored when it was killed
    drive(tmp_path, ["remembers"], resume=True)
    logged = [segment.segment_id for segment in kinds(given, TrackedSegment)]
    assert logged == [outcome.segment_id for outcome in read_history(tmp_path).outcomes]
    assert [run.kept for run in kinds(given, TrackedRun)] == [{"id": "first"}] * 2
    assert json.loads((tmp_path / "trackers" / "remembers.json").read_bytes())["logged"] == len(logged)


def test_a_run_of_before_is_logged_from_its_beginning(tmp_path: Path, given: list[Any]) -> None:
    with open_toy(tmp_path, **SETTINGS) as run:
        run.drive(InlineExecutor(Curved(), run.storage), should_stop=lambda: run.completions >= 3)
    drive(tmp_path, ["remembers"], resume=True)
    assert [segment.completion for segment in kinds(given, TrackedSegment)] == list(range(6))


def test_what_a_tracker_cannot_do_is_said_once_and_tried_again(
    tmp_path: Path, given: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Remembers, "failing", 1)
    heard = drive(tmp_path / "a", ["remembers"])
    (said,) = kinds(heard, Said)
    assert (said.text, said.level) == ("tracker remembers: OSError: the server is away; it is tried again", "warning")
    assert [segment.completion for segment in kinds(given, TrackedSegment)] == list(range(6))

    monkeypatch.setattr(Remembers, "failing", 1000)
    heard = drive(tmp_path / "b", ["remembers"])
    assert kinds(heard, Said)[-1].text == "tracker remembers: 6 segments could not be logged; a resume logs them"
    assert len(read_history(tmp_path / "b").outcomes) == 6


def test_a_run_that_never_began_is_not_logged(tmp_path: Path, given: list[Any]) -> None:
    with pytest.raises(ConfigError), Trackers(["remembers"], tmp_path / "none"):
        raise ConfigError("a mistake")
    assert not given and not (tmp_path / "none").exists()


def test_names_that_there_are_not(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tracker 'tensorbord' is unknown. Did you mean 'tensorboard'?"):
        Trackers(["tensorbord"], tmp_path)


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_library_that_is_missing(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(EvocompressError, match=rf"pip install 'evocompress\[{name}\]'"):
        Trackers([name], tmp_path)


SOURCE = """
class Lines:
    def begin(self, run):
        self.path = run.folder / "lines.txt"
    def log(self, segment):
        with self.path.open("a") as file:
            print(segment.number, segment.parent or "-", file=file)
    def end(self, front):
        with self.path.open("a") as file:
            print(len(front.rows), file=file)
"""


def test_a_tracker_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_package(tmp_path / "site", "lines", {"lines": SOURCE}, {"evocompress.trackers": {"lines": "lines:Lines"}})
    with installed(tmp_path / "site", monkeypatch):
        drive(tmp_path / "run", ["lines"])
    lines = (tmp_path / "run" / "lines.txt").read_text().splitlines()
    assert len(lines) == 7 and lines[0] == "1 -" and int(lines[-1]) == len(read_history(tmp_path / "run").archive)


# ---- the built-in ones, in their own files -------------------------------------------------------------------------


def needs(library: str) -> pytest.MarkDecorator:
    there = importlib.util.find_spec(library) is not None
    return pytest.mark.skipif(not there, reason=f"{library} is not installed: extra of that name, not in the lock")


@needs("tensorboard")
@pytest.mark.filterwarnings("ignore")  # of libraries that are not in the lock
def test_event_files_of_tensorboard(tmp_path: Path) -> None:
    files = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")

    drive(tmp_path, ["tensorboard"], stop_after=4)
    heard = drive(tmp_path, ["tensorboard"], resume=True)
    assert not kinds(heard, Said)
    history = read_history(tmp_path)
    search = files.EventAccumulator(str(tmp_path / "tensorboard" / "search")).Reload()
    curve = {event.step: event.value for event in search.Scalars("hypervolume")}
    assert curve == pytest.approx(dict(enumerate(history.hypervolumes)), rel=1e-6)
    shown = search.Tensors("front/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert all(f"| {leaf.nbytes} |" in shown for leaf in history.archive)
    for outcome in history.outcomes:
        task = history.tasks[outcome.segment_id]
        segment = files.EventAccumulator(str(tmp_path / "tensorboard" / "segments" / f"{task.index + 1:06d}")).Reload()
        tags = segment.Tags()
        if outcome.status == "ok":
            assert [event.value for event in segment.Scalars("train_loss")] == [2.0, 1.0]
            assert segment.Scalars("segment/bytes")[0].value == outcome.leaves[0].nbytes
        else:
            assert "no such kernel" in str(segment.Tensors("error/text_summary")[0].tensor_proto.string_val[0])
        assert ("parent/text_summary" in tags["tensors"]) == bool(task.parents)
        assert "_hparams_/session_start_info" in segment.summary_metadata


@needs("mlflow")
@pytest.mark.filterwarnings("ignore")
def test_a_file_store_of_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    drive(tmp_path / "run", ["mlflow"], stop_after=4)
    (tmp_path / "run" / "export").mkdir()
    (tmp_path / "run" / "export" / "front.csv").write_text("file\n")
    heard = drive(tmp_path / "run", ["mlflow"], resume=True)
    assert not kinds(heard, Said)
    history, client = (
        read_history(tmp_path / "run"),
        importlib.import_module("mlflow").MlflowClient((tmp_path / "mlruns").as_uri()),
    )
    experiment = client.get_experiment_by_name("run")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (search,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert search.info.status == "FINISHED"
    curve = {point.step: point.value for point in client.get_metric_history(search.info.run_id, "hypervolume")}
    assert curve == pytest.approx(dict(enumerate(history.hypervolumes)))
    assert {item.path for item in client.list_artifacts(search.info.run_id)} == {"export", "front.json"}
    segments = {run.data.tags["segment_id"]: run for run in runs if run is not search}
    assert len(runs) == 1 + len(history.outcomes) == 1 + len(segments)
    for outcome in history.outcomes:
        run, task = segments[outcome.segment_id], history.tasks[outcome.segment_id]
        assert run.data.tags["mlflow.parentRunId"] == search.info.run_id
        assert run.data.params == {name: str(value) for name, value in task.genome.items()}
        assert run.data.tags.get("parent", "") == (task.parents[0].leaf_id if task.parents else "")
        assert run.info.status == ("FINISHED" if outcome.status == "ok" else "FAILED")
        if outcome.leaves:
            assert run.data.metrics["bytes"] == outcome.leaves[0].nbytes and run.data.metrics["train_loss"] == 1.0


@needs("wandb")
@pytest.mark.filterwarnings("ignore")
def test_runs_of_wandb_without_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WANDB_MODE", "offline"), ("WANDB_SILENT", "true"), ("WANDB_DIR", str(tmp_path))):
        monkeypatch.setenv(name, value)
    heard = drive(tmp_path / "run", ["wandb"])
    assert not kinds(heard, Said)
    made = [path for path in (tmp_path / "run" / "wandb").glob("offline-run-*") if list(path.glob("*.wandb"))]
    assert len(made) == 7  # six segments and the search


def test_the_command_logs_and_is_quiet(tmp_path: Path, given: list[Any]) -> None:
    (tmp_path / "small.toml").write_text(
        'model = "digits_cnn"\ndata = "digits"\nreference_epochs = 0\n[model_options]\nwidth = 4\n'
        "[search]\nsegments = 1\ninitial = 1\nprobes = 0\n[genes]\nepochs = 1\n[resources]\nexecutor = 'inline'\n"
    )
    words = ["run", tmp_path / "small.toml", "--out", tmp_path / "run", "--log", "remembers", "--quiet"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert (done.exit_code, done.output) == (0, "")
    begun, segment, ended = given
    assert begun.config["model"] == "digits_cnn" and begun.quality.name == "accuracy" and begun.name == "small"
    assert len(segment.curves["train_loss"]) == 1 and 0 < segment.numbers["quality"] < 1
    assert ended.finished and {"front.csv", "report.html"} <= {path.name for path in ended.files}

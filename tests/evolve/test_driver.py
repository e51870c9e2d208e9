"""The main job in a run folder, on the inline executor: what it leaves, a resume, a second driver, a stop."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from command_process import CommandProcess

from evocompress.checkpoint.packing import unpack
from evocompress.errors import RunError, StorageError
from evocompress.evolve.config import Config, parse_config
from evocompress.evolve.driver import config_of_run, run_experiment
from evocompress.protocols import Began, Progressed
from evocompress.search.history import read_history
from evocompress.support.wording import counted
from evocompress.tasks.classification import evaluate

pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {
    "name": "small",
    "model": "digits_cnn",
    "model_options": {"width": 8},
    "data": "digits",
    "reference_epochs": 2,
    "search": {"segments": 6, "initial": 3, "probes": 2, "deterministic": True, "lag": 2},
    "genes": {"epochs": 1, "rate_weight": [0.03, 3.0]},
    "resources": {"executor": "inline"},
}


#: For runs of which nobody looks at what the uncompressed network comes to when it is packed: that takes seconds.
UNPACKED = {"reference_packs": False}


def small(**changes: Any) -> Config:
    return parse_config({**SMALL, **changes})


#: What an observer heard of the run below.
HEARD: list[Any] = []


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "small"
    summary = run_experiment(small(), folder, config_text="# as written", observer=HEARD.append)
    assert summary.finished and summary.segments == 6
    return folder


def archive_of(folder: Path) -> list[tuple[str, int, float]]:
    return [(leaf.sha256, leaf.nbytes, leaf.quality) for leaf in read_history(folder).archive]


def test_front_csv_holds_sizes_and_qualities_of_real_files(finished: Path) -> None:
    from evocompress.data import load
    from evocompress.networks import build

    splits, model = load("digits"), build("digits_cnn", SMALL["model_options"])
    with open(finished / "export" / "front.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    assert rows and {"file", "bytes", "quality", "validation_quality", "ratio"} <= set(rows[0])
    for row in rows:
        file = finished / row["file"]
        assert os.path.getsize(file) == int(row["bytes"])
        model.load_state_dict(unpack(file.read_bytes(), names=model.state_dict()))
        assert evaluate(model, splits.audit).accuracy == pytest.approx(float(row["quality"]), abs=1e-6)
        assert evaluate(model, splits.validation).accuracy == pytest.approx(float(row["validation_quality"]), abs=1e-6)
        assert float(row["ratio"]) == pytest.approx(4 * 9802 / int(row["bytes"]), rel=1e-3)


def test_precision_is_what_segments_and_reference_train_in(tmp_path: Path) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        search = {**SMALL["search"], "segments": 1, "initial": 1}
        resources = {"executor": "inline", "precision": precision}
        changes = {"search": search, "resources": resources, "reference_epochs": 1}
        run_experiment(small(**changes, **UNPACKED), tmp_path / precision)
        history = read_history(tmp_path / precision)
        curves = history.outcomes[0].metrics["curves"]
        losses[precision] = [*curves["train_loss"], history.events("reference")[0]["validation_quality"]]
    assert losses["bfloat16"][0] != losses["float32"][0]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)


def test_everything_is_exported_and_recorded(finished: Path) -> None:
    exported = {path.name for path in (finished / "export").iterdir()}
    assert {"front", "front.csv", "front.png", "report.html", "segments.parquet"} <= exported
    history = read_history(finished)
    assert history.run["config_text"] == "# as written"
    assert history.run["network"]["parameters"] == 9802
    assert history.run["data"]["sha256"] and history.run["data"]["audit"] == 359
    assert len(history.events("audited")) == 1
    (event,) = history.events("reference")
    finest, *_, coarsest = event["packed"]
    assert finest["quality"] == pytest.approx(event["quality"], abs=0.05)
    assert coarsest["nbytes"] < finest["nbytes"] < event["float32_bytes"]
    for leaf in history.archive:
        assert hashlib.sha256(history.storage.read(leaf.path)).hexdigest() == leaf.sha256


def test_the_audit_reports_as_other_long_work(finished: Path) -> None:
    (audited,) = read_history(finished).events("audited")
    what = f"auditing {counted(len(audited['leaves']), 'file')} of the front"
    reports = [event for event in HEARD if isinstance(event, Began | Progressed) and event.what == what]
    shares = [event.share for event in reports if isinstance(event, Progressed)]
    assert reports[0] == Began(what) and shares == sorted(shares) and shares[-1] == 1.0
    assert len(shares) > min(len(audited["leaves"]), 5)  # one worker: one for each of few files, and one at the end
    assert Began("measuring the uncompressed network") in HEARD


def test_a_second_run_in_the_same_folder_is_refused(finished: Path) -> None:
    with pytest.raises(RunError, match="already holds a run"):
        run_experiment(small(), finished)
    with pytest.raises(RunError, match="search.probes was 2, is 1"):
        run_experiment(small(search={**SMALL["search"], "probes": 1}), finished, resume=True)
    with pytest.raises(RunError, match="no run"):
        config_of_run(finished / "nowhere")


def test_a_finished_run_can_be_given_more_segments(finished: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    before = read_history(folder).told[-1]["hypervolume_after"]
    config = config_of_run(folder, ["search.segments=8", "curve_examples=30"])
    summary = run_experiment(config, folder, resume=True, override=True)
    assert summary.finished and summary.segments == 8
    history = read_history(folder)
    assert len(history.events("override")) == 1 and history.told[-1]["hypervolume_after"] >= before
    measured = [len(outcome.metrics["curves"]["validation_quality"]) for outcome in history.outcomes]
    assert measured == [0] * 6 + [1] * 2
    # A plain resume goes on with what was accepted last.
    accepted = config_of_run(folder)
    assert accepted.search.segments == 8
    assert run_experiment(accepted, folder, resume=True).segments == 8
    assert len(read_history(folder).events("override")) == 1
    audited = {leaf_id for event in history.events("audited") for leaf_id in event["leaves"]}
    assert {leaf.leaf_id for leaf in history.archive} <= audited
    assert len(history.events("reference")) == 1


def test_relative_storage_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    config = small(storage="files", search={**SMALL["search"], "segments": 3}, reference_epochs=0)
    assert run_experiment(config, tmp_path / "run").finished
    monkeypatch.chdir(tmp_path / "elsewhere")
    more = config_of_run(tmp_path / "run", ["search.segments=5"])
    assert run_experiment(more, tmp_path / "run", resume=True, override=True).finished
    history = read_history(tmp_path / "run")
    assert [outcome.status for outcome in history.outcomes] == ["ok"] * 5
    assert (tmp_path / "files" / "seg").is_dir() and not (tmp_path / "run" / "seg").exists()


def test_trained_initial_weights_are_the_reference_as_they_are(finished: Path, tmp_path: Path) -> None:
    with open(finished / "export" / "front.csv", newline="") as table:
        best = list(csv.DictReader(table))[-1]
    config = small(
        initial_weights=str(finished / best["file"]),
        search={**SMALL["search"], "segments": 1, "initial": 1},
        **UNPACKED,
    )
    run_experiment(config, tmp_path / "run")
    event = read_history(tmp_path / "run").events("reference")[0]
    assert event["epochs"] == 0 and event["quality"] == pytest.approx(float(best["quality"]), abs=1e-6)


@pytest.mark.ray
@pytest.mark.timeout(900)  # Ray's workers have a low priority and wait where the machine is busy
def test_a_killed_driver_on_ray_goes_on_to_the_archive_of_an_inline_run(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ray"
    process = driver(folder, "--set", "resources.executor=ray", "--set", "resources.workers=2")
    wait_for_outcomes(folder, 2, seconds=600)
    process.kill()
    process.wait()
    inline = config_of_run(folder, ["resources.executor=inline"])  # any executor may go on with it
    assert run_experiment(inline, folder, resume=True).finished
    assert archive_of(folder) == archive_of(finished)


def driver(folder: Path, *words: str) -> CommandProcess:
    config = folder.parent / "small.json.toml"
    plain = {key: value for key, value in (SMALL | UNPACKED).items() if not isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
    for section in ("model_options", "search", "genes", "resources"):
        lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in SMALL[section].items())]
    config.write_text("\n".join(lines))
    return CommandProcess("run", config, "--out", folder, *words, output=folder.parent / "said.txt")


def wait_for_outcomes(folder: Path, count: int, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (folder / "run.json").exists() and len(read_history(folder).outcomes) >= count:
            return
        time.sleep(0.05)
    raise AssertionError("the driver did not get that far")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_a_stopped_driver_goes_on_to_the_same_archive(finished: Path, tmp_path: Path, how: signal.Signals) -> None:
    folder = tmp_path / "stopped"
    process = driver(folder)
    wait_for_outcomes(folder, 2)
    process.send_signal(how)
    status = process.wait()
    assert len(read_history(folder).outcomes) < 6
    if how != signal.SIGKILL:
        assert status == 130 and "--resume" in process.said and "Traceback" not in process.said
    if how == signal.SIGKILL:  # the lease of a dead driver on this machine is taken over at once
        assert status == -signal.SIGKILL
    summary = run_experiment(config_of_run(folder), folder, resume=True)
    assert summary.finished and summary.segments == 6
    assert archive_of(folder) == archive_of(finished)


def test_a_resume_may_change_the_limit_of_time_of_a_segment(finished: Path) -> None:
    changed = small(resources={"executor": "inline", "segment_timeout": 3})
    assert changed.resources.time_limit == 180.0
    assert run_experiment(changed, finished, resume=True).finished
    assert not read_history(finished).events("override")


def test_a_store_that_refuses_is_one_error_and_leaves_the_run_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoCredentialsError(Exception):
        """As of a library for a store."""

    pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    def refuse(*args: object, **kwargs: object) -> None:
        raise NoCredentialsError("Unable to locate credentials\n" * 175)

    search = {**SMALL["search"], "segments": 1, "initial": 1, "probes": 0}
    config = small(storage=f"memory://{tmp_path.name}", search=search, reference_epochs=0)
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "pipe_file", refuse)
        with pytest.raises(StorageError, match="NoCredentialsError: Unable to locate credentials"):
            run_experiment(config, tmp_path / "run")
    assert run_experiment(config, tmp_path / "run").finished
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "cat_file", refuse)
        with pytest.raises(StorageError, match="NoCredentialsError: Unable to locate credentials"):
            run_experiment(config, tmp_path / "run", resume=True)
    assert run_experiment(config, tmp_path / "run", resume=True).segments == 1


def test_a_second_driver_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    folder = tmp_path / "busy"
    process = driver(folder)
    try:
        wait_for_outcomes(folder, 1)
        with pytest.raises(RunError, match=r"held|driver|lease"):
            run_experiment(config_of_run(folder), folder, resume=True)
    finally:
        process.kill()
        process.wait()

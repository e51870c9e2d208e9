"""The executor on Ray: the front of an inline run, killed and frozen workers, jobs around a search."""

from __future__ import annotations

import dataclasses
import gc
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evocompress.errors import ConfigError, InfrastructureError, RunError
from evocompress.search.events import Late
from evocompress.search.history import read_history
from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.processes import born
from evocompress.search.ray_executor import RayExecutor, task_options
from evocompress.search.ray_jobs import RayJobs, _Job
from evocompress.search.ray_reports import Place, Report, _kill
from evocompress.search.records import Outcome, SegmentTask
from evocompress.search.run_folder import Run, open_run
from evocompress.search.toy_segment import ToySegment, toy_settings, toy_space

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def two_cpus() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()
        gc.collect()


def open_toy(folder: Path, **changes: Any) -> Run:
    return open_run(folder, header={"config": {}}, space=toy_space(), settings=toy_settings(**changes))


@dataclasses.dataclass(frozen=True)
class Suicidal:
    """Kills its own worker in mid segment, the first time that segment `victim` runs."""

    marks: str
    victim: int
    always: bool = False
    how: signal.Signals = signal.SIGKILL
    after: float = 0.0

    def __call__(self, task: SegmentTask, folder: str, parent_files: Sequence[bytes]) -> Outcome:
        mark = Path(self.marks, str(task.index))
        if task.index == self.victim and (self.always or not mark.exists()):
            mark.touch()
            Path(folder, "half.evc").write_bytes(b"half")
            time.sleep(self.after)
            os.kill(os.getpid(), self.how)
        return ToySegment()(task, folder, parent_files)


def failing(task: SegmentTask, folder: str, parent_files: Sequence[bytes]) -> Outcome:
    if task.index % 3 == 1:
        raise ValueError("on purpose")
    if task.index % 3 == 2:
        raise MemoryError
    return dataclasses.replace(
        ToySegment()(task, folder, parent_files), metrics={"env": os.environ.get("EVO_TEST", "")}
    )


def test_a_run_on_two_workers_equals_the_inline_run(two_cpus: None, tmp_path: Path) -> None:
    fronts = []
    for kind in ("ray", "inline"):
        with open_toy(tmp_path / kind, segments=24, deterministic=True, lag=4) as run:
            if kind == "ray":
                # Long enough for the second worker to start while the first one works, on a busy machine too.
                executor: RayExecutor | InlineExecutor = RayExecutor(ToySegment(seconds=0.3), run.storage)
                assert (executor.workers, executor.slots) == (2, 3)
            else:
                executor = InlineExecutor(ToySegment(), run.storage)
            assert run.drive(executor) == "finished"
            executor.close()
        history = read_history(tmp_path / kind)
        assert all(outcome.status == "ok" for outcome in history.outcomes)
        fronts.append([(leaf.leaf_id, leaf.nbytes, leaf.quality, leaf.sha256) for leaf in history.archive])
        pids = {outcome.metrics["pid"] for outcome in history.outcomes}
        assert len(pids) == (2 if kind == "ray" else 1) and (os.getpid() in pids) == (kind == "inline")
    assert fronts[0] == fronts[1]
    assert ray.is_initialized()


def test_a_worker_killed_in_mid_segment_costs_nothing_but_time(two_cpus: None, tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    with open_toy(tmp_path / "run", segments=8) as run:
        executor = RayExecutor(Suicidal(str(tmp_path / "marks"), 3), run.storage)
        assert run.drive(executor) == "finished"
        executor.close()
        assert not [path for path in run.storage.find("seg") if "half" in path]
    history = read_history(tmp_path / "run")
    assert (tmp_path / "marks" / "3").exists()
    assert [outcome.status for outcome in history.outcomes] == ["ok"] * 8


def test_a_segment_that_always_kills_its_worker_stops_the_driver_and_a_resume_runs_it(
    two_cpus: None, tmp_path: Path
) -> None:
    (tmp_path / "marks").mkdir()
    segment = Suicidal(str(tmp_path / "marks"), 1, always=True)
    with open_toy(tmp_path / "run", segments=4) as run:
        executor = RayExecutor(segment, run.storage, max_retries=0)
        with pytest.raises(InfrastructureError, match=r"segment 2 .* in 3 tries: WorkerCrashedError.*resume the run"):
            run.drive(executor, pauses=(0.1, 0.1))
        executor.close()
    history = read_history(tmp_path / "run")
    assert all(outcome.status == "ok" for outcome in history.outcomes)
    assert 1 in {task.index for task in history.in_flight}
    with open_run(
        tmp_path / "run", header={"config": {}}, space=toy_space(), settings=toy_settings(segments=4), resume=True
    ) as run:
        assert run.drive(InlineExecutor(ToySegment(), run.storage)) == "finished"
    assert sorted(outcome.index for outcome in read_history(tmp_path / "run").outcomes) == [0, 1, 2, 3]
    assert all(outcome.status == "ok" for outcome in read_history(tmp_path / "run").outcomes)


@pytest.mark.parametrize("after", [0.5, 0.0])  # at once: before its worker could report where it is
def test_beside_a_frozen_worker_another_attempt_begins(two_cpus: None, tmp_path: Path, after: float) -> None:
    (tmp_path / "marks").mkdir()
    heard: list[Any] = []
    with open_toy(tmp_path / "run", segments=8, deterministic=True, lag=4) as run:
        segment = Suicidal(str(tmp_path / "marks"), 3, how=signal.SIGSTOP, after=after)
        executor = RayExecutor(segment, run.storage)
        assert run.drive(executor, observer=heard.append, time_limit=4.0) == "finished"
        executor.close()
    late = [event for event in heard if isinstance(event, Late) and event.attempt]
    assert [(event.task.index, event.attempt) for event in late] == [(3, 2)]
    assert late[0].node is not None and late[0].seconds > 4
    names = (socket.gethostname(),) if after else (socket.gethostname(), "an unknown node")  # a report may just get out
    assert late[0].node.startswith(names)
    with open_toy(tmp_path / "inline", segments=8, deterministic=True, lag=4) as run:
        assert run.drive(InlineExecutor(ToySegment(), run.storage)) == "finished"
    fronts = [read_history(tmp_path / name).archive for name in ("run", "inline")]
    assert [leaf.sha256 for leaf in fronts[0]] == [leaf.sha256 for leaf in fronts[1]]


def test_exceptions_are_recorded_and_env_vars_arrive(two_cpus: None, tmp_path: Path) -> None:
    with open_toy(tmp_path, segments=6) as run:
        executor = RayExecutor(failing, run.storage, env_vars={"EVO_TEST": "yes"})
        assert run.drive(executor) == "finished"
        executor.close()
    outcomes = sorted(read_history(tmp_path).outcomes, key=lambda outcome: outcome.index)
    assert [outcome.status for outcome in outcomes] == ["ok", "failed", "out_of_memory"] * 2
    assert outcomes[1].error == "ValueError: on purpose"
    assert outcomes[0].metrics == {"env": "yes"}


def test_a_stop_cancels_what_is_in_flight(two_cpus: None, tmp_path: Path) -> None:
    began = time.monotonic()
    with open_toy(tmp_path, segments=6) as run:
        executor = RayExecutor(ToySegment(seconds=300), run.storage)
        assert run.drive(executor, should_stop=lambda: time.monotonic() > began + 1) == "stopped"
        executor.close()
    assert len(read_history(tmp_path).in_flight) == 3


def square(value: int) -> int:
    if value < 0:
        raise ValueError("negative")
    return value**2


def test_map_runs_jobs_around_a_search(two_cpus: None, tmp_path: Path) -> None:
    with open_toy(tmp_path) as run:
        executor = RayExecutor(ToySegment(), run.storage)
        assert executor.map(square, [3, 1, 2]) == [9, 1, 4]
        with pytest.raises(ValueError, match="negative"):
            executor.map(square, [1, -1])
        with pytest.raises(RunError, match="SystemExit: 3"):
            executor.map(sys.exit, [3])
        executor.close()


@dataclasses.dataclass(frozen=True)
class Freezing:
    """A job whose worker freezes for so many times, each marked by a file."""

    marks: Path
    times: int

    def __call__(self, value: int) -> int:
        for number in range(self.times):
            mark = self.marks / f"{value}-{number}"
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGSTOP)
        return value**2


@pytest.fixture
def impatient(two_cpus: None, tmp_path: Path) -> Iterator[RayExecutor]:
    """An executor whose jobs may be silent for a few seconds."""
    with open_toy(tmp_path / "run") as run:
        executor = RayExecutor(ToySegment(), run.storage)
        executor._jobs._silent_seconds = 3.0
        yield executor
        executor.close()


def test_a_job_whose_worker_freezes_is_begun_anew(impatient: RayExecutor, tmp_path: Path) -> None:
    heard: list[Any] = []
    assert impatient.map(Freezing(tmp_path, 1), [3, 2], what="squaring", observer=heard.append) == [9, 4]
    assert {event.what for event in heard} == {"squaring"} and all(event.kind == "silent" for event in heard)
    assert len(heard) == 2 and heard[0].node.startswith(socket.gethostname()) and heard[0].seconds > 3


def test_a_job_that_only_takes_long_is_left_alone(impatient: RayExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Any] = []
    monkeypatch.setattr("evocompress.search.ray_jobs.FLOOR_SECONDS", 1.0)
    assert impatient.map(slow_square, [3], what="squaring", observer=heard.append) == [9]
    assert (
        heard and not any(event.kind == "silent" for event in heard) and heard[-1].node.startswith(socket.gethostname())
    )


def slow_square(value: int) -> int:
    time.sleep(5)
    return value**2


def test_a_job_whose_workers_all_freeze_stops_the_driver(impatient: RayExecutor, tmp_path: Path) -> None:
    heard: list[Any] = []
    impatient._options["max_retries"] = 1  # Ray begins a task anew three times otherwise
    with pytest.raises(InfrastructureError, match="lost for good"):
        impatient.map(Freezing(tmp_path, 9), [3], what="squaring", observer=heard.append)
    assert [event.kind for event in heard] == ["silent", "silent"]


def test_a_worker_that_computes_is_not_ended_though_it_is_silent() -> None:
    here = Place("node", "host", os.getpid(), born(os.getpid()))
    busy = threading.Thread(target=lambda: [sum(range(10**6)) for _ in range(400)], daemon=True)
    busy.start()
    assert not _kill(here, only_idle=True)


def test_a_job_that_loses_worker_after_worker_is_given_up() -> None:
    """As where memory is too little: Ray begins such a task anew without end."""
    jobs = RayJobs.__new__(RayJobs)
    jobs._silent_seconds, job = 120.0, _Job()
    heard = []
    with pytest.raises(InfrastructureError, match="auditing: 8 workers were lost .* too little memory"):
        for pid in range(20):
            place = Place("node", "host", pid, "1")
            heard.append(jobs._looked_at(job, Report(place, 1.0), {"node"}, "auditing"))
    assert [event and event.kind for event in heard] == [None] + ["begun anew"] * 7


def test_nothing_is_asked_of_a_head_that_is_silent() -> None:
    """Ray would wait for it, and the driver could not say that it is gone."""
    jobs, answers = RayJobs.__new__(RayJobs), iter([["job"], ["job"], []])
    jobs._look_around = lambda: None
    jobs._cluster = SimpleNamespace(is_silent=True)  # type: ignore[assignment]
    jobs._ray = SimpleNamespace(wait=lambda waiting, **options: (None, next(answers)))
    jobs._wait({"job": 1}, "auditing", print)
    assert next(answers, None) is None


def test_a_driver_that_was_stopped_itself_ends_no_worker() -> None:
    """Its first look finds old reports, its second one those that came in meanwhile."""
    jobs = RayJobs.__new__(RayJobs)
    jobs._silent_seconds, job = 120.0, _Job()
    place = Place("node", "host", 1, "1")
    for silent in (3.0, 180.0, 1.0):
        assert jobs._looked_at(job, Report(place, 1.0, silent), {"node"}, "auditing") is None
    assert not job.ended and job.suspect_since is None


def test_what_ray_raises_around_jobs_is_said_in_our_words(
    two_cpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*args: object, **options: object) -> None:
        raise ray.exceptions.RaySystemError("the head is gone")

    with open_toy(tmp_path) as run:
        executor = RayExecutor(ToySegment(), run.storage)
        with monkeypatch.context() as patch:
            patch.setattr(ray, "wait", lost)
            with pytest.raises(InfrastructureError, match="Ray cannot go on .*the head is gone.* resume the run"):
                executor.map(square, [1])
        executor.close()


def test_max_calls_is_always_explicit() -> None:
    """Left to itself Ray starts a new process for every task with num_gpus > 0."""
    assert task_options(cpus=1, gpus=0)["max_calls"] == 0
    assert task_options(cpus=0, gpus=0.25)["max_calls"] == 100
    assert task_options(cpus=1, gpus=1, max_calls=7)["max_calls"] == 7
    remote = ray.remote(**task_options(cpus=1, gpus=1))(square)
    assert (remote._max_calls, remote._default_options["num_gpus"]) == (100, 1)
    assert ray.remote(num_gpus=1)(square)._max_calls == 1, "the trap is gone; this option may go too"


@pytest.mark.parametrize(
    "wrong", [{"cpus": 0, "gpus": 0}, {"cpus": -1, "gpus": 0}, {"cpus": 1, "gpus": 0, "max_calls": -1}]
)
def test_impossible_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="cpus"):
        task_options(**wrong)  # type: ignore[arg-type]


def test_more_than_the_cluster_has_is_refused(two_cpus: None, tmp_path: Path) -> None:
    with open_toy(tmp_path) as run, pytest.raises(Exception, match="asks for cpus=1, gpus=1"):
        RayExecutor(ToySegment(), run.storage, cpus=1, gpus=1)


def test_more_workers_than_fit_anywhere_are_refused_instead_of_waiting(tmp_path: Path) -> None:
    with open_toy(tmp_path) as run, pytest.raises(RunError, match="asks for cpus=64"):
        RayExecutor(ToySegment(), run.storage, workers=5, cpus=64)

"""Tests in a forked process, in which nothing of the package is loaded yet, but all that it needs from others is.

Loading torch and its like takes seconds and a mutant is most often found within less. A child runs in a copy of the
repository, whose one file is mutated: also the processes that a test starts see the mutant.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

__all__ = ["Outcome", "Trace", "preload", "run", "trace"]

_MEMORY = 6 << 30  # bytes of data, for mutants that allocate without end
_ENOUGH = 30.0  # seconds of tests for one mutant
_ARGUMENTS = ["-x", "-q", "--no-header", "--assert=plain", "-p", "no:cacheprovider"]


class Outcome(NamedTuple):
    """What became of a run of tests: "passed", "failed" or "too long"; which failed; seconds of processor time."""

    kind: str
    test: str
    seconds: float


class Trace(NamedTuple):
    """Of the unchanged code: processor time and time of each test, the tests that reach each line, and what it loads.

    A test is ordered by its processor time: other work on the machine does not change that.
    """

    seconds: dict[str, tuple[float, float]]
    reached: dict[str, dict[int, list[str]]]
    modules: list[str]

    def tests(self, path: str, line: int) -> list[str]:
        """Tests that reach the line, or all where none does (it runs at import): the fastest first, half a minute."""
        names = set(self.reached.get(path, {}).get(line, ())) - {""}
        files = {name for name in names if "::" not in name}  # reached as a fixture for a whole file was made
        chosen = [test for test in self.seconds if test in names or test.partition("::")[0] in files]
        ordered = sorted(chosen or self.seconds, key=lambda test: self.seconds[test])
        together = itertools.accumulate(self.seconds[test][0] for test in ordered)
        return [test for test, seconds in zip(ordered, together, strict=True) if seconds <= _ENOUGH] or ordered[:1]


class _Selection:
    """A pytest plugin: these tests in this order; remembers which one failed."""

    def __init__(self, tests: Sequence[str]) -> None:
        self.tests, self.failed = tests, ""

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        place = {test: number for number, test in enumerate(self.tests)}
        items[:] = sorted((item for item in items if item.nodeid in place), key=lambda item: place[item.nodeid])
        for item in items:
            item.add_marker(pytest.mark.timeout(0))  # the process has one

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


class _Tracer:
    """A pytest plugin: which test runs which lines, as a context of coverage."""

    def __init__(self, coverage: Any) -> None:
        self.coverage, self.context = coverage, ""
        self.seconds: dict[str, tuple[float, float]] = {}
        self.problem = ""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        self._switch(item.nodeid)
        used, began = _used(), time.monotonic()
        try:
            return (yield)
        finally:
            self._switch("")
            self.seconds[item.nodeid] = _used() - used, time.monotonic() - began

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        before = self.context
        if fixturedef.scope != "function":
            self._switch(before.partition("::")[0])
        try:
            return (yield)
        finally:
            self._switch(before)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.problem = f"{report.nodeid}: {report.longreprtext}"

    def _switch(self, context: str) -> None:
        self.context = context
        self.coverage.switch_context(context)


def _used() -> float:
    """Processor time of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def preload(modules: list[str]) -> None:
    """Load modules of others, such as torch, here, for all children."""
    for name in modules:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def trace(tree: Path, paths: list[str], tests: list[str], log: Path, environment: Mapping[str, str]) -> Trace:
    """Run the tests of a group on the unchanged code.

    Raises:
        RuntimeError: Some test failed, so that there is nothing to compare with.
    """

    def child() -> object:
        coverage: Any = importlib.import_module("coverage")
        measured = coverage.Coverage(
            data_file=None, config_file=False, include=[str((tree / path).resolve()) for path in paths]
        )
        measured.start()
        tracer = _Tracer(measured)
        status = pytest.main([*_ARGUMENTS, *tests], plugins=[tracer])
        measured.stop()
        data = measured.get_data()
        reached = {path: data.contexts_by_lineno(str((tree / path).resolve())) for path in paths}
        others = [
            name
            for name, module in sys.modules.items()
            if "site-packages" in (getattr(module, "__file__", None) or "") and "pytest" not in name
        ]
        good = status in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        return {"trace": [tracer.seconds, reached, others], "problem": "" if good else tracer.problem or "no tests ran"}

    answer, _ = _forked(tree, child, 1800, 1800, log, environment)
    if not isinstance(answer, dict) or answer["problem"]:
        raise RuntimeError(f"the unchanged code fails: {answer and answer['problem']}; {log}")
    seconds, reached, others = answer["trace"]
    return Trace(seconds, {path: {int(n): c for n, c in lines.items()} for path, lines in reached.items()}, others)


def run(
    tree: Path, tests: Sequence[str], log: Path, environment: Mapping[str, str], used: float, waited: float
) -> Outcome:
    """Run tests until one fails, or until they have used so many seconds of processor time, or waited for so many."""
    files = list(dict.fromkeys(test.partition("::")[0] for test in tests))

    def child() -> object:
        selection = _Selection(tests)
        status = pytest.main([*_ARGUMENTS, *files], plugins=[selection])
        return [int(status), selection.failed]

    before = _used()
    answer, late = _forked(tree, child, used, waited, log, environment)
    seconds = _used() - before
    if late:
        return Outcome("too long", "", seconds)
    if not isinstance(answer, list):
        return Outcome("failed", "the process ended", seconds)
    status, failed = answer
    return Outcome("failed", failed or "at import", seconds) if status else Outcome("passed", "", seconds)


def _forked(
    tree: Path, work: Callable[[], object], used: float, waited: float, log: Path, environment: Mapping[str, str]
) -> tuple[Any, bool]:
    """What the function gives in a child, None if that broke off; and whether it took too long."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setsid()
            os.close(reading)
            resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used), math.ceil(used)))
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.environ |= {**environment, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
            if (config := sys.modules.get("numba.core.config")) is not None:
                config.reload_config()  # numba is loaded already, with another folder for what it compiles
            os.chdir(tree)
            sys.path.insert(0, str(tree))
            sys.dont_write_bytecode = True
            _same_examples_each_time()
            answer = json.dumps(work()).encode()
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(answer)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    late: list[bool] = []

    def end(_signal: int, _frame: object) -> None:
        late.append(True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, waited)
    try:
        with os.fdopen(reading, "rb") as stream:
            data = stream.read()
        os.waitpid(child, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)  # what the tests have left running
    return json.loads(data) if data else None, bool(late)


def _same_examples_each_time() -> None:
    """Hypothesis draws by the test's name, stores nothing, looks at no clock and for no smaller example."""
    from hypothesis import Phase, settings

    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutants", derandomize=True, database=None, deadline=None, phases=phases)
    settings.load_profile("mutants")

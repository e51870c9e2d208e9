"""The mutation tester itself: what it calls killed has been noticed, and its lists name what is there."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE))

from mutation_children import Outcome, Trace, run  # noqa: E402
from mutation_places import _meaning  # noqa: E402

_ROOT = _HERE.parents[1]
_GROUPS = tomllib.loads((_HERE / "modules.toml").read_text("utf-8"))
_HARMLESS = tomllib.loads((_HERE / "harmless.toml").read_text("utf-8")).get("mutant", [])


@pytest.mark.parametrize(
    ("body", "kind", "test"),
    [
        ("assert double(2) == 4", "passed", ""),
        ("assert double(2) == 5", "failed", "test_it.py::test_it"),
        ("double.missing", "failed", "test_it.py::test_it"),
        ("__import__('os').kill(__import__('os').getpid(), 9)", "failed", "the process ended"),
        ("__import__('time').sleep(60)", "too long", ""),
    ],
)
def test_what_a_run_of_tests_comes_to(tmp_path: Path, body: str, kind: str, test: str) -> None:
    (tmp_path / "doubling_of_a_test.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "test_it.py").write_text(f"from doubling_of_a_test import double\ndef test_it():\n    {body}\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    waited = 1.0 if kind == "too long" else 100.0
    outcome = run(tmp_path, ["test_it.py::test_it"], tmp_path / "log", {}, 100.0, waited)
    assert (outcome.kind, outcome.test) == (kind, test)


def test_an_error_at_import_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("1 / 0\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    outcome = run(tmp_path, ["test_it.py::test_it"], tmp_path / "log", {}, 100.0, 100.0)
    assert isinstance(outcome, Outcome) and (outcome.kind, outcome.test) == ("failed", "at import")


def test_what_is_compiled_is_kept_apart_although_numba_is_loaded(tmp_path: Path) -> None:
    """Else a mutant may run what was compiled for another one."""
    pytest.importorskip("numba")
    cache = str(tmp_path / "cache")
    (tmp_path / "test_it.py").write_text(
        f"import numba\ndef test_it():\n    assert numba.config.CACHE_DIR == {cache!r}\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    outcome = run(tmp_path, ["test_it.py::test_it"], tmp_path / "log", {"NUMBA_CACHE_DIR": cache}, 100.0, 100.0)
    assert outcome.kind == "passed"


def test_the_tests_of_a_line_are_those_that_reach_it_the_fastest_first() -> None:
    seconds = {
        "a.py::slow": (20.0, 20.0),
        "a.py::fast": (1.0, 9.0),
        "b.py::b": (0.5, 0.5),
        "b.py::endless": (31.0, 1.0),
    }
    reached = {"m.py": {1: ["", "a.py::slow", "a.py::fast"], 2: ["b.py"], 3: ["b.py::endless"]}}
    trace = Trace(seconds, reached, [])
    assert trace.tests("m.py", 1) == ["a.py::fast", "a.py::slow"]
    assert trace.tests("m.py", 2) == ["b.py::b"]  # by a fixture of the whole file; all of it takes too long
    assert trace.tests("m.py", 3) == ["b.py::endless"]
    assert trace.tests("m.py", 4) == ["b.py::b", "a.py::fast", "a.py::slow"]  # at import


def test_a_change_of_annotations_alone_is_none() -> None:
    source = "def f(x: int | None = None) -> int | None:\n    y: list[int | str] = [1]\n    return x\n"
    assert _meaning(source) == _meaning(source.replace("|", "-"))
    assert _meaning(source) != _meaning(source.replace("[1]", "[2]"))
    assert _meaning(source) != _meaning(source.replace("= None", "= 0"))


@pytest.mark.parametrize("name", _GROUPS)
def test_groups_name_files_that_are_there(name: str) -> None:
    assert set(_GROUPS[name]) == {"files", "tests"}
    missing = [path for path in _GROUPS[name]["files"] + _GROUPS[name]["tests"] if not (_ROOT / path).is_file()]
    assert not missing


def test_harmless_mutants_are_of_lines_that_are_there() -> None:
    changes = [entry["change"] for entry in _HARMLESS]
    assert len(set(changes)) == len(changes)
    for entry in _HARMLESS:
        path, _, change = entry["change"].partition(": ")
        before = change.partition(" -> ")[0]
        assert before in (_ROOT / path).read_text("utf-8") and len(entry["why"]) > 10, entry

"""Probe of a node before a run, and what is said where it lacks something; a node is played by this process."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evocompress.errors import ConfigError, DataError, RunError
from evocompress.search.node_probe import NodeProbe, Seen, refusal, versions_here
from evocompress.search.shipment import Shipment, left_out
from evocompress.search.shipped_modules import ShippedModule, ShippedModules
from evocompress.search.storage import LocalStorage, open_storage

SOURCES = ShippedModules(
    {
        "sent_package": ShippedModule("/away/sent_package/__init__.py", b"", True),
        "sent_package.inner": ShippedModule("/away/sent_package/inner.py", b"VALUE = 3\n"),
        "sent_module": ShippedModule(
            "/away/sent_module.py", b"from sent_package.inner import VALUE\nHERE = __file__\n"
        ),
    }
)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    path, finders = list(sys.path), list(sys.meta_path)
    yield
    sys.path[:], sys.meta_path[:] = path, finders
    for name in [name for name in sys.modules if name.startswith("sent_")]:
        del sys.modules[name]


def test_modules_are_imported_from_what_was_sent() -> None:
    SOURCES.install()
    SOURCES.install()
    import sent_module  # type: ignore[import-not-found]

    assert (sent_module.VALUE, sent_module.HERE) == (3, "/away/sent_module.py")
    assert len([finder for finder in sys.meta_path if hasattr(finder, "modules")]) == 1


def test_a_node_that_has_all(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "runs" / "new")
    probe = NodeProbe(storage, ("sent_module",), SOURCES)
    with probe.begun():
        seen = probe.check_answer("n1", probe("n1"))
        assert seen.problems == () and "(node n1)" in seen.node
    assert not (tmp_path / "runs" / "new").exists()


def test_a_node_with_another_view_of_the_storage(tmp_path: Path) -> None:
    probe = NodeProbe(open_storage(tmp_path / "run"))
    there = dataclasses.replace(probe, storage=LocalStorage(str(tmp_path / "away")))
    with probe.begun():
        (problem,) = there("n1").problems
        assert f"does not see the run's storage {tmp_path}/away" in problem and "fsspec URI" in problem
        assert not (tmp_path / "away").exists()
        unmounted = dataclasses.replace(probe, storage=LocalStorage(str(tmp_path / "away"), "RUN.json"))
        assert "StorageError" in unmounted("n1").problems[0]
        (problem,) = probe.check_answer("n2", Seen("n2")).problems
        assert "is not seen by this driver" in problem


def test_a_node_without_the_data(tmp_path: Path) -> None:
    probe, looked = NodeProbe(open_storage(tmp_path)), list[str]()

    class NeedsData:
        def check_machine(self) -> None:
            looked.append("n1")
            raise DataError("no file points.npy")

    with probe.begun():
        assert probe("n1", NeedsData()).problems == (
            "lacks what segments need (DataError: no file points.npy): put it there",
        )
        assert probe("n1", object()).problems == ()
        absent = dataclasses.replace(probe, imports=("sent_absent",))
        assert len(absent("n1", NeedsData()).problems) == 1, "data are looked for where all else is well"
    assert looked == ["n1"]


def test_a_node_with_other_versions_or_modules(tmp_path: Path) -> None:
    (tmp_path / "sent_module.py").write_text("HERE = 1\n")
    there = {**versions_here(), "torch": "0.1", "evocompress": "0.0.1"}
    probe = NodeProbe(open_storage(tmp_path), ("sent_absent",), versions=there)
    with probe.begun():
        versions, absent = probe("n1").problems
    assert versions.startswith(f"has evocompress {versions_here()['evocompress']}, the driver has 0.0.1; torch ")
    assert absent.startswith("cannot import sent_absent (ModuleNotFoundError")
    probe = NodeProbe(open_storage(tmp_path), ("sent_module",), SOURCES, path=(str(tmp_path),))
    with probe.begun():
        (problem,) = probe("n1").problems
    assert problem.startswith(f"has another sent_module than the driver ({tmp_path / 'sent_module.py'})")
    assert not list(tmp_path.glob("probe-*"))


def test_a_storage_that_the_driver_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"), NodeProbe(open_storage(tmp_path / "file")).begun():
        pass


def test_equal_problems_are_told_once() -> None:
    assert refusal([Seen("a")]) == ""
    many = [Seen(name, ("is slow",)) for name in "abcde"]
    assert refusal([*many, Seen("f", ("is away",))]) == "a, b, c and 2 more: is slow; f: is away"


def test_what_is_shipped_is_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"^resources\.working_dir: '/nowhere' is no folder on this machine"):
        Shipment(working_dir="/nowhere").check()
    (tmp_path / "data.bin").write_bytes(bytes(100))
    with pytest.raises(ConfigError, match=r"^resources\.py_modules: .* is no folder or file \*\.py"):
        Shipment(py_modules=(str(tmp_path / "data.bin"),)).check()
    for folder, mark in (("env", "pyvenv.cfg"), ("runs/one", "run.json"), ("source", "a.py"), (".git", "HEAD")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / mark).write_text("")
    (tmp_path / "runs" / "one" / "large.evc").write_bytes(bytes(3 << 20))
    assert sorted(left_out(str(tmp_path))) == ["/.git", "/env", "/runs/one"]
    shipment = Shipment(working_dir=str(tmp_path), pip=("einops",))
    monkeypatch.setattr("evocompress.search.shipment._LARGEST", 1 << 20)
    shipment.check()
    assert shipment.of_the_job() == {"working_dir": str(tmp_path), "excludes": ["/.git", "/env", "/runs/one"]}
    assert shipment.of_a_task() == {"pip": ["einops"]}
    (tmp_path / "data.bin").write_bytes(bytes(2 << 20))
    with pytest.raises(ConfigError, match=r"is too large to be sent: over 1 MiB, such as \S+data\.bin \(2 MiB\)"):
        shipment.check()
    (tmp_path / ".rayignore").write_text("data.bin\n")
    shipment.check()
    Shipment(working_dir="s3://bucket/code.zip").check()

"""A store that refuses, or goes away: one line whatever its library says, and a resume that loses nothing."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evocompress.errors import InfrastructureError, StorageError
from evocompress.search.events import Delayed, Finished
from evocompress.search.history import read_history
from evocompress.search.run_folder import Run, open_run
from evocompress.search.simulated_executor import SimulatedExecutor
from evocompress.search.storage import open_storage
from evocompress.search.toy_segment import ToySegment, toy_settings, toy_space

fsspec = pytest.importorskip("fsspec")
memory = pytest.importorskip("fsspec.implementations.memory")


class NoCredentialsError(Exception):
    """As of a library for a store: no OSError, and long."""


class Fickle(memory.MemoryFileSystem):  # type: ignore[misc,name-defined]
    """Files in memory, as long as `away` is not set."""

    protocol = ("fickle",)
    cachable = False
    store: dict[str, Any] = {}
    pseudo_dirs = [""]
    away = False

    def _look(self) -> None:
        if Fickle.away:
            raise NoCredentialsError("Unable to locate credentials\n" + "  File botocore.py, line 1\n" * 175)

    def cat_file(self, *args: Any, **kwargs: Any) -> Any:
        self._look()
        return super().cat_file(*args, **kwargs)

    def pipe_file(self, *args: Any, **kwargs: Any) -> Any:
        self._look()
        return super().pipe_file(*args, **kwargs)

    def put_file(self, *args: Any, **kwargs: Any) -> Any:
        self._look()
        return super().put_file(*args, **kwargs)

    def rm(self, *args: Any, **kwargs: Any) -> Any:
        self._look()
        return super().rm(*args, **kwargs)

    def find(self, *args: Any, **kwargs: Any) -> Any:
        self._look()
        return super().find(*args, **kwargs)


@pytest.fixture
def uri(tmp_path: Path) -> Iterator[str]:
    fsspec.register_implementation("fickle", Fickle, clobber=True)
    Fickle.store, Fickle.pseudo_dirs, Fickle.away = {}, [""], False
    yield f"fickle://{tmp_path.name}"
    Fickle.away = False


def open_toy(folder: Path, uri: str = "", resume: bool = False) -> Run:
    settings = toy_settings(segments=14, deterministic=True, lag=3)
    header: dict[str, Any] = {"config": {}}
    return open_run(folder, header=header, space=toy_space(), settings=settings, storage_uri=uri, resume=resume)


def leaves(folder: Path) -> list[tuple[str, str]]:
    return [(leaf.leaf_id, leaf.sha256) for leaf in read_history(folder).archive]


@pytest.mark.parametrize("operation", ["read", "write", "take", "create", "delete", "find"])
def test_whatever_a_store_raises_is_one_error_of_one_line(uri: str, tmp_path: Path, operation: str) -> None:
    storage = open_storage(uri)
    storage.write("seg/x", b"1")
    (tmp_path / "local").write_bytes(b"2")
    arguments: dict[str, tuple[Any, ...]] = {
        "read": ("seg/x",),
        "write": ("seg/x", b"2"),
        "take": (str(tmp_path / "local"), "seg/x"),
        "create": ("seg/y", b"2"),
        "delete": ("seg/x",),
        "find": ("seg",),
    }
    Fickle.away = True
    with pytest.raises(StorageError, match=r"fickle://.*NoCredentialsError: Unable to locate credentials") as caught:
        getattr(storage, operation)(*arguments[operation])
    assert isinstance(caught.value, OSError) and isinstance(caught.value, InfrastructureError)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    Fickle.away = False
    assert storage.read("seg/x") == b"1" and storage.find("seg") == ["seg/x"]
    with pytest.raises(FileNotFoundError):
        storage.read("seg/none")


def test_a_wrong_token_at_the_start_leaves_nothing_behind(uri: str, tmp_path: Path) -> None:
    Fickle.away = True
    with pytest.raises(StorageError, match="Unable to locate credentials"):
        open_toy(tmp_path / "run", uri)
    Fickle.away = False
    with open_toy(tmp_path / "run", uri):
        pass


def test_a_store_lost_in_mid_run_stops_the_driver_and_a_resume_ends_as_without(uri: str, tmp_path: Path) -> None:
    with open_toy(tmp_path / "undisturbed") as run:
        assert run.drive(SimulatedExecutor(ToySegment(), run.storage, workers=2)) == "finished"
    heard: list[Any] = []

    def observer(event: object) -> None:
        heard.append(event)
        if isinstance(event, Finished) and event.completion == 8:
            Fickle.away = True

    with open_toy(tmp_path / "run", uri) as run:
        with pytest.raises(
            InfrastructureError, match=r"in 8 tries: .*fickle://.*Unable to locate credentials.*resume the run"
        ) as caught:
            run.drive(SimulatedExecutor(ToySegment(), run.storage, workers=2), observer=observer)
        assert "\n" not in str(caught.value)
    assert any(isinstance(event, Delayed) for event in heard)
    with pytest.raises(StorageError, match="Unable to locate credentials"):
        open_toy(tmp_path / "run", uri, resume=True)
    Fickle.away = False
    with open_toy(tmp_path / "run", uri, resume=True) as run:
        assert run.drive(SimulatedExecutor(ToySegment(), run.storage, workers=2)) == "finished"
        needed = {leaf.path for leaf in (*run.search.front(), *run.search.pool)}
        assert {path for path in run.storage.find("seg") if path.endswith(".evc")} >= needed
    assert leaves(tmp_path / "run") == leaves(tmp_path / "undisturbed")


def test_what_could_not_be_deleted_is_deleted_later(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = iter(range(3))

    def rm(self: Fickle, *args: Any, **kwargs: Any) -> Any:
        if next(refusals, None) is not None:
            raise NoCredentialsError("token is renewed")
        return memory.MemoryFileSystem.rm(self, *args, **kwargs)

    monkeypatch.setattr(Fickle, "rm", rm)
    with open_toy(tmp_path / "run", uri) as run:
        assert run.drive(SimulatedExecutor(ToySegment(), run.storage, workers=2)) == "finished"
        needed = {leaf.path for leaf in (*run.search.front(), *run.search.pool)}
        assert {path for path in run.storage.find("seg") if path.endswith(".evc")} >= needed
        assert next(refusals, None) is None and not run._unneeded

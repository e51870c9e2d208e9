"""Storage: whole files or none, one of many creators, links, and stores by URI."""

from __future__ import annotations

import errno
import os
import pickle
import threading
import uuid
from pathlib import Path

import pytest

from evocompress.errors import RunError, StorageError
from evocompress.search.storage import LocalStorage, RemoteStorage, Storage, open_storage


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return open_storage(tmp_path / "store")
    pytest.importorskip("fsspec")
    return open_storage(f"memory://{uuid.uuid4().hex}")


def test_whole_files(storage: Storage) -> None:
    storage.write("seg/a/1/x.evc", b"one")
    storage.write("seg/a/1/x.evc", b"two")
    storage.write("seg/b/y.evc", b"")
    assert storage.read("seg/a/1/x.evc") == b"two"
    assert storage.read("seg/b/y.evc") == b""
    assert storage.find("seg") == ["seg/a/1/x.evc", "seg/b/y.evc"]
    assert storage.find("seg/a") == ["seg/a/1/x.evc"]
    assert storage.find("none") == []
    with pytest.raises(FileNotFoundError):
        storage.read("seg/none")
    storage.delete("seg/a")
    storage.delete("seg/a")
    storage.delete("seg/b/y.evc")
    assert storage.find("seg") == []


def test_take_moves_a_local_file(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "scratch").write_bytes(b"checkpoint")
    storage.take(str(tmp_path / "scratch"), "seg/a/1/x.evc")
    assert storage.read("seg/a/1/x.evc") == b"checkpoint"
    assert storage.find("seg") == ["seg/a/1/x.evc"]


def test_create_happens_once(storage: Storage) -> None:
    assert storage.create("seg/a/COMMIT.json", b"first")
    assert not storage.create("seg/a/COMMIT.json", b"second")
    assert storage.read("seg/a/COMMIT.json") == b"first"
    assert storage.find("seg") == ["seg/a/COMMIT.json"]


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", ""])
def test_paths_that_leave_the_root_are_refused(storage: Storage, path: str) -> None:
    with pytest.raises(RunError, match="storage root"):
        storage.read(path)


def test_a_pickled_storage_is_the_same_place(storage: Storage) -> None:
    storage.write("x", b"1")
    again = pickle.loads(pickle.dumps(storage))
    assert again == storage and again.read("x") == b"1"


def test_of_many_creators_one_wins_and_the_file_is_whole(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    wins: list[int] = []
    barrier = threading.Barrier(8)

    def race(n: int) -> None:
        for round_number in range(20):
            barrier.wait()
            if storage.create(f"{round_number}", bytes([n]) * 10_000):
                wins.append(round_number)
            assert len(set(storage.read(f"{round_number}"))) == 1

    threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wins) == list(range(20))
    assert len(os.listdir(tmp_path)) == 20


def test_without_hard_links_create_is_still_exclusive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*args: object) -> None:
        raise OSError(errno.ENOTSUP, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    storage = open_storage(tmp_path)
    assert storage.create("x", b"1") and not storage.create("x", b"2")
    assert os.listdir(tmp_path) == ["x"] and storage.read("x") == b"1"


def test_kinds_and_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_storage("runs/a") == LocalStorage(str(tmp_path / "runs" / "a"))
    assert open_storage(f"file://{tmp_path}") == LocalStorage(str(tmp_path))
    assert open_storage("memory://bucket/run/") == RemoteStorage("memory://bucket/run")
    assert open_storage("memory://bucket/run").url("x/y") == "memory://bucket/run/x/y"
    with pytest.raises(RunError, match="nosuchscheme"):
        open_storage("nosuchscheme://bucket")


@pytest.mark.parametrize("operation", ["read", "write", "take", "create", "delete", "find"])
def test_a_mount_point_without_its_file_system_is_an_error_and_nothing_is_left_there(
    operation: str, tmp_path: Path
) -> None:
    """A bare folder stands for the mount point, and a renamed one for the file system that is away."""
    storage = open_storage(tmp_path / "mounted", mark="RUN.json")
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / "RUN.json").touch()
    storage.write("seg/x", b"1")
    (tmp_path / "mounted").rename(tmp_path / "away")
    (tmp_path / "mounted").mkdir()
    (tmp_path / "local").write_bytes(b"2")
    arguments: dict[str, tuple[object, ...]] = {
        "read": ("seg/x",),
        "write": ("seg/y", b"2"),
        "take": (str(tmp_path / "local"), "seg/y"),
        "create": ("seg/y", b"2"),
        "delete": ("seg/x",),
        "find": ("seg",),
    }
    with pytest.raises(StorageError, match="mounted' has no RUN.json: it is not mounted, or was emptied"):
        getattr(storage, operation)(*arguments[operation])
    assert not list((tmp_path / "mounted").iterdir())
    (tmp_path / "mounted").rmdir()
    (tmp_path / "away").rename(tmp_path / "mounted")
    assert storage.find("seg") == ["seg/x"]
    with pytest.raises(FileNotFoundError):
        storage.read("seg/y")


@pytest.mark.parametrize("operation", ["write", "take", "create"])
def test_a_file_system_that_goes_away_in_mid_write_is_an_error(
    operation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(tmp_path, mark="RUN.json")
    (tmp_path / "RUN.json").touch()
    (tmp_path / "local").write_bytes(b"2")
    synced = os.fsync

    def pull(descriptor: int) -> None:
        synced(descriptor)
        (tmp_path / "RUN.json").unlink(missing_ok=True)

    monkeypatch.setattr(os, "fsync", pull)
    first = str(tmp_path / "local") if operation == "take" else "seg/y"
    second = "seg/y" if operation == "take" else b"2"
    with pytest.raises(StorageError, match="has no RUN.json"):
        getattr(storage, operation)(first, second)

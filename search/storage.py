"""Storage of checkpoints: a local folder or any fsspec URI. Whole files only: a path is absent or complete.

A `Storage` is picklable, so that a worker elsewhere can open the same place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from evocompress.errors import EvocompressError, RunError, StorageError

__all__ = ["LocalStorage", "RemoteStorage", "Storage", "open_storage", "write_whole"]

# Characters of a store's own words that a message of ours quotes.
_LONGEST = 300
# What os.link answers where the file system has no hard links.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class Storage(Protocol):
    """Files by relative path with forward slashes; what is missing raises `FileNotFoundError`."""

    def url(self, path: str) -> str:
        """The path or URI that names the file to anybody."""
        ...

    def read(self, path: str) -> bytes:
        """All bytes of a file."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Put a whole file there, over an old one if there is one."""
        ...

    def take(self, local: str, path: str) -> None:
        """Move a whole file of this machine there; afterwards it may or may not be at its old place too."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Put a whole file there unless there is one; whether this call did. At most one caller gets True."""
        ...

    def delete(self, path: str) -> None:
        """Remove a file or a folder with all in it; nothing happens where there is none."""
        ...

    def find(self, prefix: str) -> list[str]:
        """Paths of all files below `prefix`, sorted."""
        ...


def open_storage(uri: str | os.PathLike[str], *, mark: str = "") -> Storage:
    """The storage at a local path (made absolute, for workers with another working folder) or at a URI.

    `mark` is for local ones, see `LocalStorage`: a store at a URI answers with an error where it is away.
    """
    text = os.fspath(uri)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    if "://" not in text:
        return LocalStorage(os.path.abspath(text), mark)
    with _one_error(text, absent=False):
        _filesystem(text.rstrip("/"))  # so that a scheme that nobody here knows is an error now
    return RemoteStorage(text.rstrip("/"))


def _checked(path: str) -> str:
    """Paths come out of journals and COMMIT files too, so one that leaves the root is refused."""
    parts = PurePosixPath(path).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise RunError(f"path {path!r} is not below the storage root; the file that names it is damaged")
    return path


def write_whole(path: str, data: bytes) -> str:
    """Write and fsync `data` beside `path` under a name of its own; returns that name. Nothing is left on an error."""
    temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return temporary


@dataclasses.dataclass(frozen=True)
class LocalStorage:
    """A folder on a local or network file system.

    `mark` names a file in it that is there from the beginning, if there is one. Where it is missing the file system is
    not mounted, and the folder is what lies below: files written there would be hidden as soon as it is back. So
    whatever finds no mark, before a file is written or after, raises `StorageError`.
    """

    root: str
    mark: str = ""

    def url(self, path: str) -> str:
        """The absolute path."""
        return os.path.join(self.root, *PurePosixPath(_checked(path)).parts)

    def read(self, path: str) -> bytes:
        """All bytes of a file."""
        try:
            return Path(self.url(path)).read_bytes()
        except FileNotFoundError:
            self._look_for_mark()
            raise

    def write(self, path: str, data: bytes) -> None:
        """By a temporary file and a rename."""
        target = self._prepared(path)
        os.replace(write_whole(target, data), target)
        self._look_for_mark()

    def take(self, local: str, path: str) -> None:
        """By a rename, which saves writing a checkpoint twice; by a copy where scratch is on another disk."""
        target = self._prepared(path)
        descriptor = os.open(local, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.replace(local, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self.write(path, Path(local).read_bytes())
        self._look_for_mark()

    def create(self, path: str, data: bytes) -> bool:
        """By a hard link of a complete temporary file: the name appears with all its bytes, for one caller only.

        Where there are no hard links, by O_EXCL: still one caller, but a kill in mid write leaves a torn file.
        """
        target = self._prepared(path)
        temporary = write_whole(target, data)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return self._create_without_links(target, data)
        finally:
            os.unlink(temporary)
        self._look_for_mark()
        return True

    @staticmethod
    def _create_without_links(target: str, data: bytes) -> bool:
        try:
            with open(target, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            return False
        return True

    def delete(self, path: str) -> None:
        """A file, or a folder with all in it; links on the way to it must not lead out of the root.

        Raises:
            RunError: They do.
        """
        self._look_for_mark()
        target = self.url(path)
        root, home = os.path.realpath(self.root), os.path.realpath(os.path.dirname(target))
        if os.path.commonpath([root, home]) != root:
            raise RunError(f"{target} leads out of {self.root} by a link, and is not deleted")
        if os.path.isdir(target):
            shutil.rmtree(target, ignore_errors=True)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(target)

    def find(self, prefix: str) -> list[str]:
        """Paths of all files below `prefix`, sorted."""
        self._look_for_mark()
        root = Path(self.root)
        paths = [Path(folder, name) for folder, _, names in os.walk(self.url(prefix)) for name in names]
        return sorted(path.relative_to(root).as_posix() for path in paths)

    def _look_for_mark(self) -> None:
        if self.mark and not os.path.exists(os.path.join(self.root, self.mark)):
            raise StorageError(f"storage {self.root!r} has no {self.mark}: it is not mounted, or was emptied")

    def _prepared(self, path: str) -> str:
        self._look_for_mark()
        target = self.url(path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        return target


@functools.lru_cache(maxsize=16)
def _filesystem(root: str) -> tuple[Any, str]:
    """The fsspec file system of a URI and the root within it; listings are not cached, since other writers exist."""
    import fsspec  # only URIs need it

    try:
        filesystem, path = fsspec.core.url_to_fs(root, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise RunError(f"storage {root!r} cannot be used: {error}") from error
    return filesystem, str(path).rstrip("/")


@contextlib.contextmanager
def _one_error(root: str, *, absent: bool = True) -> Iterator[None]:
    """One error for whatever the libraries of stores raise: wrong tokens, no network, no such bucket.

    `absent` says whether a file may be missing there, which is no such error.
    """
    try:
        yield
    except (FileExistsError, EvocompressError):
        raise
    except Exception as error:
        if absent and isinstance(error, FileNotFoundError):
            raise
        words = " ".join(f"{type(error).__name__}: {error}".split())
        words = words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"
        raise StorageError(f"storage {root!r} cannot be used ({words})") from error


@dataclasses.dataclass(frozen=True)
class RemoteStorage:
    """Any fsspec URI. Object stores write whole files by themselves; `create` is exclusive where the store can do it
    (S3, GCS, Azure), elsewhere it looks first and writes then.
    """

    root: str

    def url(self, path: str) -> str:
        """The URI."""
        return f"{self.root}/{_checked(path)}"

    def _at(self, path: str) -> tuple[Any, str]:
        filesystem, root = _filesystem(self.root)
        return filesystem, f"{root}/{_checked(path)}"

    def read(self, path: str) -> bytes:
        """All bytes of a file."""
        with _one_error(self.root):
            filesystem, target = self._at(path)
            return bytes(filesystem.cat_file(target))

    def write(self, path: str, data: bytes) -> None:
        """In one put."""
        with _one_error(self.root, absent=False):
            filesystem, target = self._prepared(path)
            filesystem.pipe_file(target, data)

    def take(self, local: str, path: str) -> None:
        """By an upload, in parts where the store wants that."""
        with _one_error(self.root, absent=False):
            filesystem, target = self._prepared(path)
            filesystem.put_file(local, target)

    def create(self, path: str, data: bytes) -> bool:
        """In one put that the store refuses where there is a file."""
        try:
            with _one_error(self.root, absent=False):
                filesystem, target = self._prepared(path)
                filesystem.pipe_file(target, data, mode="create")
        except FileExistsError:
            return False
        return True

    def delete(self, path: str) -> None:
        """A file, or everything below a prefix."""
        with contextlib.suppress(FileNotFoundError), _one_error(self.root):
            filesystem, target = self._at(path)
            filesystem.rm(target, recursive=True)

    def find(self, prefix: str) -> list[str]:
        """Paths of all files below `prefix`, sorted."""
        with _one_error(self.root):
            filesystem, target = self._at(prefix)
            paths = filesystem.find(target)
        root = _filesystem(self.root)[1]
        return sorted(str(path).removeprefix(root).lstrip("/") for path in paths)

    def _prepared(self, path: str) -> tuple[Any, str]:
        filesystem, target = self._at(path)
        filesystem.makedirs(target.rsplit("/", 1)[0], exist_ok=True)
        return filesystem, target

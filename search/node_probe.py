"""Probe of a cluster's nodes: versions, the user's modules, the data, and whether the run's storage is the same."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from evocompress.errors import RunError
from evocompress.search.attempt import ChecksMachine
from evocompress.search.shipped_modules import ShippedModules
from evocompress.search.storage import LocalStorage, Storage

__all__ = ["NodeProbe", "Seen", "by_problem", "refusal", "versions_here"]

_PACKAGES = ("evocompress", "torch", "ray")
# Network file systems show a new file after a moment.
_PATIENCE = 3.0
_NAMED = 3


class Seen(NamedTuple):
    """What is wrong on a node: a sentence for each problem, none where all is well."""

    node: str
    problems: tuple[str, ...] = ()


def versions_here() -> dict[str, str]:
    """Versions that must agree: of Python without its third number, of torch without the name of its build."""
    versions = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "none"
    return versions


@dataclasses.dataclass(frozen=True)
class NodeProbe:
    """What a node must have; made by the driver, called on each node.

    Args:
        storage: Where the run's files go.
        imports: Modules that segments will import.
        modules: Sources that are sent along.
        path: Folders in which the driver finds modules.
        versions: The driver's, from `versions_here`.
    """

    storage: Storage
    imports: tuple[str, ...] = ()
    modules: ShippedModules = ShippedModules()
    path: tuple[str, ...] = ()
    versions: Mapping[str, str] = dataclasses.field(default_factory=versions_here)
    folder: str = dataclasses.field(default_factory=lambda: f"probe-{uuid.uuid4().hex[:12]}")

    def __call__(self, node_id: str, segment: object = None) -> Seen:
        """What is wrong on this node, also with what the segment needs there, if it can say so."""
        problems = [*self._versions(), *self._modules(), *self._storage(node_id)]
        if not problems and isinstance(segment, ChecksMachine):
            problems += self._machine(segment)
        return Seen(f"{socket.gethostname()} (node {node_id[:8]})", tuple(problems))

    @contextlib.contextmanager
    def begun(self) -> Iterator[None]:
        """While nodes look, a file of the driver's lies in the storage; afterwards all is as it was.

        Raises:
            RunError: The driver itself cannot write there.
        """
        root = self.storage.root if isinstance(self.storage, LocalStorage) else ""
        is_new = bool(root) and not os.path.exists(root)
        try:
            self.storage.write(self._file("driver"), self.folder.encode())
        except RunError:
            raise
        except OSError as error:
            raise RunError(f"storage {self._place()} cannot be written: {error}") from error
        try:
            yield
        finally:
            with contextlib.suppress(OSError, RunError):
                self.storage.delete(self.folder)
            if is_new:
                with contextlib.suppress(OSError):
                    os.rmdir(root)

    def check_answer(self, node_id: str, seen: Seen) -> Seen:
        """The same with what only the driver can tell: whether it sees what the node wrote."""
        if seen.problems or self._is_there(node_id):
            return seen
        return seen._replace(problems=(self._unseen("what it writes there is not seen by this driver"),))

    def _versions(self) -> Iterator[str]:
        here = versions_here()
        differences = [
            f"{name} {here.get(name, 'none')}, the driver has {version}"
            for name, version in self.versions.items()
            if here.get(name) != version
        ]
        if differences:
            yield f"has {'; '.join(differences)}: install the same, there or by resources.pip"

    def _modules(self) -> Iterator[str]:
        self.modules.install()
        sys.path[:0] = [folder for folder in self.path if folder not in sys.path]
        for name in self.imports:
            try:
                importlib.import_module(name)
            except (Exception, SystemExit) as error:
                yield f"cannot import {name} ({_words(error)}): install what it needs, or give it in resources.pip"
                return
        for name, module in self.modules.modules.items():
            place, source = _found(name)
            if source is not None and source != module.source:
                yield f"has another {name} than the driver ({place}): make them the same, or remove it there"

    def _machine(self, segment: ChecksMachine) -> Iterator[str]:
        try:
            segment.check_machine()
        except (Exception, SystemExit) as error:
            yield f"lacks what segments need ({_words(error)}): put it there"

    def _storage(self, node_id: str) -> Iterator[str]:
        try:
            if not self._is_there("driver"):
                yield self._unseen("what the driver writes there is not seen")
                return
            self.storage.write(self._file(node_id), self.folder.encode())
        except Exception as error:
            yield self._unseen(_words(error))

    def _is_there(self, name: str) -> bool:
        until = time.monotonic() + _PATIENCE
        while True:
            with contextlib.suppress(FileNotFoundError):
                return self.storage.read(self._file(name)) == self.folder.encode()
            if time.monotonic() >= until:
                return False
            time.sleep(0.2)

    def _file(self, name: str) -> str:
        return f"{self.folder}/{hashlib.sha256(name.encode()).hexdigest()[:16]}"

    def _place(self) -> str:
        return re.sub(rf"[/\\]{self.folder}.*$", "", self.storage.url(self.folder))

    def _unseen(self, why: str) -> str:
        return (
            f"does not see the run's storage {self._place()} ({why}): set storage to a folder that all machines share, "
            "or to an fsspec URI such as s3://bucket/run"
        )


def _found(name: str) -> tuple[str, bytes | None]:
    """Where a module comes from on this machine, and its source, if it has any."""
    with contextlib.suppress(Exception):
        spec = importlib.util.find_spec(name)
        loader: Any = None if spec is None else spec.loader
        if spec is not None and spec.origin and hasattr(loader, "get_data"):
            return spec.origin, loader.get_data(spec.origin)
    return "", None


def _words(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def by_problem(seen: Sequence[Seen]) -> list[tuple[str, str]]:
    """The names of nodes and what is wrong with them, equal problems once."""
    nodes: dict[str, list[str]] = {}
    for node, problems in seen:
        for problem in problems:
            nodes.setdefault(problem, []).append(node)
    told = []
    for problem, names in nodes.items():
        more = len(names) - _NAMED
        named = names[:_NAMED] + ([f"{more} more"] if more > 0 else [])
        told.append((" and ".join(filter(None, (", ".join(named[:-1]), named[-1]))), problem))
    return told


def refusal(seen: Sequence[Seen]) -> str:
    """One line of what is wrong, equal problems told once; empty where all is well.

    >>> refusal([Seen("a"), Seen("b", ("is slow",)), Seen("c", ("is slow",))])
    'b and c: is slow'
    """
    return "; ".join(f"{names}: {problem}" for names, problem in by_problem(seen))

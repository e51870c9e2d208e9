"""Shipment to the workers of a cluster: folders, modules, requirements, all checked before anything is started."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

from evocompress.errors import ConfigError
from evocompress.search.shipped_modules import ShippedModules

__all__ = ["Shipment", "left_out"]

# What Ray sends of a folder, at most, unless it was told another limit.
_LARGEST = 500 << 20
_LEFT_OUT = frozenset({".git", ".hg", ".venv", "venv", "__pycache__", "node_modules"})
_IGNORE_FILES = (".gitignore", ".rayignore")


@dataclasses.dataclass(frozen=True)
class Shipment:
    """What workers get; each part is empty where nothing was asked for.

    Args:
        modules: Modules of the user's, as their source.
        working_dir: A folder that is copied to all workers, and is their working folder.
        py_modules: Folders of packages, and files of modules, that are copied and can be imported.
        pip: Requirements that pip installs for the workers.
        image_uri: A container image that workers run in.
    """

    modules: ShippedModules = ShippedModules()
    working_dir: str = ""
    py_modules: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    image_uri: str = ""

    def check(self) -> None:
        """Refuse what cannot be sent.

        Raises:
            ConfigError: A folder is missing, or too large.
        """
        paths = [("working_dir", self.working_dir)] if self.working_dir else []
        for key, path in [*paths, *(("py_modules", path) for path in self.py_modules)]:
            if "://" in path:
                continue
            if not os.path.isdir(path) and not (key == "py_modules" and path.endswith(".py") and os.path.isfile(path)):
                kind = "folder" if key == "working_dir" else "folder or file *.py"
                raise ConfigError(f"resources.{key}: {path!r} is no {kind} on this machine; name one that is there")
            # What those files leave out is for Ray to say.
            if not any(os.path.exists(os.path.join(path, name)) for name in _IGNORE_FILES):
                _check_size(key, path)

    def of_the_job(self) -> dict[str, Any]:
        """The keys of Ray's `runtime_env` that it takes for a whole job only."""
        made: dict[str, Any] = {}
        if self.working_dir:
            made["working_dir"] = self.working_dir
        if self.py_modules:
            made["py_modules"] = list(self.py_modules)
        if made:
            folders = [path for path in (self.working_dir, *self.py_modules) if os.path.isdir(path)]
            made["excludes"] = sorted({name for folder in folders for name in left_out(folder)})
        return made

    def of_a_task(self) -> dict[str, Any]:
        """Those that each task may have."""
        return ({"pip": list(self.pip)} if self.pip else {}) | ({"image_uri": self.image_uri} if self.image_uri else {})


def left_out(folder: str) -> Iterator[str]:
    """What of a folder is never sent, as patterns of .gitignore: virtual environments, run folders, histories."""
    for place, names, _ in os.walk(folder):
        for name in list(names):
            path = os.path.join(place, name)
            if name in _LEFT_OUT or any(
                os.path.exists(os.path.join(path, mark)) for mark in ("pyvenv.cfg", "run.json")
            ):
                names.remove(name)
                yield "/" + os.path.relpath(path, folder).replace(os.sep, "/")


def _check_size(key: str, folder: str) -> None:
    without = {os.path.join(folder, name.lstrip("/")) for name in left_out(folder)}
    total, largest = 0, (0, "")
    for place, names, files in os.walk(folder):
        names[:] = [name for name in names if os.path.join(place, name) not in without]
        for path in (os.path.join(place, name) for name in files):
            if os.path.isfile(path):
                size = os.path.getsize(path)
                total, largest = total + size, max(largest, (size, path))
        if total > _LARGEST:
            raise ConfigError(
                f"resources.{key}: {folder!r} is too large to be sent: over {_LARGEST >> 20} MiB, such as {largest[1]} "
                f"({largest[0] >> 20} MiB); leave data elsewhere, or name it in a .rayignore there"
            )

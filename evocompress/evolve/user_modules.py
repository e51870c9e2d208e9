"""Source of the modules that a configuration names, with what they import from beside them: it is sent to workers."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from evocompress.errors import ConfigError
from evocompress.search.shipped_modules import ShippedModule, ShippedModules

__all__ = ["modules_of", "user_modules"]

# Sources alone are never that large: what is, is no package.
_LARGEST = 16 << 20


def modules_of(references: Iterable[str]) -> tuple[str, ...]:
    """The modules of references such as `package.module:attribute`, each once.

    >>> modules_of(["spirals:network", "spirals:data"])
    ('spirals',)
    """
    return tuple(dict.fromkeys(reference.partition(":")[0] for reference in references))


def user_modules(names: Iterable[str]) -> ShippedModules:
    """Sources of modules, of the packages that they are in, and of what those import from the same folders.

    What is installed stays out, and so does all that is not Python.

    Raises:
        ConfigError: They are too large.
    """
    modules: dict[str, ShippedModule] = {}
    tops = {name.partition(".")[0] for name in names}
    waiting = [(top, folder) for top in sorted(tops) if (folder := _folder_of(top)) is not None]
    while waiting:
        top, folder = waiting.pop()
        if top in modules:
            continue
        files = dict(_files(top, folder, top in tops))
        modules |= files
        if sum(len(module.source) for module in modules.values()) > _LARGEST:
            raise ConfigError(
                f"{top} in {folder} has over {_LARGEST >> 20} MiB of Python to be sent to the workers; install it there"
            )
        waiting += [(other, folder) for module in files.values() for other in _imported(module) if other not in modules]
    return ShippedModules(modules)


def _folder_of(top: str) -> Path | None:
    """The folder that a module or package of the user's lies in; nothing where it is installed, or part of Python."""
    spec = importlib.util.find_spec(top)
    if spec is None or top == __name__.partition(".")[0]:
        return None
    places = [spec.origin] if spec.has_location and spec.origin else []
    if spec.submodule_search_locations:
        places = list(spec.submodule_search_locations)
    elif places and Path(places[0]).suffix != ".py":
        return None
    if not places:
        return None
    folder = Path(os.path.realpath(places[0])).parent
    installed = [os.path.realpath(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib")]
    return None if any(folder.is_relative_to(place) for place in installed) else folder


def _files(top: str, folder: Path, named: bool) -> Iterator[tuple[str, ShippedModule]]:
    """The module, or the package with all below it, of that name in a folder.

    A folder without `__init__.py` is a package only where the configuration has `named` it: it may hold anything.
    """
    file, package = folder / f"{top}.py", folder / top
    if (package / "__init__.py").is_file():
        yield from _package(top, package)
    elif file.is_file():
        yield top, ShippedModule(str(file), file.read_bytes())
    elif named and package.is_dir():
        yield from _package(top, package)


def _package(name: str, folder: Path) -> Iterator[tuple[str, ShippedModule]]:
    start = folder / "__init__.py"
    below = [entry for entry in sorted(folder.iterdir()) if entry.stem.isidentifier() and entry != start]
    inner = [
        module
        for entry in below
        if entry.name.isidentifier() and any(entry.glob("*.py")) and not _is_no_package(entry)
        for module in _package(f"{name}.{entry.name}", entry)
    ]
    files = [entry for entry in below if entry.suffix == ".py" and entry.is_file()]
    if start.is_file() or files or inner:
        yield name, ShippedModule(str(start), start.read_bytes() if start.is_file() else b"", True)
    yield from ((f"{name}.{file.stem}", ShippedModule(str(file), file.read_bytes())) for file in files)
    yield from inner


def _is_no_package(folder: Path) -> bool:
    return folder.name == "__pycache__" or any((folder / mark).exists() for mark in ("pyvenv.cfg", "run.json"))


def _imported(module: ShippedModule) -> set[str]:
    """The first parts of what a module imports anywhere in it, by full names."""
    try:
        nodes = list(ast.walk(ast.parse(module.source)))
    except (SyntaxError, ValueError):
        return set()
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {__name__.partition(".")[0]}

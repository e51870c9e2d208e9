"""Python modules that travel as their source: what a worker does not find by itself, it imports from there."""

from __future__ import annotations

import dataclasses
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from types import CodeType, ModuleType
from typing import NamedTuple

__all__ = ["ShippedModule", "ShippedModules"]


class ShippedModule(NamedTuple):
    """A module's file as it is named where it comes from, its bytes, and whether other modules lie below it."""

    file: str
    source: bytes
    is_package: bool = False


@dataclasses.dataclass(frozen=True)
class ShippedModules:
    """Modules by their full names; plain data, so that they can be sent to any worker."""

    modules: Mapping[str, ShippedModule] = dataclasses.field(default_factory=dict)

    def install(self) -> None:
        """Make them importable here, after all that is found otherwise: a file that lies here too comes first.

        A file beside the module, such as its data, is then found where there is one.
        """
        if self.modules and not any(isinstance(f, _Finder) and f.modules == self.modules for f in sys.meta_path):
            sys.meta_path.append(_Finder(self.modules))


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, modules: Mapping[str, ShippedModule]) -> None:
        self.modules = modules

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        module = self.modules.get(fullname)
        if module is None:
            return None
        spec = importlib.machinery.ModuleSpec(
            fullname, _Loader(module), origin=module.file, is_package=module.is_package
        )
        spec.has_location = True
        return spec


class _Loader(importlib.abc.InspectLoader):
    def __init__(self, module: ShippedModule) -> None:
        self._module = module

    def is_package(self, fullname: str) -> bool:
        return self._module.is_package

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self._module.source)

    def get_data(self, path: str) -> bytes:
        """The source, as loaders of files give it."""
        return self._module.source

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self._module.source, self._module.file)

"""Lazy imports (PEP 562): public names of a package whose modules are imported when a name is first asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["lazy_exports"]


def lazy_exports(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's `__getattr__` and `__dir__` (PEP 562), so that importing it costs nothing.

    Args:
        package: The package's `__name__`.
        homes: Public name to the module of the package that has it, relative: "packing".

    >>> get, listed = lazy_exports("evocompress.support", {"format_bytes": "quantities"})
    >>> get("format_bytes")(912), listed()
    ('912 B', ['format_bytes'])
    """

    def get(name: str) -> Any:
        if name in homes:
            return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: sorted(homes)

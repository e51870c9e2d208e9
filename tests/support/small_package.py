"""A package as pip would have installed it, written into a folder: modules, and a .dist-info with its entry points."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from evocompress import extensions
from evocompress.extensions import Extensions

__all__ = ["every_list", "installed", "write_package"]


def write_package(folder: Path, name: str, modules: Mapping[str, str], points: Mapping[str, Mapping[str, str]]) -> None:
    """Write a distribution: `modules` from name to source, `points` from group to {name: "module:attribute"}."""
    for module, source in modules.items():
        path = folder / f"{module.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    groups = (
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in rows.items()) for group, rows in points.items()
    )
    (info / "entry_points.txt").write_text("\n".join(groups))


def every_list() -> list[Extensions]:
    """All lists of names."""
    return [value for value in vars(extensions).values() if isinstance(value, Extensions)]


#: What keeps a list that packages add to, once it has been asked.
_KEPT = (
    ("evocompress.codecs.registry", "_parsed"),
    ("evocompress.calibration.layer_views", "_views"),
    ("evocompress.evolve.config", "genes_model"),
    ("evocompress.training.genes", "gene_specs"),
)


def _forget() -> None:
    importlib.invalidate_caches()
    for module, function in _KEPT:
        if module in sys.modules:
            getattr(sys.modules[module], function).cache_clear()
    for kind in every_list():
        kind.__dict__.pop("_added", None)
        for name in set(kind._loaded) - set(kind.builtin):
            del kind._loaded[name]


@contextmanager
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With what lies in a folder installed in this process."""
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(folder))
        _forget()
        try:
            yield
        finally:
            patch.undo()
            _forget()

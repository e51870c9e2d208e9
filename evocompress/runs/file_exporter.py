"""Exporter of one file: what a row of `extensions.EXPORTERS` is whose file may have a name of the user's choice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evocompress.search.history import History
    from evocompress.search.records import Leaf

__all__ = ["FileExporter"]


@dataclasses.dataclass(frozen=True)
class FileExporter:
    """Writes `file` into a run's `export/`, or another file of this suffix where one is named (`write`).

    Those that are `in_report` are written when a run ends, and by the command `report`; others when they are asked for.
    """

    file: str
    write: Callable[[History, Path], None]
    in_report: bool = True

    @property
    def suffix(self) -> str:
        """What the names of its files end with."""
        return Path(self.file).suffix

    def __call__(self, history: History, folder: Path, read_leaf: Callable[[Leaf], bytes]) -> list[Path]:
        """Write the file into a folder."""
        path = folder / self.file
        self.write(history, path)
        return [path]

"""A run for notebooks: its front, its table, its files.

run = evocompress.open_run("runs/digits")
run.front()[0].nbytes
run.dataframe().plot.scatter("bytes", "quality", logx=True)
model = run.leaf(run.front()[0].leaf_id).load(model)
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from evocompress.errors import RunError
from evocompress.runs.front import FrontPoint, front
from evocompress.runs.leaf_table import flat_rows
from evocompress.search.history import History, read_history
from evocompress.search.records import Leaf
from evocompress.support.optional_libraries import needs_extra
from evocompress.support.quantities import format_bytes
from evocompress.support.wording import counted

if TYPE_CHECKING:
    import pandas
    from torch import nn

__all__ = ["OpenedLeaf", "OpenedRun", "open_run"]

ModuleT = TypeVar("ModuleT", bound="nn.Module")


@dataclasses.dataclass(frozen=True)
class OpenedLeaf:
    """A file of a run: `record` is what the journal says of it."""

    record: Leaf
    history: History

    def __repr__(self) -> str:
        """Which file it is, in a line: what the journal says of it takes pages."""
        quality = self.history.quality
        judged = f"{quality.name} {quality.show(self.record.quality)} (validation)"
        return f"<OpenedLeaf {self.record.leaf_id}: {format_bytes(self.record.nbytes)}, {judged}>"

    def read(self) -> bytes:
        """The file's bytes.

        Raises:
            RunError: The file is gone, as those are that nothing needs any more.
        """
        try:
            return self.history.storage.read(self.record.path)
        except FileNotFoundError:
            raise RunError(f"{self.record.path} is gone, as files are that nothing needs any more") from None

    def load(self, model: ModuleT, *, max_output_bytes: int | None = None) -> ModuleT:
        """Put its weights into a module of the run's network, in place, and return that.

        The network has the options that the genome says (`record.genome`, names that begin with `option.`). A run that
        came from elsewhere may be read with a limit, as `evocompress.load` has it.

        Raises:
            ModelError: The file does not fit.
            RunError: The file is gone.
        """
        from evocompress.checkpoint.loading import load_bytes

        return load_bytes(self.read(), model, self.record.path, max_output_bytes=max_output_bytes)


@dataclasses.dataclass(frozen=True)
class OpenedRun:
    """A run as it was when it was opened; `history` has all that was recorded."""

    history: History

    def __repr__(self) -> str:
        """Which run it is, in a line: its history takes pages."""
        files = counted(len(self.front()), "file")
        return f"<OpenedRun {self.history.folder}: {counted(len(self.history.outcomes), 'segment')}, front of {files}>"

    def front(self) -> Sequence[FrontPoint]:
        """The files that no other is both smaller and better than, smallest first; audited where the run has ended."""
        return front(self.history)

    def leaf(self, leaf_id: str) -> OpenedLeaf:
        """A file by its id.

        Raises:
            RunError: There is none of this id.
        """
        if leaf_id not in self.history.leaves:
            some = next(iter(self.history.leaves), "")
            raise RunError(f"{self.history.folder} has no leaf {leaf_id!r}; ids are such as {some!r}")
        return OpenedLeaf(self.history.leaves[leaf_id], self.history)

    def rows(self) -> list[dict[str, Any]]:
        """One row for each leaf: `leaf_table.flat_rows`, whose columns `leaf_table.meaning_of` explains."""
        return flat_rows(self.history)

    def dataframe(self) -> pandas.DataFrame:
        """`rows` as a pandas data frame.

        Raises:
            EvocompressError: pandas is not installed.
        """
        with needs_extra("dataframe"):
            import pandas
        return pandas.DataFrame(self.rows())


def open_run(folder: str | os.PathLike[str]) -> OpenedRun:
    """The run in a folder, finished or going on; nothing that it names is imported.

    Raises:
        RunError: There is no run, or its journal is damaged.
    """
    return OpenedRun(read_history(Path(folder)))

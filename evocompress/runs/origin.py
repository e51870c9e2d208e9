"""Origin of a file: the run whose folder it lies in, the leaf that it is, and how many files were evaluated there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from evocompress.errors import RunError
from evocompress.search.records import Leaf

if TYPE_CHECKING:
    from evocompress.search.history import History

__all__ = ["files_evaluated", "leaf_of", "run_of"]


def run_of(path: str | os.PathLike[str]) -> Path | None:
    """The run folder that a file is in, at any depth; None outside of any."""
    return next((folder for folder in Path(os.path.abspath(path)).parents if (folder / "run.json").is_file()), None)


def leaf_of(history: History, data: bytes, name: str) -> Leaf:
    """The leaf with these bytes, wherever its file was copied to.

    Raises:
        RunError: The run has none; `name` is what to call the file.
    """
    digest = hashlib.sha256(data).hexdigest()
    leaf = next((leaf for leaf in history.leaves.values() if leaf.sha256 == digest), None)
    if leaf is None:
        raise RunError(f"{name} is none of the files that the run {history.folder} evaluated.")
    return leaf


def files_evaluated(history: History) -> int:
    """How many files the run's segments evaluated at most: each its genome and its probes, kept as leaves or not.

    Segments that failed or are still going on count in full, and so do those of a run whose front was the beginning.
    """
    before = sum(int(event["evaluated"]) for event in history.events("seeded"))
    return before + sum(1 + len(task.probes) for task in history.tasks.values())

"""Runs of the toy segment in a folder, and what they leave: for tests that disturb one and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evocompress.search.history import read_history
from evocompress.search.inline_executor import InlineExecutor
from evocompress.search.run_folder import Run, open_run
from evocompress.search.toy_segment import ToySegment, toy_settings, toy_space

__all__ = ["leaves", "open_toy", "undisturbed_leaves"]


def open_toy(folder: Path, resume: bool = False, **settings: Any) -> Run:
    """A run in a folder, deterministic and of twelve segments unless settings say otherwise."""
    chosen = toy_settings(**{"segments": 12, "deterministic": True, "lag": 3, **settings})
    return open_run(folder, header={"config": {}}, space=toy_space(), settings=chosen, resume=resume)


def leaves(folder: Path) -> list[tuple[str, str]]:
    """Id and hash of every leaf."""
    return sorted((leaf.leaf_id, leaf.sha256) for outcome in read_history(folder).outcomes for leaf in outcome.leaves)


def undisturbed_leaves(folder: Path, **settings: Any) -> list[tuple[str, str]]:
    """The leaves of such a run that nobody disturbed, one segment after the other."""
    with open_toy(folder, **settings) as run:
        assert run.drive(InlineExecutor(ToySegment(), run.storage)) == "finished"
    return leaves(folder)

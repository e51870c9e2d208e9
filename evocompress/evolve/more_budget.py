"""A larger budget for a run that goes on."""

from __future__ import annotations

import os
from pathlib import Path

from evocompress.errors import ConfigError
from evocompress.evolve.config import Config
from evocompress.search.history import read_history

__all__ = ["with_more"]


def with_more(
    config: Config, folder: str | os.PathLike[str], *, segments: int | None = None, seconds: float | None = None
) -> Config:
    """The configuration with another budget: segments beyond those that were begun, seconds beyond what was used.

    The budget of before no longer counts; where only one of the two is given, the other has no bound.

    Raises:
        ConfigError: Neither is given, or one is not above 0.
        RunError: There is no run in the folder.
    """
    if segments is None and seconds is None:
        raise ConfigError("give segments or seconds.")
    if (segments is not None and segments < 1) or (seconds is not None and not seconds > 0):
        raise ConfigError("a run goes on for at least one segment, or for some time.")
    history = read_history(Path(folder))
    budget = {
        "segments": None if segments is None else len(history.tasks) + segments,
        "minutes": None if seconds is None else round((history.elapsed + seconds) / 60, 3),
    }
    return config.model_copy(update={"search": config.search.model_copy(update=budget)})

"""A request that a run's driver stops: a file in the run folder, so that any machine that sees it can ask."""

from __future__ import annotations

import os
from pathlib import Path

from evocompress.errors import RunError
from evocompress.search.history import read_run_json

__all__ = ["ask_to_stop", "forget_request", "is_asked_to_stop"]

_NAME = "STOP"


def ask_to_stop(folder: str | os.PathLike[str]) -> None:
    """Leave the request; the driver sees it within a second or so.

    Raises:
        RunError: There is no run in the folder, or the request cannot be written there.
    """
    read_run_json(folder)
    try:
        (Path(folder) / _NAME).touch()
    except OSError as error:
        raise RunError(f"{folder}: the request to stop cannot be written ({error})") from error


def is_asked_to_stop(folder: str | os.PathLike[str]) -> bool:
    """Whether there is one."""
    return (Path(folder) / _NAME).exists()


def forget_request(folder: str | os.PathLike[str]) -> None:
    """Remove it: it was for an earlier driver, or has been heard."""
    (Path(folder) / _NAME).unlink(missing_ok=True)

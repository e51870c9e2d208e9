"""Folders of data sets, and the error for one that is missing."""

from __future__ import annotations

import os
from pathlib import Path

from evocompress.errors import DataError

__all__ = ["data_root", "missing"]


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """`root` if given, else $EVOCOMPRESS_DATA, else `evocompress/data` in the user's cache folder."""
    chosen = root or os.environ.get("EVOCOMPRESS_DATA")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs  # where nobody names a folder

    return Path(platformdirs.user_cache_dir("evocompress", appauthor=False)) / "data"


def missing(name: str, path: Path) -> DataError:
    """The error for a data set that is not there; it says how to get it."""
    instead = "or set EVOCOMPRESS_DATA to the folder that holds it"
    return DataError(
        f"data set {name!r} is not on this machine: {path} does not exist. Call `fetch({name!r})` of "
        f"evocompress.data.download, {instead}."
    )

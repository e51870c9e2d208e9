"""Optional dependencies: which extra to install where a library is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from evocompress.errors import EvocompressError

__all__ = ["needs_extra"]


@contextlib.contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a failed import of a library into an error that names the extra which installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "evocompress":
            raise
        raise EvocompressError(
            f"This needs the library {error.name!r}, which is not installed: pip install 'evocompress[{extra}]'."
        ) from error

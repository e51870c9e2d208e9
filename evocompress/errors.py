"""The one exception tree. This module imports nothing of the package, so every folder may import it."""

import contextlib
from collections.abc import Iterator

__all__ = [
    "CodecError",
    "ConfigError",
    "DataError",
    "EvocompressError",
    "FormatError",
    "HopelessError",
    "InfrastructureError",
    "JournalError",
    "ModelError",
    "RunError",
    "StorageError",
    "about_argument",
]


class EvocompressError(Exception):
    """Base of every error that this package raises on purpose; the command line prints it without a traceback.

    `argument` is the name of the argument that it is about, where a caller may know that by another name: the command
    line begins the message with the option.
    """

    argument: str | None = None


class ConfigError(EvocompressError, ValueError):
    """A configuration key or value breaks a rule; the message names the key, the value, the rule and the fix."""


class DataError(EvocompressError):
    """A data set is missing or damaged; the message says how to get it."""


class CodecError(EvocompressError, ValueError):
    """A tensor or a codec parameter cannot be encoded; the message names the tensor."""


class FormatError(EvocompressError, ValueError):
    """Bytes are not a valid `.evc` file: truncated, damaged, of another version, or hostile."""


class ModelError(EvocompressError):
    """A network does not fit its weights, or a factory does not return a network."""


class RunError(EvocompressError):
    """A run folder cannot be used: locked by another driver, damaged, or of another configuration."""


class JournalError(RunError):
    """A run's journal is damaged: `damage` says how; `search.repair.repair_run` rebuilds it."""

    def __init__(self, damage: str, folder: object = None) -> None:
        super().__init__(damage, folder)
        self.damage, self.folder = damage, folder

    def __str__(self) -> str:
        if self.folder is None:
            return self.damage
        return f"{self.damage}; `repair_run({self.folder})` rebuilds it from the segments' files"


class HopelessError(RunError):
    """The first segments of a run all failed with the same error; the run can go on once that is mended."""


class InfrastructureError(RunError):
    """A segment could not be run, for a reason that says nothing of it: a full disk, a lost worker, a missing file."""


class StorageError(InfrastructureError, OSError):
    """A store of files does not answer, or refuses, whatever library speaks to it; missing files are no such error."""


@contextlib.contextmanager
def about_argument(name: str, kind: type[EvocompressError] = EvocompressError) -> Iterator[None]:
    """Say in errors of this kind which argument they are about, unless one says it already."""
    try:
        yield
    except kind as error:
        error.argument = error.argument or name
        raise

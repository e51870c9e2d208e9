"""Exit codes of all commands, by name; docs/exit_codes.md says the same, and a test compares the two."""

from __future__ import annotations

import enum

from evocompress.errors import EvocompressError, HopelessError, InfrastructureError

__all__ = ["ExitCode", "exit_code_of"]


class ExitCode(enum.IntEnum):
    """How a command ended."""

    #: All is well.
    OK = 0
    #: The work itself went wrong: a full disk, too little memory, a run without a result, a defect.
    FAILED = 1
    #: What was given cannot be used: an option, a file, a network, data, a run's folder.
    UNUSABLE = 2
    #: A target was missed: no file is so small, or so good.
    MISSED = 3
    #: The first segments of a run all failed with the same error.
    HOPELESS = 4
    #: Ctrl-C or SIGTERM, or a run that ended before its budget was spent: it can go on.
    STOPPED = 130
    #: Who read the output went away.
    READER_GONE = 141


def exit_code_of(error: EvocompressError) -> ExitCode:
    """What an error of ours ends a command with: machines, disks and clusters fail; all else can be put right.

    >>> exit_code_of(InfrastructureError("the disk is full")).name
    'FAILED'
    """
    if isinstance(error, HopelessError):
        return ExitCode.HOPELESS
    return ExitCode.FAILED if isinstance(error, InfrastructureError) else ExitCode.UNUSABLE

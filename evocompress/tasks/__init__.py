"""Tasks, what networks are for: one file each, and `build`, which makes one by its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evocompress.errors import ConfigError, EvocompressError
from evocompress.extensions import TASKS
from evocompress.protocols import GeneSpec, Task
from evocompress.search.quality import Quality
from evocompress.support.user_objects import is_reference, resolve
from evocompress.support.wording import kind_of

__all__ = ["DEFAULT_TASK", "build"]

#: The task where nobody names one.
DEFAULT_TASK = "classification"

_METHODS = ("loss", "draw", "meter", "check")


def build(name: str) -> Task:
    """A task by its name in `extensions.TASKS`, or a user's `package.module:Class`.

    Raises:
        ConfigError: There is none of this name, it cannot be made without arguments, or lacks what a task needs.

    >>> build("classification").quality.name
    'accuracy'
    """
    if is_reference(name):
        factory = resolve(name, what="task")
    else:
        factory = TASKS.find(name, hint="A task of your own is written 'package.module:Class'.")
    try:
        made = factory()
    except EvocompressError:
        raise
    except Exception as failure:
        cause = f"{type(failure).__name__}: {failure}"
        raise ConfigError(f"task {name!r} cannot be made: {cause}; it must need no arguments") from failure
    return _checked(made, name)


def _checked(made: Any, name: str) -> Task:
    if isinstance(made, type):
        raise ConfigError(f"task {name!r} gives the class {made.__name__}; name the class itself")
    for method in _METHODS:
        if not callable(getattr(made, method, None)):
            raise ConfigError(
                f"task {name!r}: {kind_of(made)} has no method {method!r}; see evocompress.protocols.Task"
            )
    quality, genes = getattr(made, "quality", None), getattr(made, "genes", None)
    if not isinstance(quality, Quality):
        raise ConfigError(f"task {name!r}: quality is {quality!r}; it must be an evocompress.search.quality.Quality")
    if not isinstance(genes, Sequence) or not all(isinstance(gene, GeneSpec) for gene in genes):
        raise ConfigError(f"task {name!r}: genes is {genes!r}; it must be a tuple of evocompress.protocols.GeneSpec")
    task: Task = made
    return task

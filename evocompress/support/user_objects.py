"""Find what a user names in a configuration: an object of their own, a known name, an option of a function."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from evocompress.errors import ConfigError, EvocompressError

__all__ = ["check_options", "is_reference", "keyword_options", "one_of", "resolve"]


def one_of(choices: Iterable[str], name: str) -> str:
    """The end of an error message: the nearest of the known names, and all of them.

    >>> one_of(["mnist", "digits"], "digit")
    "Did you mean 'digits'? Known: digits, mnist."
    """
    names = sorted(choices)
    near = difflib.get_close_matches(name, names, n=1)
    return (f"Did you mean {near[0]!r}? " if near else "") + f"Known: {', '.join(names) or 'none'}."


def is_reference(name: str) -> bool:
    """Whether `name` is written as `package.module:attribute`."""
    return ":" in name


def resolve(reference: str, *, what: str = "object", error: type[EvocompressError] = ConfigError) -> Callable[..., Any]:
    """The callable that `package.module:attribute` names; the current folder is importable.

    `what` names its purpose in messages. Raises `error` where the module or the attribute does not exist, the module
    fails as it is imported, or the object cannot be called.

    >>> resolve("math:hypot")(3.0, 4.0)
    5.0
    """
    module_name, colon, attribute = reference.partition(":")
    if not colon or not attribute or not all(part.isidentifier() for part in module_name.split(".")):
        raise error(f"{what} {reference!r}: write it as 'package.module:attribute', the module as in an import")
    value: Any = _module(module_name, reference, what, error)
    file = getattr(value, "__file__", None)
    home = f"{module_name} ({file})" if file else module_name  # which may not be the one that was meant
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise error(f"{what} {reference!r}: {home} has no {part!r}. {one_of(_callables(value, module_name), part)}")
        value = getattr(value, part)
    if not callable(value):
        raise error(f"{what} {reference!r}: it is a {type(value).__name__}; it must be callable")
    return value  # type: ignore[no-any-return]


def _callables(place: object, module_name: str) -> list[str]:
    """Public names of what can be called in a module or class and was made there: none of what it imports."""
    names = []
    for name in vars(place) if hasattr(place, "__dict__") else ():
        value = getattr(place, name, None)
        # Classes and functions say where they are from; other callables, such as partial ones, are taken for its own.
        home = getattr(value, "__module__", None) if hasattr(value, "__name__") else module_name
        if callable(value) and not name.startswith("_") and f"{home}.".startswith(f"{module_name}."):
            names.append(name)
    return names


def _module(name: str, reference: str, what: str, error: type[EvocompressError]) -> Any:
    with contextlib.suppress(FileNotFoundError):  # the current folder may have been removed
        folder = os.getcwd()
        # Last, so that a file of the user's never shadows an installed package.
        if folder not in sys.path and "" not in sys.path:
            sys.path.append(folder)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as failure:
        if failure.name is None or not (name == failure.name or name.startswith(failure.name + ".")):
            raise error(f"{what} {reference!r}: importing {name} needs {failure.name!r}, not installed") from failure
        hint = "it must be installed, or lie in the current folder"
        if name.endswith(".py"):
            hint = "write it without .py, as in an import"
        raise error(f"{what} {reference!r}: there is no module {failure.name!r}; {hint}") from failure
    except (Exception, SystemExit) as failure:  # a script without `if __name__ == "__main__"` may end itself
        raise error(f"{what} {reference!r}: importing {name} failed: {type(failure).__name__}: {failure}") from failure


def keyword_options(function: Callable[..., Any], *, positional: bool = False) -> list[str] | None:
    """The names of a function's keyword-only parameters, without those that a partial one has bound; None for any name.

    `positional`: also the parameters that may be given by position or by name.

    >>> import functools
    >>> def make(network, *, depth, width=4): ...
    >>> keyword_options(functools.partial(make, depth=3))
    ['width']
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # of some functions that are written in C
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    bound = function.keywords if isinstance(function, functools.partial) else {}
    kinds = [inspect.Parameter.KEYWORD_ONLY, *([inspect.Parameter.POSITIONAL_OR_KEYWORD] if positional else [])]
    return [p.name for p in parameters if p.kind in kinds and p.name not in bound]


def check_options(
    function: Callable[..., Any], options: Mapping[str, Any], *, what: str, error: type[EvocompressError] = ConfigError
) -> None:
    """Refuse an option that `function` does not take as a keyword-only argument, naming the nearest that it does."""
    choices = keyword_options(function)
    for name in options:
        if choices is not None and name not in choices:
            raise error(f"{what}: unknown option {name!r}. {one_of(choices, name)}")

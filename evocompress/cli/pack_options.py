"""Options of `pack`, parsed and checked, alone and together, before any work."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from evocompress.errors import ConfigError, EvocompressError
from evocompress.support.command_line import about

if TYPE_CHECKING:
    import typer

    from evocompress.checkpoint.recipe import Rule

__all__ = [
    "check_combinations",
    "check_loss_increase",
    "check_rate_weight",
    "errors_name_options",
    "given_options",
    "parse_limit",
    "parse_rule",
]

_EXCLUDE = (("rate_weight", "relative_rate_weight", "max_bytes", "max_loss_increase"), ("data", "noise"))
#: What has no effect without one of others, and what it does with them.
_NEEDS = {
    "max_loss_increase": (("data",), "to measure the loss on"),
    "fit_confidence": (("data",), "to measure the loss on"),
    "allocation_rounds": (("data", "noise"), "to measure on"),
    "samples": (("data", "noise"), "to calibrate on"),
    "seed": (("data", "noise"), "to calibrate on"),
    "task": (("data",), "to judge on"),
    "device": (("data", "noise"), "to calibrate on"),
}


def given_options(context: typer.Context) -> list[str]:
    """The options that were typed, or come from the environment: those that are not at their defaults."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, source in sources.items() if source is not None and source.name != "DEFAULT"]


@contextlib.contextmanager
def errors_name_options(context: typer.Context) -> Iterator[None]:
    """Begin the message of errors that say which argument they are about with its option, and what that was given."""
    try:
        yield
    except EvocompressError as error:
        if error.argument is None:
            raise
        value = context.params.get(error.argument)
        flags = {parameter.name: max(parameter.opts, key=len) for parameter in context.command.params}
        with about(flags.get(error.argument, _flag(error.argument)), value if isinstance(value, str) else ""):
            raise


def check_combinations(options: Collection[str]) -> None:
    """Refuse options that exclude each other, and those that would have no effect.

    Raises:
        ConfigError: Says which, and what is missing.

    >>> check_combinations(["model", "data", "samples"])
    """
    for names in _EXCLUDE:
        if sum(name in options for name in names) > 1:
            listed = ", ".join(map(_flag, names[:-1])) + f" and {_flag(names[-1])}"
            raise ConfigError(f"{listed} exclude each other; give one.")
    if ("model" in options) != ("data" in options or "noise" in options):
        raise ConfigError("--model and --data (or --noise) belong together: give both, or neither.")
    for name, (others, purpose) in _NEEDS.items():
        if name in options and not any(other in options for other in others):
            either = _flag(others[0]) + "".join(f" (or {_flag(other)})" for other in others[1:])
            raise ConfigError(f"{_flag(name)} needs --model and {either}, {purpose}.")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def check_rate_weight(value: float | None, flag: str = "--rate-weight") -> None:
    """Refuse a λ that is not positive and finite.

    Raises:
        ConfigError: It is not.
    """
    if value is not None and not 0 < value < math.inf:
        raise ConfigError(f"{flag} {value:g}: must be a positive, finite number, such as 1e-4.")


def check_loss_increase(value: float | None) -> None:
    """Refuse a `--max-loss-increase` that is negative, infinite or NaN.

    Raises:
        ConfigError: It is.
    """
    if value is not None and not 0 <= value < math.inf:
        raise ConfigError(f"--max-loss-increase {value:g}: must be a finite number of at least 0, such as 0.01.")


def parse_limit(text: str | None) -> int | None:
    """`--max-bytes` in bytes.

    Raises:
        ConfigError: It is no size.
    """
    from evocompress.support.quantities import parse_bytes

    if text is None:
        return None
    with about("--max-bytes", text):
        return parse_bytes(text)


def parse_rule(text: str) -> Rule:
    """A rule from `--rule GLOB=CODEC[|CODEC…][@FACTOR]`.

    Raises:
        CodecError: It is not written so, there is no such codec, or the factor is not positive.

    >>> parse_rule("conv*=dct|deadzone@0.5")
    Rule(match='conv*', codecs=('dct', 'deadzone'), rate_factor=0.5, dims='any')
    """
    from evocompress.checkpoint.recipe import Rule

    with about("--rule", text):
        return Rule.parse(text)

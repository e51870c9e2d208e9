"""Argument checks for plans of connections."""

from __future__ import annotations

from collections.abc import Container, Sequence

from evocompress.errors import ConfigError
from evocompress.ideas.connections.plan import ConnectionPlan

__all__ = ["checked_plan", "lengths"]


def checked_plan(plan: ConnectionPlan) -> ConnectionPlan:
    """The plan.

    Raises:
        ConfigError: It is none.
    """
    if not isinstance(plan, ConnectionPlan):
        raise ConfigError(
            f"plan is {plan!r}; it must be a ConnectionPlan, such as ConnectionPlan(kernel=3). "
            "ConnectionPlan.from_genes makes one of a dict."
        )
    return plan


def lengths(name: str, value: Sequence[int], rule: str, counts: Container[int]) -> tuple[int, ...]:
    """Whole numbers from 1 on as a tuple.

    Args:
        name, value: The argument.
        rule: What it must be.
        counts: How many numbers there may be.

    Raises:
        ConfigError: It is something else.

    >>> lengths("in_size", [28, 28], "(height, width)", (2,))
    (28, 28)
    """
    fits = isinstance(value, tuple | list) and len(value) in counts
    if not fits or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in value):
        raise ConfigError(f"{name} is {value!r}; it must be {rule}, each 1 or more.")
    return tuple(value)

"""Quality of networks in a run: its name, unit and direction, and how it is written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

from evocompress.errors import ConfigError

__all__ = ["Direction", "Quality"]

Direction: TypeAlias = Literal["maximise", "minimise"]


@dataclasses.dataclass(frozen=True)
class Quality:
    """How a task's quality is named, compared and shown. The search itself minimises an error, which the task defines.

    A value is stored as it was measured, and shown times `scale`, with `digits` decimals and the unit behind it.

    >>> Quality("R²", unit="%", scale=100.0).show(0.97222)
    '97.22 %'
    >>> Quality("RMSE", unit="m", direction="minimise", digits=3).show(0.5)
    '0.500 m'
    """

    name: str
    unit: str = ""
    direction: Direction = "maximise"
    scale: float = 1.0
    digits: int = 2

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("A quality has no name; give one, such as 'RMSE'.")
        if self.direction not in get_args(Direction):
            raise ConfigError(f"direction is {self.direction!r}; it must be one of {', '.join(get_args(Direction))}.")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ConfigError(f"scale is {self.scale!r}; it must be positive and finite.")
        if not (isinstance(self.digits, int) and self.digits >= 0):
            raise ConfigError(f"digits is {self.digits!r}; it must be a whole number, 0 or more.")

    @property
    def is_maximised(self) -> bool:
        """Whether larger values are better."""
        return self.direction == "maximise"

    @property
    def is_share(self) -> bool:
        """Whether it is a share in [0, 1], shown in per cent, of which more is better."""
        return self.is_maximised and self.unit == "%" and self.scale == 100.0

    def merit(self, value: float) -> float:
        """The value with the sign that makes larger better: for comparisons and for curves that rise."""
        return value if self.is_maximised else -value

    def show(self, value: float) -> str:
        """A value as people read it."""
        return f"{self.scale * value:.{self.digits}f}{' ' if self.unit else ''}{self.unit}"

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Quality:
        """The inverse of `to_json`."""
        return cls(**data)

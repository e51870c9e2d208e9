"""Every knob of the search, checked once. What a run was made with is fixed in its `run.json`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from evocompress.errors import ConfigError

__all__ = ["SearchSettings", "Selection"]

Selection: TypeAlias = Literal["dominance", "scalar", "random"]

_SHARES = ("tournament_share", "size_bin_share", "budget_share", "continue_share", "mutate_share", "crossover_share")


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """Settings of one search; `ConfigError` names the one that breaks a rule.

    `segments` and `minutes` bound the run (None: no bound). `probes` is the largest K, `probe_share` the share of a
    segment that encode + decode + evaluate of all 1 + K recipes may take. `lag` is deterministic mode's L: decision i
    sees results up to i - L; None until `resolve`. `bytes_range` and `error_range` scale the objectives to [0, 1] and
    `reference` is the hypervolume's reference point on that scale. `selection`: "random" draws uniform parents from
    everything ever produced, "scalar" ranks by the sum of the scaled objectives; both are there for comparison.
    Shares are relative weights; `budget_share` counts only with a `byte_budget`, `size_bin_share` not with "random".

    >>> SearchSettings(deterministic=True).resolve(workers=3).lag
    6
    """

    seed: int = 0
    segments: int | None = None
    minutes: float | None = None
    initial: int = 16
    pool_size: int = 32
    probes: int = 4
    probe_share: float = 0.2
    deterministic: bool = False
    lag: int | None = None
    selection: Selection = "dominance"
    byte_budget: int | None = None
    bytes_range: tuple[float, float] = (256.0, 1048576.0)
    error_range: tuple[float, float] = (0.0, 1.0)
    reference: tuple[float, float] = (1.1, 1.1)
    tournament_size: int = 2
    size_bins: int = 8
    tournament_share: float = 0.70
    size_bin_share: float = 0.15
    budget_share: float = 0.15
    continue_share: float = 0.30
    mutate_share: float = 0.60
    crossover_share: float = 0.10
    mutation_rate: float = 0.3
    mutation_sigma: float = 0.15

    def __post_init__(self) -> None:
        for name in ("bytes_range", "error_range", "reference"):
            low, high = (float(value) for value in getattr(self, name))
            object.__setattr__(self, name, (low, high))
        self._check_counts()
        self._check_shares()
        self._check_scale()

    def _check_counts(self) -> None:
        for name in ("initial", "pool_size", "tournament_size", "size_bins"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}; it must be at least 1")
        for name in ("segments", "lag", "byte_budget"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}; it must be at least 1, or left out")
        if self.seed < 0:
            raise ConfigError(f"seed = {self.seed}; it must be 0 or more")
        if self.probes < 0:
            raise ConfigError(f"probes = {self.probes}; it must be 0 (off) or more")
        if self.minutes is not None and not self.minutes > 0:
            raise ConfigError(f"minutes = {self.minutes}; it must be above 0, or left out")
        if self.selection not in ("dominance", "scalar", "random"):
            raise ConfigError(f"selection = {self.selection!r}; it must be 'dominance', 'scalar' or 'random'")

    def _check_shares(self) -> None:
        for name in _SHARES:
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} = {getattr(self, name)}; it must be 0 or more and finite")
        if self.tournament_share <= 0:
            raise ConfigError(
                f"tournament_share = {self.tournament_share}; it must be above 0, the other rules fall back on it"
            )
        if self.continue_share + self.mutate_share + self.crossover_share <= 0:
            raise ConfigError("continue_share, mutate_share and crossover_share are all 0; raise at least one")
        if not 0 < self.probe_share < 1:
            raise ConfigError(f"probe_share = {self.probe_share}; it must be between 0 and 1")
        if not 0 < self.mutation_rate <= 1 or not 0 < self.mutation_sigma <= 1:
            raise ConfigError(
                f"mutation_rate = {self.mutation_rate}, mutation_sigma = {self.mutation_sigma}; both must be in (0, 1]"
            )

    def _check_scale(self) -> None:
        for name, floor in (("bytes_range", 1.0), ("error_range", 0.0)):
            low, high = getattr(self, name)
            if not (floor <= low < high < math.inf):
                raise ConfigError(f"{name} = ({low}, {high}); give low < high, both finite, low at least {floor:g}")
        if not all(0 < value < math.inf for value in self.reference):
            raise ConfigError(f"reference = {self.reference}; both coordinates must be above 0 and finite")

    def resolve(self, workers: int) -> SearchSettings:
        """These settings with `lag` filled in (2 * workers keeps 99 % of them busy), so that it can be fixed."""
        return self if self.lag is not None else dataclasses.replace(self, lag=2 * max(1, workers))

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data."""
        fields = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SearchSettings:
        """The inverse of `to_json`; an unknown key is an error."""
        unknown = sorted(set(data) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ConfigError(f"search settings have unknown keys {unknown}")
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        return cls(**fields)

"""Search settings: each once, with its type, default, rule and a sentence. `run.json` fixes what a run was made with.

Whoever lets people set them (a configuration file) reads names, defaults and rules from here: `USER_SETTINGS`.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evocompress.errors import ConfigError
from evocompress.extensions import SELECTION

if TYPE_CHECKING:
    from evocompress.search.selection_policies import Policy

__all__ = ["SETTINGS", "USER_SETTINGS", "SearchSettings", "Setting"]


_FEW = 8  # workers for which a lag of twice their number is enough


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is known of a setting beside its type and default.

    Args:
        sentence: What it does.
        low, high: The least and the largest value, of two numbers that of each; None for no bound.
        low_open, high_open: The bounds themselves are not allowed.
        ordered: Of two numbers the first must be below the second.
        users: Whether people set it; the others follow from what they do set.
        configured: Its default where people set it, if that is another one.
        unit: "bytes" for sizes, which people may write as "16kB".
        why: The reason for the rule, for its message.
    """

    sentence: str
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    ordered: bool = False
    users: bool = True
    configured: Any = None
    unit: str = ""
    why: str = ""

    @property
    def rule(self) -> str:
        """What a value must be, in words.

        >>> Setting("", low=0, high=1, low_open=True).rule
        'above 0 and at most 1'
        """
        low = "" if self.low is None else f"{'above' if self.low_open else 'at least'} {self.low:g}"
        high = "" if self.high is None else f"{'below' if self.high_open else 'at most'} {self.high:g}"
        return " and ".join(filter(None, (low, high)))

    def problem(self, value: Any) -> str:
        """What is wrong with a value (not None), in words; nothing if nothing is."""
        values = value if isinstance(value, tuple) else (value,)
        if problem := next(filter(None, map(self._problem_of_number, values)), ""):
            return problem
        is_disordered = self.ordered and not values[0] < values[-1]
        return "must be two numbers, the first below the second" if is_disordered else ""

    def _problem_of_number(self, value: Any) -> str:
        if self.low is None and self.high is None:
            return ""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "must be a number"
        above = self.low is None or (value > self.low if self.low_open else value >= self.low)
        below = self.high is None or (value < self.high if self.high_open else value <= self.high)
        if above and below and math.isfinite(value):
            return ""
        rule = self.rule if math.isfinite(value) else f"{self.rule} and finite"
        return f"must be {rule}{f', as {self.why}' if self.why else ''}"


def _setting(default: Any, sentence: str, **rule: Any) -> Any:
    return dataclasses.field(default=default, metadata={"setting": Setting(sentence, **rule)})


def _count(default: int | None, sentence: str, **rule: Any) -> Any:
    return _setting(default, sentence, low=1, **rule)


def _share(default: float, sentence: str, **rule: Any) -> Any:
    return _setting(default, sentence, low=0, **rule)


def _open_share(default: float, sentence: str, **rule: Any) -> Any:
    return _setting(default, sentence, low=0, high=1, low_open=True, **rule)


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """Settings of one search, described in `SETTINGS`; `ConfigError` names the one that breaks a rule.

    Shares are relative weights. `bytes_range` and `error_range` scale the objectives to [0, 1].

    >>> [SearchSettings(deterministic=True).resolve(workers).lag for workers in (3, 1000)]
    [6, 4090]
    >>> SETTINGS["pool_size"].sentence
    'How many leaves parents come from, at most.'
    """

    seed: int = _setting(0, "What every draw follows from.", low=0, users=False)
    segments: int | None = _count(None, "How many segments end the run; left out: no bound.", configured=200)
    minutes: float | None = _setting(None, "How many minutes end the run; left out: no bound.", low=0, low_open=True)
    give_up_after: int = _setting(
        8,
        "How many segments, the first of a run, end it where all fail with the same error; 0: it goes on.",
        low=0,
    )
    initial: int = _count(16, "How many segments start afresh, from genomes spread over the whole space.")
    pool_size: int = _count(32, "How many leaves parents come from, at most.")
    probes: int = _setting(4, "The most further recipes tried beside a segment's own; 0: none.", low=0)
    probe_share: float = _open_share(
        0.2, "The share of a segment's time that all its recipes together may take.", high_open=True
    )
    deterministic: bool = _setting(False, "Whether decisions depend neither on speed nor on faults.")
    lag: int | None = _count(
        None, "Deterministic: decision i sees results up to i - lag; left out: 16, which is enough for eight workers."
    )
    selection: str = _setting("dominance", "How parents are selected; packages add further ways.")
    byte_budget: int | None = _count(
        None,
        "A size under which some parents are the best, in bytes or as in 16kB; left out: no such parents.",
        unit="bytes",
    )
    bytes_range: tuple[float, float] = _setting(
        (256.0, 1048576.0),
        "The sizes that are 0 and 1 on the scale of the objectives; people set `ratio_range` instead.",
        low=1,
        ordered=True,
        users=False,
    )
    error_range: tuple[float, float] = _setting(
        (0.0, 1.0),
        "The errors that are 0 and 1 on the scale of the objectives.",
        low=0,
        ordered=True,
        configured=(0.0, 0.5),
    )
    reference: tuple[float, float] = _setting(
        (1.1, 1.1), "The hypervolume's reference point, on that scale.", low=0, low_open=True
    )
    tournament_size: int = _count(2, "Of how many random leaves of the pool the best becomes a parent.")
    size_bins: int = _count(8, "Into how many bins the front is cut by size.")
    tournament_share: float = _setting(
        0.70,
        "The share of parents by tournament.",
        low=0,
        low_open=True,
        why="the other rules fall back on it",
    )
    lineage_share: float = _setting(
        0.0,
        "The share of segments that go on with the newest lineage to the end of its way, whatever its rank; a new one "
        "begins where none is open.",
        low=0,
        high=1,
        configured=0.5,
    )
    lineage_turns: int = _setting(
        0,
        "How often a lineage that begins in the upper half of λ's range, where λ falls first, turns round at an end. "
        "One that begins in the lower half rises first, and turns round once less. 0: λ only rises.",
        low=0,
    )
    lineage_start: tuple[float, float] | None = _setting(
        None,
        "Where in λ's range, from 0 to 1, lineages begin; left out: in its lowest three tenths.",
        low=0,
        high=1,
        ordered=True,
    )
    lineage_step: float | None = _setting(
        None,
        "How far λ moves from one segment of a lineage to the next, as a share of its range, and up to half as far "
        "again where it comes to an end of it; left out: 0.12.",
        low=0,
        high=1,
        low_open=True,
    )
    size_bin_share: float = _share(0.15, "The share of parents from the front's least tried bin.")
    budget_share: float = _share(0.15, "The share of parents that are the best under byte_budget.")
    continue_share: float = _share(0.30, "The share of segments that go on with their parent's genome.")
    mutate_share: float = _share(0.60, "The share of segments that change it.")
    crossover_share: float = _share(0.10, "The share of segments that mix in a neighbour's recipe.")
    mutation_rate: float = _open_share(0.3, "The probability with which a gene changes.")
    mutation_sigma: float = _open_share(0.15, "How far it then moves, as a share of its range.")

    def __post_init__(self) -> None:
        for name, setting in SETTINGS.items():
            value = getattr(self, name)
            optional = name in _OPTIONAL
            if problem := "" if value is None and optional else _wrong_type(name, value) or setting.problem(value):
                raise ConfigError(f"{name} = {value}; it {problem}{', or left out' if optional else ''}")
            if _TYPES[name] == "tuple[float, float]" and value is not None:
                object.__setattr__(self, name, tuple(float(number) for number in getattr(self, name)))
        if self.continue_share + self.mutate_share + self.crossover_share <= 0:
            raise ConfigError("continue_share, mutate_share and crossover_share are all 0; raise at least one")

    @property
    def policy(self) -> Policy:
        """How parents are selected; looked up here, so that a run can be looked at without the package that adds it.

        Raises:
            ConfigError: There is no policy of this name.
        """
        from evocompress.search.selection_policies import Policy

        policy = SELECTION.find(self.selection)
        if not isinstance(policy, Policy):
            raise ConfigError(f"selection {self.selection!r} is a {type(policy).__name__}; it must be a Policy")
        return policy

    def resolve(self, workers: int) -> SearchSettings:
        """These settings with `lag` filled in, so that it can be fixed.

        Twice as many as there are workers keep 99 % of up to eight of them busy. All wait for the slowest segment of
        the last `lag`, and among more workers there is a slower one, and one that faults let begin again, and again:
        of 1 000 workers, with one segment in a hundred that crashes and one that gets lost, 76 % are busy with twice
        and 99 % with four times as many.
        """
        if self.lag is not None:
            return self
        times = 2.0 + 0.3 * math.log2(max(workers, _FEW) / _FEW)
        return dataclasses.replace(self, lag=math.ceil(times * max(1, workers)))

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data."""
        fields = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SearchSettings:
        """The inverse of `to_json`; an unknown key is an error."""
        for key in data:
            if key not in SETTINGS:
                near = difflib.get_close_matches(key, SETTINGS, n=1)
                raise ConfigError(f"search settings have no {key!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        return cls(**fields)


def _wrong_type(name: str, value: Any) -> str:
    """What is wrong with a value's type, in words: run.json may hold anything."""
    match _TYPES[name]:
        case "int":
            is_whole = _is_number(value) and isinstance(value, numbers.Integral)
            return "" if is_whole else "must be a whole number"
        case "float":
            return "" if _is_number(value) else "must be a number"
        case "tuple[float, float]":
            is_pair = isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_number, value))
            return "" if is_pair else "must be two numbers"
        case "bool":
            return "" if isinstance(value, bool) else "must be true or false"
        case _:
            return "" if isinstance(value, str) else "must be a text"


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, numbers.Real)


#: What is known of each setting, by name.
SETTINGS: Mapping[str, Setting] = {
    field.name: field.metadata["setting"] for field in dataclasses.fields(SearchSettings)
}
#: The settings that people set, by name. `ratio_range` becomes `bytes_range` by the size of a network in float32.
USER_SETTINGS: Mapping[str, Setting] = {
    "ratio_range": Setting(
        "How many times smaller than in float32 files are at the ends of the scale of sizes.",
        low=0,
        low_open=True,
        ordered=True,
        configured=(4.0, 512.0),
    ),
    **{name: setting for name, setting in SETTINGS.items() if setting.users},
}
#: Each setting's type as it is written above, without None.
_TYPES = {field.name: str(field.type).removesuffix(" | None") for field in dataclasses.fields(SearchSettings)}
_OPTIONAL = {field.name for field in dataclasses.fields(SearchSettings) if field.default is None}

"""Genes and the space that genomes live in. Every draw takes the generator it draws from."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from evocompress.errors import ConfigError
from evocompress.search.records import Genome, Scalar

__all__ = ["Choice", "Float", "Gene", "Integer", "Space"]


def _check_bounds(kind: str, low: float, high: float, log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"{kind} gene has low={low}, high={high}; both must be finite and low < high")
    if log and low <= 0:
        raise ConfigError(f"{kind} gene has low={low} on a log scale; use low > 0 or log=False")


def _from_unit(u: float, low: float, high: float, log: bool) -> float:
    if log:
        return math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
    return low + u * (high - low)


def _to_unit(value: float, low: float, high: float, log: bool) -> float:
    if log:
        return (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    return (value - low) / (high - low)


def _step(unit: float, rng: np.random.Generator, sigma: float) -> float:
    """A normal step in [0, 1], reflected at the ends so that they do not collect probability."""
    moved = abs(unit + sigma * float(rng.standard_normal())) % 2.0
    return 2.0 - moved if moved > 1.0 else moved


@dataclasses.dataclass(frozen=True)
class Float:
    """A real gene in [low, high], on a log scale if `log`. Values keep six significant digits: readable, exact in JSON.

    Args:
        low, high: The ends of its range.
        log: Whether its scale is logarithmic.
        start: The share of the range, from `low` on, that genomes of a fresh start are drawn from.
        advance: The share of the range that it moves by where a lineage goes on.

    >>> Float(1e-4, 1e-2, log=True).from_unit(0.5)
    0.001
    >>> gene = Float(1.0, 100.0, log=True, advance=0.25)
    >>> gene.advanced(10.0), gene.advanced(10.0, -1)
    (31.6228, 3.16228)
    """

    low: float
    high: float
    log: bool = False
    start: float = 1.0
    advance: float = 0.0

    def __post_init__(self) -> None:
        _check_bounds("Float", self.low, self.high, self.log)
        if not (0 < self.start <= 1 and 0 <= self.advance <= 1):
            shares = f"start={self.start}, advance={self.advance}"
            raise ConfigError(f"Float gene has {shares}; they are shares of the range, start above 0")

    def advanced(self, value: Scalar, direction: int = 1, step: float | None = None) -> float:
        """The value of a lineage's next segment, up (1) or down (-1); at the end of the range it stays.

        `step` replaces `advance`, but for a gene that does not advance. Where less than half of it would be left to
        the end, it goes there at once.
        """
        if self.advance == 0:
            return float(value)
        end = 1.0 if direction > 0 else 0.0
        moved = self.place(value) + direction * (self.advance if step is None else step)
        least = 0.0 if step is None else step / 2
        return self.from_unit(end if direction * (end - moved) < least else moved)

    def place(self, value: Scalar) -> float:
        """Where in the range a value lies, from 0 to 1; the inverse of `from_unit`."""
        return _to_unit(float(value), self.low, self.high, self.log)

    def from_unit(self, u: float) -> float:
        """The value at `u` in [0, 1]."""
        value = float(f"{_from_unit(u, self.low, self.high, self.log):.6g}")
        return min(max(value, self.low), self.high)

    def mutate(self, value: Scalar, rng: np.random.Generator, sigma: float) -> float:
        """A normal step of `sigma` of the range."""
        return self.from_unit(_step(_to_unit(float(value), self.low, self.high, self.log), rng, sigma))

    def accepts(self, value: Scalar) -> bool:
        """Whether `value` is one of this gene's."""
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def nearest(self, value: Scalar) -> float:
        """The value of this gene that is nearest to another number; of what is none, `low`."""
        return min(max(float(value), self.low), self.high) if isinstance(value, int | float) else self.low


@dataclasses.dataclass(frozen=True)
class Integer:
    """A whole-number gene in [low, high], both included.

    >>> [Integer(1, 3).from_unit(u) for u in (0.0, 0.5, 1.0)]
    [1, 2, 3]
    """

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        _check_bounds("Integer", self.low, self.high, self.log)

    def _edges(self) -> tuple[float, float]:
        # Half a unit on each side gives the end values the same share of the range as the others.
        return (self.low if self.log else self.low - 0.5), self.high + (1.0 if self.log else 0.5)

    def from_unit(self, u: float) -> int:
        """The value at `u` in [0, 1]."""
        low, high = self._edges()
        value = _from_unit(u, low, high, self.log)
        return min(max(math.floor(value if self.log else value + 0.5), self.low), self.high)

    def mutate(self, value: Scalar, rng: np.random.Generator, sigma: float) -> int:
        """A normal step of `sigma` of the range, of at least one."""
        number = int(value)
        mutated = self.from_unit(_step(_to_unit(number, *self._edges(), self.log), rng, sigma))
        if mutated != number:
            return mutated
        up = bool(rng.random() < 0.5)
        return number + 1 if (up and number < self.high) or number == self.low else number - 1

    def accepts(self, value: Scalar) -> bool:
        """Whether `value` is one of this gene's."""
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def nearest(self, value: Scalar) -> int:
        """The value of this gene that is nearest to another number; of what is none, `low`."""
        return min(max(round(value), self.low), self.high) if isinstance(value, int | float) else self.low


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of a few options without an order."""

    options: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(self.options))
        if not self.options or len(set(map(repr, self.options))) != len(self.options):
            raise ConfigError(f"Choice gene has options={self.options}; give at least one, each once")

    def from_unit(self, u: float) -> Scalar:
        """The option at `u` in [0, 1]."""
        return self.options[min(int(u * len(self.options)), len(self.options) - 1)]

    def mutate(self, value: Scalar, rng: np.random.Generator, sigma: float) -> Scalar:
        """Another option, each alike (`sigma` has no meaning here)."""
        others = [option for option in self.options if repr(option) != repr(value)]
        return others[int(rng.integers(len(others)))] if others else value

    def accepts(self, value: Scalar) -> bool:
        """Whether `value` is one of this gene's."""
        return any(repr(option) == repr(value) for option in self.options)

    def nearest(self, value: Scalar) -> Scalar:
        """The value itself if it is an option, else the first."""
        return value if self.accepts(value) else self.options[0]


Gene: TypeAlias = Float | Integer | Choice


def _begins(gene: Gene) -> bool:
    return isinstance(gene, Float) and (gene.start < 1 or gene.advance > 0)


_TYPES: dict[str, type[Float] | type[Integer] | type[Choice]] = {"float": Float, "integer": Integer, "choice": Choice}


@dataclasses.dataclass(frozen=True)
class Space:
    """The genes by name; `recipe` names those that a probe may change without training anew.

    `lasting` names those that a lineage keeps from its first genome to its last, such as the width of its network.
    `defaults` has what genes were, in genomes of before they were added to the space.

    Draws go over the names in sorted order, so a space that came back from JSON draws the same.

    >>> space = Space({"lr": Float(1e-4, 1e-1, log=True), "codec": Choice(("dct", "svd"))}, recipe=["codec"])
    >>> Space.from_json(space.to_json()) == space
    True
    """

    genes: Mapping[str, Gene]
    recipe: frozenset[str]
    names: tuple[str, ...]
    lasting: frozenset[str]
    defaults: Mapping[str, Scalar]

    def __init__(
        self,
        genes: Mapping[str, Gene],
        recipe: Collection[str] = (),
        lasting: Collection[str] = (),
        defaults: Mapping[str, Scalar] | None = None,
    ) -> None:
        given = dict(sorted((defaults or {}).items()))
        for what, chosen in (("recipe", recipe), ("lasting", lasting), ("defaults", given)):
            if unknown := sorted(set(chosen) - set(genes)):
                raise ConfigError(f"{what} names {unknown}, which are no genes; the genes are {sorted(genes)}")
        if both := sorted(set(recipe) & set(lasting)):
            raise ConfigError(f"genes {both} are both of the recipe, which probes change, and lasting")
        if not genes:
            raise ConfigError("genes is empty; a space needs at least one gene")
        object.__setattr__(self, "genes", dict(sorted(genes.items())))
        object.__setattr__(self, "recipe", frozenset(recipe))
        object.__setattr__(self, "names", tuple(sorted(genes)))
        object.__setattr__(self, "lasting", frozenset(lasting))
        object.__setattr__(self, "defaults", given)

    @property
    def recipe_names(self) -> tuple[str, ...]:
        """The recipe genes, sorted."""
        return tuple(name for name in self.names if name in self.recipe)

    @property
    def variable_names(self) -> tuple[str, ...]:
        """The genes that a child may have otherwise than its parent, sorted."""
        return tuple(name for name in self.names if name not in self.lasting)

    def from_unit(self, point: Iterable[float]) -> Genome:
        """The genome at a point of the unit cube, one coordinate per gene in sorted order."""
        return {name: self.genes[name].from_unit(float(u)) for name, u in zip(self.names, point, strict=True)}

    def fresh(self, point: Iterable[float], begin: tuple[float, float] | None = None) -> Genome:
        """As `from_unit`, but where genes have a `start` within that share of their range.

        With `begin`, genes that advance are between these two shares of their range instead.
        """
        starts = {name: (0.0, float(getattr(gene, "start", 1.0))) for name, gene in self.genes.items()}
        if begin is not None:
            starts |= dict.fromkeys(self.advancing, begin)
        places = zip(point, (starts[name] for name in self.names), strict=True)
        return self.from_unit(low + float(u) * (high - low) for u, (low, high) in places)

    def completed(self, genome: Genome) -> Genome:
        """A genome of an earlier space as one of this: the nearest values, defaults for genes that were added since.

        Genes that are none of this space's any more are left out. A genome of this space is returned as it is.

        >>> space = Space({"lr": Float(1e-3, 1e-1), "epochs": Integer(1, 9)}, defaults={"epochs": 2})
        >>> space.completed({"lr": 0.5, "momentum": 0.9})
        {'epochs': 2, 'lr': 0.1}
        """
        if genome.keys() == self.genes.keys() and all(gene.accepts(genome[name]) for name, gene in self.genes.items()):
            return genome
        values = {**self.defaults, **genome}
        return {
            name: gene.nearest(values[name]) if name in values else gene.from_unit(0.0)
            for name, gene in self.genes.items()
        }

    def problem_after(self, before: Space) -> str:
        """Why a run of an earlier space cannot go on with this one, in words; nothing if it can."""
        if lasting := sorted(
            name for name in self.lasting | before.lasting if self.genes.get(name) != before.genes.get(name)
        ):
            return f"genes {lasting} are kept by a lineage from its first file to its last, and cannot change"
        if added := sorted(self.genes.keys() - before.genes.keys() - self.defaults.keys()):
            return f"genes {added} are new, and nothing says what they were in the genomes that there are"
        return ""

    @property
    def advancing(self) -> dict[str, Float]:
        """The genes that move along a lineage: λ."""
        return {name: gene for name, gene in self.genes.items() if isinstance(gene, Float) and gene.advance}

    def advanced(self, genome: Genome, direction: int = 1, step: float | None = None) -> Genome:
        """The genome with which a lineage goes on, up (1) or down (-1): genes that advance have moved by `step`."""
        moved = {name: gene.advanced(genome[name], direction, step) for name, gene in self.advancing.items()}
        return {**genome, **moved}

    def upper_half(self, genome: Genome) -> bool:
        """Whether a genome's advancing genes are above the middle of their ranges, on average."""
        places = [gene.place(genome[name]) for name, gene in self.advancing.items()]
        return bool(places) and sum(places) / len(places) > 0.5

    def restarted(self, genome: Genome, fresh: Genome) -> Genome:
        """A genome with those genes of a fresh one that begin low in their range, or advance."""
        return {**genome, **{name: fresh[name] for name, gene in self.genes.items() if _begins(gene)}}

    def sample(self, rng: np.random.Generator, begin: tuple[float, float] | None = None) -> Genome:
        """A uniform genome, for a fresh start; `begin` as in `fresh`."""
        return self.fresh(rng.random(len(self.names)), begin)

    def latin_hypercube(
        self, n: int, rng: np.random.Generator, begin: tuple[float, float] | None = None
    ) -> list[Genome]:
        """`n` genomes that fill each gene's range evenly (McKay, Beckman and Conover, 1979)."""
        from scipy.stats import qmc  # half a second to import, and only a run's driver needs it

        return [self.fresh(point, begin) for point in qmc.LatinHypercube(len(self.names), rng=rng).random(n)]

    def validate(self, genome: Genome) -> None:
        """Raise `ConfigError` where a genome has a missing, unknown or out-of-range gene."""
        if set(genome) != set(self.names):
            raise ConfigError(f"genome has genes {sorted(genome)}; this space has {list(self.names)}")
        for name, value in genome.items():
            if not self.genes[name].accepts(value):
                raise ConfigError(f"gene {name!r} has the value {value!r}, which is not in {self.genes[name]}")

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data."""
        genes: dict[str, Any] = {}
        for name, gene in self.genes.items():
            fields = dataclasses.asdict(gene)
            plain = {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}
            for key, default in (("start", 1.0), ("advance", 0.0)):  # absent in older runs, with which it is compared
                if plain.get(key) == default:
                    del plain[key]
            genes[name] = {"type": type(gene).__name__.lower(), **plain}
        lasting = {"lasting": sorted(self.lasting)} if self.lasting else {}  # absent in older runs
        defaults = {"defaults": dict(self.defaults)} if self.defaults else {}
        return {"genes": genes, "recipe": sorted(self.recipe), **lasting, **defaults}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Space:
        """The inverse of `to_json`; an unknown gene type lists the known ones."""
        genes: dict[str, Gene] = {}
        for name, fields in data["genes"].items():
            kind = fields["type"]
            if kind not in _TYPES:
                raise ConfigError(f"gene {name!r} has type {kind!r}; known types are {sorted(_TYPES)}")
            genes[name] = _TYPES[kind](**{key: value for key, value in fields.items() if key != "type"})
        return cls(genes, data["recipe"], data.get("lasting", ()), data.get("defaults"))

"""Recipes and rules: which codecs are candidates for which tensors, and at which rate weight λ."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from evocompress.codecs import LOSSLESS, Codec, codec_spec, parse_codec
from evocompress.codecs.coders import CODERS, CoderName
from evocompress.codecs.container import NAMES_WITHOUT_SHAPES
from evocompress.errors import CodecError, about_argument
from evocompress.support.wording import listed, shortened

__all__ = ["DEFAULT_RATE_WEIGHT", "Recipe", "Rule"]

#: λ where nothing else is asked for, in squared error per bit.
DEFAULT_RATE_WEIGHT = 1e-4

Dims = Literal["any", "vector", "matrix"]
_LISTED = 8


@dataclasses.dataclass(frozen=True)
class Rule:
    """Tensors whose name matches the glob `match` (and have ≥ 2 dimensions if `dims` is "matrix", < 2 if "vector").

    `codecs` are the candidates: names, stages written out (`codecs.CODECS` and `codecs.STAGES` list both), or `Codec`
    objects; they are kept as text, and as objects in `candidates`. Rules are equal whose candidates are, however they
    are written. `rate_factor` multiplies the recipe's λ, so 0.01 means ten times finer steps.

    >>> Rule("conv*", ("dct", parse_codec("deadzone")))
    Rule(match='conv*', codecs=('dct', 'deadzone'), rate_factor=1.0, dims='any')
    """

    match: str = "*"
    codecs: tuple[str | Codec, ...] = dataclasses.field(default=("deadzone",), compare=False)
    rate_factor: float = 1.0
    dims: Dims = "any"
    candidates: tuple[Codec, ...] = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.match, str):
            raise CodecError(f"match is {self.match!r}; it must be a glob of tensors' names, such as 'conv*'.")
        codecs = _tuple(self.codecs)
        if not codecs:
            raise CodecError(f"Rule {self.match!r} has no codecs; name at least one.")
        candidates = tuple(codec if isinstance(codec, Codec) else parse_codec(codec) for codec in codecs)
        object.__setattr__(self, "candidates", candidates)
        texts = tuple(codec_spec(codec) if isinstance(codec, Codec) else codec for codec in codecs)
        object.__setattr__(self, "codecs", texts)
        if not _positive(self.rate_factor):
            raise CodecError(f"Rule {self.match!r}: rate_factor is {self.rate_factor!r}; it must be positive.")
        if self.dims not in get_args(Dims):
            choices = ", ".join(get_args(Dims))
            raise CodecError(f"Rule {self.match!r}: dims is {self.dims!r}; it must be one of {choices}.")
        if LOSSLESS in candidates and len(candidates) > 1:
            raise CodecError(
                f"Rule {self.match!r} names lossless beside other codecs; it never wins on a score: let it stand alone."
            )

    @classmethod
    def parse(cls, text: str) -> Rule:
        """A rule written as `GLOB=CODEC[|CODEC…][@FACTOR]`.

        Raises:
            CodecError: It is not written so, there is no such codec, or the factor is not positive.

        >>> Rule.parse("conv*=dct|deadzone@0.5")
        Rule(match='conv*', codecs=('dct', 'deadzone'), rate_factor=0.5, dims='any')
        """
        glob, equals, rest = text.rpartition("=") if "(" not in text else text.partition("=")
        specs, at, factor = rest.partition("@")
        if not equals or not glob or not specs.strip():
            raise CodecError(f"write it as GLOB=CODEC, such as 'conv*=dct' or '*.bias=lossless', not {text!r}.")
        try:
            rate_factor = float(factor) if at else 1.0
        except ValueError:
            raise CodecError(f"{text!r}: after @ comes a factor on λ, and {factor!r} is not a number.") from None
        return cls(glob, tuple(spec.strip() for spec in specs.split("|")), rate_factor)

    def applies(self, name: str, dimensions: int) -> bool:
        """Whether a tensor of this name and number of dimensions is this rule's."""
        if self.dims != "any" and (dimensions >= 2) != (self.dims == "matrix"):
            return False
        return fnmatch.fnmatchcase(name, self.match)

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data, codecs as text; `Rule(**data)` is the inverse."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.init}


def _tuple(value: object) -> tuple[Any, ...]:
    """Several things, or a single one, as a tuple."""
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)


def _positive(value: object) -> bool:
    """Whether it is a number that is positive and finite."""
    return isinstance(value, numbers.Real) and 0 < float(value) < math.inf


#: Without a rule of one's own: matrices by the cheapest of three codecs, vectors (biases, norms) in about 8 bits.
DEFAULT_RULES = (
    Rule(codecs=("deadzone",), rate_factor=0.01, dims="vector"),
    Rule(codecs=("deadzone", "dct", "lowrank")),
)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """λ, rules and the file's entropy coder; the first rule that applies to a tensor is the one that counts.

    `rules` are the user's and must each meet a tensor; `defaults` come after them (presets.py), then `DEFAULT_RULES`.
    Without `names` the file stores no names: a reader must have them from elsewhere (`unpack`, `load`). Without `names`
    and `shapes` it is bare: it stores no shapes and dtypes either, and a reader must have the network.

    >>> Recipe(1e-3, (Rule("head.*", ("lossless",)),)).rule("head.bias", 1).codecs
    ('lossless',)
    """

    rate_weight: float = DEFAULT_RATE_WEIGHT
    rules: tuple[Rule, ...] = ()
    coder: CoderName = "classes"
    defaults: tuple[Rule, ...] = DEFAULT_RULES
    names: bool = True
    shapes: bool = True

    def __post_init__(self) -> None:
        for field in ("rules", "defaults"):
            rules = _tuple(getattr(self, field))
            object.__setattr__(self, field, rules)
            odd = [rule for rule in rules if not isinstance(rule, Rule)]
            if odd:
                raise CodecError(f"{field} holds {shortened(repr(odd[0]))}; write it as Rule('conv*', ('dct',)).")
        if self.coder not in tuple(CODERS):
            raise CodecError(f"coder is {self.coder!r}; it must be one of {', '.join(CODERS)}.")
        if not _positive(self.rate_weight):
            raise CodecError(f"rate_weight is {self.rate_weight!r}; it must be a positive, finite number.")
        if self.names and not self.shapes:
            raise CodecError(NAMES_WITHOUT_SHAPES)

    def rule(self, name: str, dimensions: int) -> Rule:
        """The rule of a tensor."""
        return next(rule for rule in (*self.rules, *self.defaults, *DEFAULT_RULES) if rule.applies(name, dimensions))

    def alike(self, one: str, other: str, dimensions: int) -> bool:
        """Whether two tensors are to be coded alike."""
        first, second = self.rule(one, dimensions), self.rule(other, dimensions)
        return (first.candidates, first.rate_factor) == (second.candidates, second.rate_factor)

    def check(self, tensors: Iterable[tuple[str, int]]) -> None:
        """Refuse rules that no tensor (name, dimensions) meets: they are typing errors more often than not.

        Raises:
            CodecError: Names the patterns that matched nothing, and some of the names that there are.
        """
        names_and_dimensions = list(tensors)
        idle = [rule.match for rule in self.rules if not any(rule.applies(*pair) for pair in names_and_dimensions)]
        if idle:
            names = listed([shortened(name) for name, _ in names_and_dimensions], _LISTED)
            with about_argument("rules"):
                raise CodecError(f"No tensor matches {', '.join(map(repr, idle))}; tensors are {names or '(none)'}.")

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data."""
        settings = {
            "rate_weight": self.rate_weight,
            "coder": self.coder,
            "names": self.names,
            "shapes": self.shapes,
        }
        rules = {name: [rule.to_json() for rule in getattr(self, name)] for name in ("rules", "defaults")}
        return settings | rules

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Recipe:
        """The inverse of `to_json`."""
        defaults = data.get("defaults")  # absent before 0.2, as is the coder
        return cls(
            data["rate_weight"],
            tuple(Rule(**rule) for rule in data["rules"]),
            data.get("coder", "classes"),
            DEFAULT_RULES if defaults is None else tuple(Rule(**rule) for rule in defaults),
            data.get("names", True),
            data.get("shapes", True),
        )

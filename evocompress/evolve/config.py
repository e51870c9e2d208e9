"""An experiment's configuration: TOML into checked, typed, immutable models, and nothing that is not known by name."""

from __future__ import annotations

import copy
import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import pydantic

from evocompress.codecs import parse_codec
from evocompress.errors import CodecError, ConfigError
from evocompress.evolve.layer_groups import GROUPS

__all__ = ["Config", "Genes", "Resources", "Search", "load_config", "override_values", "parse_config"]

Positive: TypeAlias = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
NotNegative: TypeAlias = Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]
Range: TypeAlias = tuple[NotNegative, NotNegative]
PositiveRange: TypeAlias = tuple[Positive, Positive]
CountRange: TypeAlias = tuple[pydantic.PositiveInt, pydantic.PositiveInt]
#: A gene is fixed to one number, or drawn between two.
FloatGene: TypeAlias = Positive | PositiveRange
#: Such a gene may also be 0, which switches off what it stands for; a range is then drawn on a log axis.
OptionalGene: TypeAlias = NotNegative | PositiveRange
Share: TypeAlias = Annotated[float, pydantic.Field(gt=0, le=1)]
ShareGene: TypeAlias = Share | tuple[Share, Share]
#: A share that may be 0; a range is drawn evenly.
AnyShare: TypeAlias = Annotated[float, pydantic.Field(ge=0, le=1)]
AnyShareGene: TypeAlias = AnyShare | tuple[AnyShare, AnyShare]
#: The same, but a range is drawn on a log axis.
RareGene: TypeAlias = AnyShare | tuple[Share, Share]
Part: TypeAlias = Annotated[float, pydantic.Field(ge=0, lt=1)]
PartGene: TypeAlias = Part | tuple[Annotated[Part, pydantic.Field(gt=0)], Annotated[Part, pydantic.Field(gt=0)]]
CountGene: TypeAlias = pydantic.PositiveInt | CountRange


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Search(_Section):
    """How the population is searched; `segments` or `minutes` ends it (None: no bound)."""

    segments: pydantic.PositiveInt | None = 200
    minutes: Positive | None = None
    initial: pydantic.PositiveInt = 16
    pool_size: pydantic.PositiveInt = 32
    probes: pydantic.NonNegativeInt = 4
    probe_share: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.2
    deterministic: bool = False
    lag: pydantic.PositiveInt | None = None
    selection: Literal["dominance", "scalar", "random"] = "dominance"
    byte_budget: str | pydantic.PositiveInt | None = None
    ratio_range: PositiveRange = (4.0, 512.0)
    error_range: Range = (0.0, 0.5)


class Genes(_Section):
    """What a genome can say. A number fixes a gene, [low, high] lets it evolve, a list of words gives its options.

    Recipe genes: `rate_weight` is λ; `rate_factor` multiplies it per layer group; `step_scale` the quantiser's step;
    `codecs` the options for each layer group (one option may try several codecs: "deadzone | dct"); `sensitivity`
    whether distortion is weighed by gradients. Training genes: see `evocompress.training.trainer.TrainingGenes`.
    Architecture genes: `alpha` and `rank` of LinearConv in place of convolutions (docs/linearconv.md;
    alpha = 1: plain ones), and `near`, `decay`, `far`, `kernel`, `period` of plans of connections (docs/connections.md;
    left out: as the network's factory has them).
    """

    rate_weight: FloatGene = (1e-5, 1e-1)
    rate_factor: FloatGene = (0.1, 10.0)
    vector_rate_factor: FloatGene = (0.001, 1.0)
    step_scale: FloatGene = (0.6, 1.5)
    sensitivity: list[Literal["gradient", "none"]] = ["gradient", "none"]
    codecs: dict[str, list[str]] = {}

    alpha: ShareGene = 1.0
    rank: ShareGene = 1.0
    near: AnyShareGene | None = None
    decay: AnyShareGene | None = None
    far: RareGene | None = None
    kernel: CountGene | None = None
    period: CountGene | None = None

    learning_rate: FloatGene = (3e-4, 5e-3)
    epochs: CountGene = (1, 4)
    weight_decay: OptionalGene = (1e-4, 1e-1)
    l1: OptionalGene = (1e-4, 3e-1)
    noise: OptionalGene = (0.01, 1.0)
    label_smoothing: OptionalGene = 0.0
    correlation: OptionalGene = 0.0
    symmetry: OptionalGene = 0.0
    entropy: OptionalGene = 0.0
    distinct: OptionalGene = 0.0
    projection: list[Literal["free", "keep-zeros"]] = ["free", "keep-zeros"]
    snap: AnyShareGene = 0.0
    thin: PartGene = 0.0
    batch_size: pydantic.PositiveInt = 64
    optimiser: list[Literal["adam", "sgd"]] = ["adam"]
    schedule: list[Literal["constant", "cosine"]] = ["cosine"]

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _no_truth_values(cls, value: Any) -> Any:
        if any(isinstance(part, bool) for part in (value if isinstance(value, list | tuple) else [value])):
            raise ValueError("is true or false, which would count as 1 or 0; give a number")
        return value

    @pydantic.field_validator("codecs")
    @classmethod
    def _known_codecs(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        for group, options in value.items():
            if group not in GROUPS:
                raise ValueError(f"there is no layer group {group!r}; groups are {', '.join(GROUPS)}")
            if not options:
                raise ValueError(f"group {group!r} has no options; give at least one codec")
            for spec in (part for option in options for part in option.split("|")):
                try:
                    parse_codec(spec.strip())
                except CodecError as error:
                    raise ValueError(str(error)) from error
        return value

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> Genes:
        for name, value in self:
            if isinstance(value, tuple) and not value[0] < value[1]:
                raise ValueError(f"{name} = [{value[0]}, {value[1]}]: the first number must be below the second")
            if isinstance(value, list) and (not value or len(set(value)) != len(value)):
                raise ValueError(f"{name} = {value}: give at least one option, each once")
        if self.alpha == 1 and self.rank != 1:
            raise ValueError("rank has no effect with alpha = 1; let alpha be below 1, such as alpha = [0.25, 1.0]")
        return self


class Resources(_Section):
    """What a segment gets: CPUs and (fractions of) GPUs, and how many segments run at once (0: as many as fit).

    `gpus` "auto" is a quarter of a GPU where there is one, else none; 0 keeps to the CPUs.
    `precision`: what networks are trained in; evaluation is in float32.
    """

    cpus: Positive = 1.0
    gpus: NotNegative | Literal["auto"] = "auto"
    workers: pydantic.NonNegativeInt = 0
    threads: pydantic.PositiveInt = 1
    executor: Literal["ray", "inline"] = "ray"
    precision: Literal["float32", "bfloat16"] = "float32"


class Config(_Section):
    """A whole experiment. `model` and `data` are names, or "package.module:function" of one's own.

    `task`: what the network is for, a name or "package.module:Class" of one's own.

    `reference_epochs`: how long the uncompressed network is trained that the front is compared with (0: none).
    `storage`: a folder or fsspec URI for the segments' files, if not the run folder.
    """

    name: str = ""
    model: str
    data: str
    task: str = "classification"
    seed: pydantic.NonNegativeInt = 0
    reference_epochs: pydantic.NonNegativeInt = 30
    initial_weights: str = ""
    storage: str = ""
    model_options: dict[str, Any] = {}
    data_options: dict[str, Any] = {}
    search: Search = Search()
    genes: Genes = Genes()
    resources: Resources = Resources()

    @pydantic.field_validator("model", "data", "task")
    @classmethod
    def _not_empty(cls, value: str, field: pydantic.ValidationInfo) -> str:
        if not value.strip():
            own = "package.module:Class" if field.field_name == "task" else "package.module:function"
            raise ValueError(f"is empty; give a name, or '{own}'")
        return value


def _model_at(path: Sequence[str | int]) -> type[pydantic.BaseModel] | None:
    """The section's model at a path of keys, or None below one that takes any key."""
    model: type[pydantic.BaseModel] = Config
    for key in path:
        field = model.model_fields.get(str(key))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, _Section)):
            return None
        model = field.annotation
    return model


def _all_keys() -> dict[str, str]:
    """Every key of every section to its full name, for hints."""
    keys = {}
    for section in ("search", "genes", "resources"):
        model = _model_at((section,))
        assert model is not None
        keys.update({key: f"{section}.{key}" for key in model.model_fields})
    return keys | {key: key for key in Config.model_fields}


def _unknown(path: Sequence[str | int]) -> str:
    """An unknown key, with the nearest one that there is."""
    name = ".".join(map(str, path))
    model = _model_at(path[:-1])
    known, everywhere = list(model.model_fields) if model else [], _all_keys()
    near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
    prefix = ".".join(map(str, path[:-1]))
    hint = f"{prefix}.{near[0]}" if near and prefix else near[0] if near else ""
    hint = everywhere.get(str(path[-1]), hint)  # a key of another section, written out in full
    if not hint:
        further = difflib.get_close_matches(str(path[-1]), list(everywhere), n=1, cutoff=0.7)
        hint = everywhere[further[0]] if further else ""
    return f"{name}: there is no such key." + (f" Did you mean {hint!r}?" if hint else f" Known: {', '.join(known)}.")


def _explain(error: pydantic.ValidationError, source: str) -> ConfigError:
    lines: dict[str, str] = {}
    for problem in error.errors(include_url=False):
        path = [key for key in problem["loc"] if not _is_union_tag(key)]
        name = ".".join(map(str, path)) or "(the whole)"
        if problem["type"] == "extra_forbidden":
            lines[name] = _unknown(path)
        elif problem["type"] == "missing":
            lines[name] = f"{name}: is missing; it has no default."
        else:
            message = problem["msg"].removeprefix("Value error, ")
            given = repr(problem["input"])
            got = "" if message.startswith(name) or len(given) > 60 else f" (got {given})"
            lines.setdefault(name, f"{name}: {message}{got}")
    return ConfigError(f"{source}:\n  " + "\n  ".join(lines.values()))


def _is_union_tag(key: str | int) -> bool:
    """Whether pydantic put this into an error's path for a member of a union, not for a key."""
    return isinstance(key, str) and (
        "[" in key or key in ("float", "int", "str", "constrained-float", "constrained-int", "none")
    )


def parse_config(data: Mapping[str, Any], source: str = "configuration") -> Config:
    """A checked configuration from nested mappings.

    Raises:
        ConfigError: One line for each problem: the key, what is wrong, and the nearest known key for an unknown one.
    """
    try:
        return Config.model_validate(data)
    except pydantic.ValidationError as error:
        raise _explain(error, source) from None


def _parse_override(text: str) -> tuple[list[str], Any]:
    key, equals, value = text.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(path):
        raise ConfigError(f"--set {text!r}: write it as section.key=value.")
    try:
        return path, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return path, value.strip()  # a bare word, without the quotes that TOML wants


def override_values(data: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of nested tables in which each "section.key=value" (as in TOML, or a bare word) has been set.

    >>> override_values({"search": {"segments": 9}}, ["search.segments=5", "name=x"])
    {'search': {'segments': 5}, 'name': 'x'}
    """
    changed: dict[str, Any] = copy.deepcopy(dict(data))
    for text in overrides:
        path, value = _parse_override(text)
        table = changed
        for part in path[:-1]:
            inner = table.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {text!r}: {part} is a value, not a section.")
            table = inner
        table[path[-1]] = value
    return changed


def load_config(path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> Config:
    """Read a TOML file, change what `overrides` ("section.key=value", as in TOML) say, and check the whole.

    Raises:
        ConfigError: The file is absent or no TOML, or a key or value is wrong.
    """
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from None
    data.setdefault("name", Path(path).stem)
    return parse_config(override_values(data, overrides), str(path))

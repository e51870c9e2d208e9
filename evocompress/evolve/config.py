"""Configuration of an experiment: TOML into checked, typed, immutable models, and nothing that is not known by name."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    Optional,
    Self,
    TypeAlias,
    Union,
    get_type_hints,
)

import pydantic

from evocompress.checkpoint.recipe import Rule
from evocompress.codecs import parse_codec
from evocompress.errors import CodecError, ConfigError
from evocompress.evolve.config_errors import Sections, explained
from evocompress.evolve.layer_groups import GROUPS
from evocompress.extensions import EXECUTORS, SELECTION
from evocompress.protocols import GeneSpec
from evocompress.search.settings import USER_SETTINGS, SearchSettings
from evocompress.support.quantities import parse_bytes
from evocompress.tasks import DEFAULT_TASK
from evocompress.training.genes import gene_specs
from evocompress.training.precision import Precision

__all__ = [
    "Config",
    "Genes",
    "Resources",
    "Search",
    "Teacher",
    "genes_model",
    "load_config",
    "override_values",
    "parse_config",
    "with_overrides",
]

Positive: TypeAlias = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
NotNegative: TypeAlias = Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]


class _Section(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class _SearchBase(_Section):
    """How the population is searched; `segments` or `minutes` ends it.

    The fields are those of `search.settings.USER_SETTINGS`.
    """

    @pydantic.model_validator(mode="after")
    def _together(self) -> Self:
        self.settings(seed=0, float32_bytes=1 << 20)
        return self

    def settings(self, *, seed: int, float32_bytes: int) -> SearchSettings:
        """What the search is told, for a network that takes so many bytes in float32."""
        values = {name: _number(name, getattr(self, name)) for name in USER_SETTINGS}
        low, high = values.pop("ratio_range")
        bytes_range = (max(1.0, float32_bytes / high), max(2.0, float32_bytes / low))
        return SearchSettings(seed=seed, bytes_range=bytes_range, **values)


def _search_fields() -> dict[str, Any]:
    """Pydantic's fields for the settings that people set: type, rule, default and sentence come from the settings."""
    kinds = get_type_hints(SearchSettings) | {"ratio_range": tuple[float, float]}
    defaults = {field.name: field.default for field in dataclasses.fields(SearchSettings)}
    fields: dict[str, Any] = {}
    for name, setting in USER_SETTINGS.items():
        kind: Any = (str | kinds[name]) if setting.unit == "bytes" else kinds[name]
        default = defaults[name] if setting.configured is None else setting.configured
        checked: Any = Annotated[kind, pydantic.AfterValidator(functools.partial(_checked, name))]
        fields[name] = (checked, pydantic.Field(default, description=setting.sentence))
    return fields


def _number(name: str, value: Any) -> Any:
    """A setting's value as it is, but sizes such as "16kB" in bytes."""
    return parse_bytes(value) if USER_SETTINGS[name].unit == "bytes" and value is not None else value


def _checked(name: str, value: Any) -> Any:
    """A setting's value as it is; ValueError where it breaks its rule."""
    number = _number(name, value)
    if problem := "" if number is None else USER_SETTINGS[name].problem(number):
        raise ValueError(problem)
    if name == "selection" and isinstance(value, str):
        SELECTION.find(value)
    return value


if TYPE_CHECKING:

    class Search(_SearchBase):
        """How the population is searched."""

        def __getattr__(self, name: str) -> Any: ...

else:
    Search = pydantic.create_model(
        "Search", __base__=_SearchBase, __module__=__name__, __doc__=_SearchBase.__doc__, **_search_fields()
    )


class Genes(_Section):
    """What a genome can say; `genes_model` adds a field for every gene of `training.genes.gene_specs`.

    A number fixes a gene, [low, high] lets it evolve, a list of words gives its options.
    """

    codecs: dict[str, list[str]] = pydantic.Field(
        default={}, description='Codecs that may code this layer group; one option may try several: "deadzone | dct".'
    )

    model_options: dict[str, Any] = pydantic.Field(
        default={},
        description="Options of the network that evolve, as [low, high] or a list of words; a lineage keeps its own.",
    )

    @pydantic.field_validator("model_options")
    @classmethod
    def _check_model_options(cls, value: dict[str, Any]) -> dict[str, Any]:
        return {name: _option(name, given) for name, given in value.items()}

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_values(cls, value: Any) -> Any:
        if any(isinstance(part, bool) for part in (value if isinstance(value, list | tuple) else [value])):
            raise ValueError("is true or false, which would count as 1 or 0; give a number")
        return value

    @pydantic.field_validator("codecs")
    @classmethod
    def _check_codecs(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        problems = []
        for group, options in value.items():
            if group not in GROUPS:
                problems.append(f"there is no layer group {group!r}; groups are {', '.join(GROUPS)}")
            if not options:
                problems.append(f"group {group!r} has no options; give at least one codec")
            for spec in (part for option in options for part in option.split("|")):
                try:
                    parse_codec(spec.strip())
                except CodecError as error:
                    problems.append(str(error))
        if problems:
            raise ValueError("; ".join(problems))
        return value

    @pydantic.field_validator("*")
    @classmethod
    def _ordered(cls, value: Any) -> Any:
        if isinstance(value, tuple) and not value[0] < value[1]:
            fixed = f"; write {value[0]!r} to fix it" if value[0] == value[1] else ""
            raise ValueError(f"the first number must be below the second{fixed}")
        if isinstance(value, list) and (not value or len(set(value)) != len(value)):
            raise ValueError("give at least one option, each once")
        return value


def _option(name: str, given: Any) -> Any:
    """A range of numbers as a tuple, options as a list; ValueError where it is neither."""
    if isinstance(given, str | int | float) and not isinstance(given, bool):
        return given
    parts: list[Any] = list(given) if isinstance(given, list | tuple) else []
    if len(parts) == 2 and all(type(part) in (int, float) for part in parts):
        low, high = parts
        if low == high:
            raise ValueError(f"{name}: the first number must be below the second; write {low!r} to fix it")
        if not 0 < low < high < math.inf:
            raise ValueError(f"{name}: must be two numbers, 0 < low < high, as a range is drawn on a log axis")
        return (low, high)
    plain = all(isinstance(part, str | int | float) for part in parts)
    if not plain or len(parts) < 2 or len(set(parts)) != len(parts):
        raise ValueError(f"{name}: must be two numbers [low, high], or a list of options, each once")
    return parts


@functools.cache
def genes_model(task: str) -> type[Genes]:
    """The section `genes` for a task: a field for every gene.

    Raises:
        ConfigError: There is no such task.
    """
    fields: dict[str, Any] = {
        name: (_type_of(spec), tuple(spec.default) if isinstance(spec.default, tuple) else spec.default)
        for name, spec in gene_specs(task).items()
    }
    model: type[Genes] = pydantic.create_model("Genes", __base__=Genes, **fields)
    return model


def _type_of(spec: GeneSpec) -> Any:
    """What a gene may be configured to: a number or a range of them, or a list of options."""
    if spec.kind == "choice":
        return list[Literal[spec.options]]  # type: ignore[name-defined]
    whole = spec.kind == "whole"
    bounds: dict[str, Any] = {} if whole else {"allow_inf_nan": False}
    bounds["gt" if spec.low_open else "ge"] = spec.low
    if spec.high is not None:
        bounds["lt" if spec.high_open else "le"] = spec.high
    number: Any = Annotated[int if whole else float, pydantic.Field(**bounds)]
    end: Any = Annotated[number, pydantic.AfterValidator(functools.partial(_on_log_axis, spec))] if spec.log else number
    either: Any = Union[number, tuple[end, end]]  # noqa: UP007 - made of values, not of types
    if spec.check is not None:
        either = Annotated[either, pydantic.AfterValidator(functools.partial(_passed, spec.check))]
    return Optional[either] if spec.default is None else either  # noqa: UP045


def _on_log_axis(spec: GeneSpec, value: Any) -> Any:
    """An end of a range as it is; ValueError for 0, which a log axis does not have, even where 0 may be given."""
    if value > 0:
        return value
    small, off = 1 if spec.kind == "whole" else 0.001, ", which switches it off" if spec.plain == 0 else ""
    raise ValueError(
        "must be above 0: a range is drawn on a log axis, which has no 0. "
        f"Write a small number instead, such as {small}; or only 0, without a range{off}"
    )


def _passed(check: Callable[[Any], object], value: Any) -> Any:
    """A gene's value as it is, or a range of them; ValueError where one does not pass a gene's own check."""
    low, high = value if isinstance(value, tuple) else (value, value)
    if low <= high:  # else that is what is wrong
        check(low)
        check(high)
    return value


class Resources(_Section):
    """What a segment gets, and how many run at once."""

    cpus: Positive = pydantic.Field(default=1.0, description="CPUs of a segment; fractions too.")
    gpus: NotNegative | Literal["auto"] = pydantic.Field(
        default="auto",
        description="GPUs of a segment; fractions too. auto: a quarter of one where there is one, else none.",
    )
    workers: pydantic.NonNegativeInt = pydantic.Field(
        default=0, description="How many segments run at once; 0: all that fit."
    )
    threads: pydantic.PositiveInt = pydantic.Field(default=1, description="CPU threads of a segment.")
    segment_timeout: NotNegative | Literal["auto"] = pydantic.Field(
        default="auto",
        description="Minutes after which another attempt at a segment begins, elsewhere if it can; 0: never. auto: ten "
        "times the median, ten minutes at least. The executor inline has no limit.",
    )
    executor: str = pydantic.Field(default="ray", description="What runs segments; packages add further ways.")
    precision: Precision = pydantic.Field(
        default="float32", description="What networks are trained in; evaluation is in float32."
    )

    working_dir: str = pydantic.Field(
        default="",
        description="A folder that is copied to all workers of a cluster and is their working folder; or a URI.",
    )
    py_modules: tuple[str, ...] = pydantic.Field(
        default=(), description="Folders of packages and files of modules that are copied to all workers; or URIs."
    )
    pip: tuple[str, ...] = pydantic.Field(
        default=(), description="Requirements that pip installs for the workers, such as einops==0.8.1."
    )
    env_vars: dict[str, str] = pydantic.Field(
        default={}, description="Environment variables of the workers. They are kept in run.json, so no secrets."
    )
    image_uri: str = pydantic.Field(
        default="",
        description="A container image that workers run in; not together with working_dir, py_modules and pip.",
    )

    @property
    def time_limit(self) -> float | None:
        """Seconds after which another attempt at a segment begins; None where they follow from the median."""
        if self.segment_timeout == "auto":
            return None
        return 60.0 * self.segment_timeout or math.inf

    @property
    def for_workers(self) -> list[str]:
        """Keys that were given of what workers on other machines get."""
        keys = ("working_dir", "py_modules", "pip", "env_vars", "image_uri")
        return [key for key in keys if getattr(self, key)]

    @pydantic.model_validator(mode="after")
    def _image_alone(self) -> Self:
        others = [key for key in self.for_workers if key not in ("image_uri", "env_vars")]
        if self.image_uri and others:
            raise ValueError(f"image_uri cannot be given together with {', '.join(others)}: put those into the image")
        return self

    @pydantic.field_validator("py_modules", "pip")
    @classmethod
    def _none_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(part.strip() for part in value):
            raise ValueError("has an empty entry; leave it out")
        return value

    @pydantic.field_validator("env_vars")
    @classmethod
    def _check_variables(cls, value: dict[str, str]) -> dict[str, str]:
        if wrong := [name for name in value if not name or "=" in name or "\0" in name + value[name]]:
            raise ValueError(f"{wrong[0]!r} cannot be the name of a variable")
        return value

    @pydantic.field_validator("executor")
    @classmethod
    def _check_executor(cls, value: str) -> str:
        EXECUTORS.find(value)
        return value


class Teacher(_Section):
    """A trained network that the others learn from as far as the gene `distillation` says; without one nobody does.

    Either weights that there are, or a network that the run trains first, plainly, from random weights.
    """

    weights: str = pydantic.Field(default="", description="A checkpoint of the teacher.")
    epochs: pydantic.NonNegativeInt = pydantic.Field(
        default=0, description="Instead of weights: how long the run trains a teacher before its first segment."
    )
    model: str = pydantic.Field(default="", description="The teacher's network; by default the run's.")
    model_options: dict[str, Any] = pydantic.Field(
        default={}, description="Options of the teacher's network, where it is another than the run's."
    )

    @pydantic.model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.weights and self.epochs:
            raise ValueError("give weights or epochs, not both")
        if (self.model or self.model_options) and not self.given:
            raise ValueError("give its weights, or how many epochs it is trained")
        return self

    @property
    def given(self) -> bool:
        """Whether there is a teacher."""
        return bool(self.weights or self.epochs)


class Config(_Section):
    """A whole experiment.

    `genes` has all genes by name, as `genes_model` checked them: a number, a range (low, high), a list of options, or
    None.
    """

    name: str = pydantic.Field(
        default="", description="Name of the experiment, and of its run folder; by default the file's."
    )
    model: str = pydantic.Field(description="The network: a name, or package.module:function of your own.")
    data: str = pydantic.Field(description="The data set: a name, or package.module:function of your own.")
    task: str = pydantic.Field(
        default=DEFAULT_TASK, description="What the network is for: a name, or package.module:Class of your own."
    )
    seed: pydantic.NonNegativeInt = pydantic.Field(default=0, le=2**63 - 1, description="What every draw follows from.")
    reference_epochs: pydantic.NonNegativeInt = pydantic.Field(
        default=30, description="How long the uncompressed network is trained that the front is compared with; 0: none."
    )
    reference_packs: bool = pydantic.Field(
        default=True, description="Whether that network is also packed at a ladder of λ: training once, then packing."
    )
    curve_examples: pydantic.NonNegativeInt = pydantic.Field(
        default=0,
        description="On how many examples of the validation split networks are measured after each epoch, for learning "
        "curves; 0: none. What a run finds does not depend on it.",
    )
    initial_weights: str = pydantic.Field(
        default="", description="A file of weights to begin with; by default random ones."
    )
    storage: str = pydantic.Field(
        default="", description="A folder or fsspec URI for the segments' files; by default the run folder."
    )
    named_files: bool = pydantic.Field(
        default=False,
        description="Whether files hold names and shapes of tensors; else they are smaller, and read with the network.",
    )
    rules: tuple[str, ...] = pydantic.Field(
        default=(),
        description="Codecs of single tensors, whatever the genes say: GLOB=CODEC[|CODEC…][@FACTOR], "
        "such as fc2.bias=lossless.",
    )
    model_options: dict[str, Any] = pydantic.Field(default={}, description="Options of the network.")
    data_options: dict[str, Any] = pydantic.Field(default={}, description="Options of the data set.")
    search: Search = Search()
    genes: Mapping[str, Any] = {}
    teacher: Teacher = Teacher()
    resources: Resources = Resources()

    @pydantic.model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        options = self.genes.get("model_options") or {}
        if options and self.initial_weights:
            raise ValueError("genes.model_options make networks of other shapes, which initial_weights do not fit")
        if twice := sorted(options.keys() & self.model_options.keys()):
            raise ValueError(f"model_options and genes.model_options both say {twice[0]!r}; leave one out")
        self._check_teacher()
        return self

    def _check_teacher(self) -> None:
        """A teacher is needed where a gene that learns from one is on, and of no use elsewhere."""
        specs = gene_specs(self.task).values() if self.genes else ()  # without genes the error is in them
        learners = [spec for spec in specs if spec.needs_teacher]
        learning = [spec.name for spec in learners if _is_on(spec, self.genes.get(spec.name))]
        if learning and not self.teacher.given:
            raise ValueError(f"genes.{learning[0]} needs a teacher; give teacher.weights, or teacher.epochs")
        if learners and self.teacher.given and not learning:
            raise ValueError(f"nobody learns from the teacher; give genes.{learners[0].name}, such as 0.5")

    @pydantic.field_validator("rules")
    @classmethod
    def _check_rules(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            Rule.parse(text)
        return value

    @property
    def parsed_rules(self) -> tuple[Rule, ...]:
        """`rules` as what they say."""
        return tuple(map(Rule.parse, self.rules))

    @pydantic.field_validator("model", "data", "task")
    @classmethod
    def _not_empty(cls, value: str, field: pydantic.ValidationInfo) -> str:
        if not value.strip():
            example = "package.module:Class" if field.field_name == "task" else "package.module:function"
            raise ValueError(f"is empty; give a name, or '{example}'")
        return value


def _is_on(spec: GeneSpec, value: Any) -> bool:
    """Whether a gene, as configured, is or may become another than its plain value, which switches it off."""
    return any(part not in (None, spec.plain) for part in (value if isinstance(value, tuple | list) else (value,)))


def _sections() -> Sections:
    """Every section's model by its name; the whole is that of no name."""
    genes = genes_model(DEFAULT_TASK)
    return {"": Config, "search": Search, "genes": genes, "teacher": Teacher, "resources": Resources}


def parse_config(data: Mapping[str, Any], source: str = "configuration") -> Config:
    """A checked configuration from nested mappings.

    Raises:
        ConfigError: One line for each problem: the key, what is wrong, and the nearest known key for an unknown one.
    """
    lines: list[str] = []
    configured, table = dict(data), data.get("genes", {})
    task = data.get("task", DEFAULT_TASK)
    try:
        model = genes_model(task if isinstance(task, str) else DEFAULT_TASK)
        configured["genes"] = dict(model.model_validate(table))
    except ConfigError as error:  # there is no such task
        lines.append(f"task: {error}")
        configured["genes"] = {}
    except pydantic.ValidationError as error:
        lines += explained(error, _sections(), ("genes",))
        configured["genes"] = {}
    config = None
    try:
        config = Config.model_validate(configured)
    except pydantic.ValidationError as error:
        lines = [*explained(error, _sections()), *lines]
    if lines or config is None:
        raise ConfigError(f"{source}:\n  " + "\n  ".join(lines))
    return config


def _parse_override(text: str) -> tuple[list[str], Any]:
    key, equals, value = text.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(path):
        raise ConfigError(f"override {text!r}: write it as section.key=value.")
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
                raise ConfigError(f"override {text!r}: {part} is a value, not a section.")
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
    return with_overrides(data, overrides, str(path))


def with_overrides(data: Mapping[str, Any], overrides: Iterable[str], source: str) -> Config:
    """A checked configuration from nested mappings, changed by what `overrides` say; its errors name the culprit.

    Raises:
        ConfigError: A key or value is wrong, in the source or in what is given beside it.
    """
    given = [*overrides]
    changed = override_values(data, given)
    try:
        return parse_config(changed, source)
    except ConfigError:
        if not given or not _fits(data):
            raise
    # The source is right by itself, so the mistake is in what was given beside it.
    return parse_config(changed, f"{', '.join(given)}, given beside {source}")


def _fits(data: Mapping[str, Any]) -> bool:
    try:
        parse_config(data)
    except ConfigError:
        return False
    return True

"""Table of every key of a configuration: what it takes, its default and a sentence, from where each is defined.

Genes come from `training.genes.gene_specs`, settings of the search from `search.settings.USER_SETTINGS`, the rest from
the models of `evolve.config`. The command `settings`, docs/configuration.md and the table of docs/run.md are made of
this.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import annotated_types
from pydantic.fields import FieldInfo

from evocompress.evolve.config import Config, Genes, Resources, Search, Teacher, genes_model
from evocompress.evolve.layer_groups import DEFAULT_CODECS
from evocompress.extensions import DATA_SETS, EXECUTORS, FORMS, NETWORKS, SELECTION, TASKS, TERMS
from evocompress.search.settings import USER_SETTINGS, Setting
from evocompress.tasks import DEFAULT_TASK, build
from evocompress.training.genes import gene_specs, rule_of

__all__ = ["SettingRow", "keys_table", "setting_rows", "tables"]

#: Keys whose values are names in a list of extensions.
_NAMES = {"model": NETWORKS, "data": DATA_SETS, "task": TASKS, "selection": SELECTION, "executor": EXECUTORS}
_TITLES = {
    "": "The whole",
    "search": "[search]",
    "genes": "[genes]",
    "teacher": "[teacher]",
    "resources": "[resources]",
}


@dataclasses.dataclass(frozen=True)
class SettingRow:
    """One key: its section ("" for the top), what it takes, its default as TOML has it, and what it does.

    `default` is empty where there is none. `of` says for a gene what it changes (recipe, training or architecture), and
    which task, term or form brings it, if one does.
    """

    section: str
    key: str
    takes: str
    default: str
    sentence: str
    of: str = ""


def setting_rows(task: str = DEFAULT_TASK) -> list[SettingRow]:
    """Every key that a configuration may have, in the order of its sections.

    Raises:
        ConfigError: There is no such task.

    >>> next(row for row in setting_rows() if row.key == "rate_factor").default
    '[0.1, 10.0]'
    """
    top = {name: field for name, field in Config.model_fields.items() if name not in _TITLES}
    return [
        *_rows("", top),
        *_rows("search", Search.model_fields),
        *_codec_rows(),
        *_gene_rows(task),
        *_rows("teacher", Teacher.model_fields),
        *_rows("resources", Resources.model_fields),
    ]


def tables(rows: Sequence[SettingRow]) -> str:
    """The rows in Markdown, a table for each section."""
    parts = []
    for section, title in _TITLES.items():
        chosen = [row for row in rows if row.section == section]
        of = any(row.of for row in chosen)
        heads = ["key", "takes", "default", *(["of"] if of else []), "what it does"]
        lines = [f"### `{title}`" if section else f"### {title}", "", _line(heads), _line(["---"] * len(heads))]
        for row in chosen:
            default = f"`{row.default}`" if row.default else ""
            lines.append(_line([f"`{row.key}`", row.takes, default, *([row.of] if of else []), row.sentence]))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def keys_table(rows: Sequence[SettingRow]) -> str:
    """The keys of each section in Markdown, without more about them."""
    lines = [_line(["section", "keys"]), _line(["---"] * 2)]
    for section, title in _TITLES.items():
        chosen = [row for row in rows if row.section == section]
        name = f"`{title}`" if section else "(top)"
        if section != "genes":
            lines.append(_line([name, _keys(chosen)]))
            continue
        for kind in ("recipe", "training", "architecture"):
            of_kind = [row for row in chosen if row.of.partition(",")[0] == kind]
            if of_kind:
                lines.append(_line([f"{name} {kind}".rstrip(), _keys(of_kind)]))
    return "\n".join(lines)


def _keys(rows: Iterable[SettingRow]) -> str:
    return ", ".join(f"`{row.key}`" for row in rows)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _rows(section: str, fields: Mapping[str, FieldInfo]) -> list[SettingRow]:
    rows = []
    for name, field in fields.items():
        takes = _takes(field.annotation, field.metadata)
        if section == "search":
            takes = _with_rule(takes, USER_SETTINGS[name])
        if name in _NAMES:
            takes = "such as " + ", ".join(sorted(_NAMES[name].builtin))
        assert field.description, f"{section}.{name} has no sentence"
        rows.append(SettingRow(section, name, takes, _toml(field.default), field.description))
    return rows


def _with_rule(takes: str, setting: Setting) -> str:
    """What a setting of the search takes, with what the number or the two must be."""
    if not takes.startswith("["):
        return f"{takes} {setting.rule}".rstrip()
    return ", ".join([takes, f"each {setting.rule}", *(["the first below the second"] if setting.ordered else [])])


def _codec_rows() -> list[SettingRow]:
    """Of the codec genes there is one for each layer group; of the network's options, what it has."""
    sentence, options_sentence = (Genes.model_fields[name].description or "" for name in ("codecs", "model_options"))
    return [
        SettingRow("genes", f"codecs.{group}", "list of codecs", _toml(options), sentence, "recipe")
        for group, options in DEFAULT_CODECS.items()
    ] + [SettingRow("genes", "model_options", "table of [low, high] or list", "", options_sentence, "architecture")]


def _gene_rows(task: str) -> list[SettingRow]:
    brought = {spec.name: f"task `{task}`" for spec in build(task).genes}
    for kind, parts in (("form", FORMS), ("term", TERMS)):
        for name, part in parts.items():
            brought |= {spec.name: f"{kind} `{name}`" for spec in part.genes}
    rows = []
    for name, field in genes_model(task).model_fields.items():
        if name not in Genes.model_fields:
            spec = gene_specs(task)[name]
            of = ", ".join(filter(None, (spec.role, brought.get(name, ""))))
            rows.append(SettingRow("genes", name, rule_of(spec), _toml(field.default), _sentence(spec.sentence), of))
    return rows


def _sentence(words: str) -> str:
    """With a capital, where it is not a letter of mathematics, and a full stop."""
    return (words[0].upper() if words[0].isascii() else words[0]) + words[1:].rstrip(".") + "."


def _takes(kind: Any, metadata: Sequence[Any] = ()) -> str:
    """A type as pydantic has it, in words."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _takes(parts[0], parts[1:])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_takes(part) for part in parts if part is not types.NoneType))
    if origin is typing.Literal:
        return "one of " * (len(parts) > 1) + ", ".join(map(str, parts))
    if origin is tuple and parts[-1] is ...:
        return f"list of {_takes(parts[0])}"
    if origin is tuple:
        return f"[{', '.join(_takes(part) for part in parts)}]"
    if origin is list:
        return f"list of {_takes(parts[0])}"
    words = {int: "whole number", float: "number", bool: "true or false", str: "text"}
    return " ".join(filter(None, (words.get(kind, "table"), _bounds(metadata))))


def _bounds(metadata: Iterable[Any]) -> str:
    words = []
    for part in metadata:
        for bound in getattr(part, "metadata", [part]):  # a pydantic.Field within Annotated holds its own
            match bound:
                case annotated_types.Gt(gt=low):
                    words.append(f"above {low:g}")
                case annotated_types.Ge(ge=low):
                    words.append(f"at least {low:g}")
    return " and ".join(words)


def _toml(value: Any) -> str:
    """A default as TOML has it; nothing where there is none."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"' if value else ""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value) if isinstance(value, int | float) else ""

"""Errors of a configuration in words of ours: a line for each of pydantic's, with the nearest known key or option."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args, get_origin

import pydantic

__all__ = ["Sections", "explained"]

Sections: TypeAlias = Mapping[str, type[pydantic.BaseModel]]


def _model_at(path: Sequence[str | int], sections: Sections) -> type[pydantic.BaseModel] | None:
    """The section's model at a path of keys, or None below one that takes any key."""
    return sections.get(".".join(map(str, path)))


def _all_keys(sections: Sections) -> dict[str, list[str]]:
    """Every key to its full names in all sections, for hints; where the whole has it, that alone."""
    keys: dict[str, list[str]] = {key: [key] for key in sections[""].model_fields} if "" in sections else {}
    of_the_whole = set(keys)
    for name in sorted(filter(None, sections)):
        for key in sections[name].model_fields:
            if key not in of_the_whole:
                keys.setdefault(key, []).append(f"{name}.{key}")
    return keys


def _unknown(path: Sequence[str | int], sections: Sections) -> str:
    """An unknown key, with the nearest one that there is."""
    name = ".".join(map(str, path))
    model = _model_at(path[:-1], sections)
    fields, everywhere = list(model.model_fields) if model else [], _all_keys(sections)
    near = difflib.get_close_matches(str(path[-1]), fields, n=1, cutoff=0.5)
    prefix = ".".join(map(str, path[:-1]))
    hints = [f"{prefix}.{near[0]}".lstrip(".")] if near else []
    hints = everywhere.get(str(path[-1]), hints)  # a key of other sections, written out in full
    if not hints:
        further = difflib.get_close_matches(str(path[-1]), list(everywhere), n=1, cutoff=0.7)
        hints = everywhere[further[0]] if further else []
    said = " or ".join(map(repr, hints))
    return f"{name}: there is no such key." + (f" Did you mean {said}?" if said else f" Known: {', '.join(fields)}.")


def explained(error: pydantic.ValidationError, sections: Sections, prefix: Sequence[str] = ()) -> list[str]:
    """A line for each problem of a section below a path of keys; `sections` has all models by name, "" the whole."""
    lines: dict[str, str] = {}
    unions: dict[str, dict[str, Any]] = {}  # messages by key: a value that may be of several kinds has one for each
    for problem in error.errors(include_url=False):
        path = [*prefix, *(key for key in problem["loc"] if not _is_union_tag(key))]
        of_a_range = problem["type"] == "missing" and isinstance(problem["input"], list | tuple)
        name = ".".join(map(str, path[:-1] if of_a_range else path)) or "(the whole)"
        if problem["type"] == "extra_forbidden":
            lines[name] = _unknown(path, sections)
        elif problem["type"] == "missing" and not of_a_range:
            lines[name] = f"{name}: is missing; it has no default."
        else:
            lines.setdefault(name, "")
            unions.setdefault(name, {}).setdefault(_message(problem, path, sections), problem["input"])
    for name, messages in unions.items():
        # Of a range that is wrong in part, the part is told.
        if any(isinstance(value, list | tuple) for value in messages.values()) and any(
            other.rpartition(".")[0] == name and other.rpartition(".")[2].isdecimal() for other in unions
        ):
            del lines[name]
            continue
        # A number out of bounds is told its bound, not what else than a number could stand there.
        texts = [text for text in messages if text.startswith(_BOUNDS)] or list(messages)
        message = ", or ".join([texts[0], *(text.removeprefix("must be ") for text in texts[1:])])
        value = repr(next(iter(messages.values())))
        shown = "" if message.startswith(name) or len(value) > 60 else f" (got {value})"
        lines[name] = f"{name}: {message}{shown}"
    return list(lines.values())


_BOUNDS = ("must be above ", "must be at ", "must be below ", "must be finite")

#: What a value must be, by the type of pydantic's error; in braces what its rule says.
_RULES = {
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number",
    "int_parsing_size": "a whole number of less than 4 300 digits",
    "float_type": "a number", "float_parsing": "a number", "finite_number": "finite",
    "bool_type": "true or false", "bool_parsing": "true or false", "string_type": "text",
    "dict_type": "a table of keys", "mapping_type": "a table of keys", "model_type": "a table of keys",
    "model_attributes_type": "a table of keys", "tuple_type": "two numbers [low, high]",
    "greater_than": "above {gt:g}", "greater_than_equal": "at least {ge:g}",
    "less_than": "below {lt:g}", "less_than_equal": "at most {le:g}", "literal_error": "{expected}",
}  # fmt: skip


def _message(problem: Any, path: Sequence[str | int], sections: Sections) -> str:
    """What is wrong with a value, in words of ours."""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "literal_error":
        options = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        near = difflib.get_close_matches(str(problem["input"]), options, n=1)
        return f"must be {context['expected']}" + (f"; did you mean {near[0]!r}?" if near else "")
    if kind == "list_type" or (kind == "tuple_type" and _is_of_any_length(path, sections)):
        return f"must be a list{_of_options(path, sections)}"
    if kind in ("missing", "too_short", "too_long"):  # a tuple's
        return "must be two numbers [low, high]"
    if kind in _RULES:
        return f"must be {_RULES[kind].format(**context)}"
    return str(problem["msg"]).removeprefix("Value error, ")


def _is_of_any_length(path: Sequence[str | int], sections: Sections) -> bool:
    """Whether the key at a path takes a tuple that may be as long as one likes."""
    model = _model_at(path[:-1], sections)
    field = model.model_fields.get(str(path[-1])) if model else None
    return field is not None and get_args(field.annotation)[-1:] == (...,)


def _of_options(path: Sequence[str | int], sections: Sections) -> str:
    """What a list at a path of keys may hold, where those are words."""
    model = _model_at(path[:-1], sections)
    field = model.model_fields.get(str(path[-1])) if model else None
    (kind,) = get_args(field.annotation)[:1] or (None,) if field else (None,)
    return f" of some of {', '.join(map(repr, get_args(kind)))}" if get_origin(kind) is Literal else ""


def _is_union_tag(key: str | int) -> bool:
    """Whether pydantic put this into an error's path for a member of a union, not for a key."""
    return isinstance(key, str) and (
        "[" in key or key in ("float", "int", "str", "constrained-float", "constrained-int", "none")
    )

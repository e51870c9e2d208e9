"""Codec names and numbers, parsed and written; a new stage is registered in `evocompress/extensions.py`.

Stages by name and by number, and named codecs. A new stage is one file beside this one and a row there; those of
installed packages come in by entry points. Only a name for a chain of stages is a row of `CODECS` here.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
from typing import Any

from evocompress.codecs.codec import Codec, Stage, varint
from evocompress.codecs.lossless import Lossless
from evocompress.errors import CodecError, ConfigError
from evocompress.extensions import STAGES

__all__ = [
    "CODECS",
    "KERNEL_CODECS",
    "LOSSLESS",
    "MATRIX_CODECS",
    "PRIVATE",
    "PRIVATE_NAME",
    "STAGES",
    "codec_spec",
    "installed_stage",
    "parse_codec",
    "stage_by_number",
    "stage_header",
    "stage_type",
]

#: Numbers of stages that are not built in (FORMAT.md, section 2): in a file such a stage's name follows its number.
PRIVATE = range(48, 64)
#: What such a name may be.
PRIVATE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

#: Named codecs: presets are nothing but compositions of stages.
CODECS: dict[str, str] = {
    "deadzone": "deadzone",
    "trellis": "trellis",
    "codebook": "codebook",
    "dct": "dct(axes=spatial)+threshold(mode=hard)+deadzone",
    "dct-trellis": "dct(axes=spatial)+trellis",
    "dct-matrix": "dct(axes=matrix)+threshold(mode=hard)+deadzone",
    "wavelet": "wavelet(name=haar,level=1)+threshold(mode=hard)+deadzone",
    "wavelet-soft": "wavelet(name=db2,level=1)+threshold(mode=soft,bits=0.02)+deadzone",
    "lowrank": "lowrank+deadzone",
    "linearconv": "linearconv+deadzone",
    "linearconv-lowrank": "linearconv(rank=0.5)+deadzone",
    "dct-linearconv": "dct(axes=spatial)+linearconv+deadzone",
    "symmetry": "symmetry+deadzone",
    "symmetry-trellis": "symmetry+trellis",
    "coordinates": "coordinates+deadzone",
    "coordinates-lowrank": "coordinates+lowrank+deadzone",
    "lossless": "lossless",
}

#: Codecs that a search tries on kernels, and on matrices, where it is told no others.
KERNEL_CODECS = ("deadzone", "dct", "dct-matrix", "wavelet", "codebook", "lowrank", "linearconv", "dct-linearconv")
MATRIX_CODECS = ("deadzone", "dct-matrix", "wavelet", "codebook", "lowrank", "linearconv")

_STAGE = re.compile(r"\s*(?P<id>[\w-]+)\s*(?:\((?P<parameters>[^()]*)\))?\s*")


def nearest(word: str, names: list[str]) -> str:
    """A hint with the known word most like this one, or nothing."""
    match = difflib.get_close_matches(word, names, n=1)
    return f" Did you mean {match[0]!r}?" if match else ""


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _type_name(field: dataclasses.Field[Any]) -> str:
    """The name of a field's type, which is text where its module has `from __future__ import annotations`."""
    return field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))


def _stage(text: str) -> Stage:
    match = _STAGE.fullmatch(text)
    if match is None:
        raise CodecError(f"{text!r} is not a stage; write one as name or name(parameter=value,…).")
    name = match["id"]
    if name not in STAGES:
        names, stages = ", ".join(sorted(CODECS)), ", ".join(sorted(STAGES))
        hint = nearest(name, sorted({*STAGES, *CODECS}))
        raise CodecError(f"There is no codec or stage {name!r}; codecs are {names}; stages are {stages}.{hint}")
    kind, parameters = stage_type(name), dict[str, int | float | str]()
    fields = {field.name: _type_name(field) for field in dataclasses.fields(kind)}
    for item in filter(None, (match["parameters"] or "").split(",")):
        key, equals, value = (part.strip() for part in item.partition("="))
        if key not in fields or not equals:
            names = ", ".join(fields) or "none"
            raise CodecError(f"{name} has no parameter {key!r}; it has {names}.{nearest(key, list(fields))}")
        parameters[key] = _value(value) if fields[key] != "bool" else {"True": True, "False": False}.get(value, value)
        expected = {"int": (int,), "float": (int, float), "bool": (bool,)}.get(fields[key], (str,))
        if not isinstance(parameters[key], expected):
            raise CodecError(f"{name}: {key} is {value!r}; it must be of type {fields[key]}.")
    stage: Stage = kind(**parameters)
    return stage


def parse_codec(text: str) -> Codec:
    """A codec from its name in `CODECS`, or from its stages written out.

    Raises:
        CodecError: An unknown name or parameter; the message lists the known ones.

    >>> parse_codec("dct(axes=matrix) + deadzone").stages[0]
    Dct(axes='matrix')
    """
    if not isinstance(text, str):
        raise CodecError(f"A codec is {text!r}; write its name, or its stages, such as 'dct+deadzone'.")
    return _parsed(text)


@functools.lru_cache(maxsize=1024)  # a search asks for the same few again and again, and codecs are immutable
def _parsed(text: str) -> Codec:
    return Codec(tuple(_stage(part) for part in CODECS.get(text, text).split("+")))


def codec_spec(codec: Codec) -> str:
    """The text that `parse_codec` turns into this codec; parameters at their defaults are left out.

    >>> codec_spec(parse_codec("dct(axes=matrix)+deadzone(step_scale=1.0)"))
    'dct(axes=matrix)+deadzone'
    """
    parts = []
    for stage in codec.stages:
        fields = dataclasses.fields(stage)  # type: ignore[arg-type]
        changed = [f"{f.name}={getattr(stage, f.name)}" for f in fields if getattr(stage, f.name) != f.default]
        parts.append(stage.id + (f"({','.join(changed)})" if changed else ""))
    return "+".join(parts)


@functools.cache
def _built_in() -> dict[int, type[Any]]:
    return {STAGES[name].number: STAGES[name] for name in STAGES.builtin}


def stage_type(name: str) -> type[Any]:
    """The class of the built-in stage of this name, or of an installed package's.

    Raises:
        KeyError: There is none.
        CodecError: A package's stage breaks a rule: its number, its name, or what it has.
        ConfigError: A package's stage cannot be imported.
    """
    kind: type[Any] = STAGES[name]
    if name not in STAGES.builtin:
        _check_private(name, kind)
    return kind


def _check_private(name: str, kind: Any) -> None:
    subject = f"The stage {name!r} ({getattr(kind, '__module__', '?')}:{getattr(kind, '__qualname__', kind)})"
    if not _is_stage(kind):
        raise CodecError(
            f"{subject} is no stage: write a frozen dataclass with id, number, terminal, encode, layout and decode."
        )
    if kind.id != name or PRIVATE_NAME.fullmatch(name) is None:
        raise CodecError(
            f"{subject} has id {kind.id!r}; it must be the name of its entry point, up to 64 letters, digits, _ and -."
        )
    if type(kind.number) is not int or kind.number not in PRIVATE:
        raise CodecError(
            f"{subject} has number {kind.number!r}; a package's stages have one of {PRIVATE[0]} to {PRIVATE[-1]}, "
            "any, as their names stand beside it in files."
        )


def _is_stage(kind: Any) -> bool:
    parts = ("id", "number", "terminal", "encode", "layout", "decode")
    return isinstance(kind, type) and dataclasses.is_dataclass(kind) and all(hasattr(kind, part) for part in parts)


def stage_by_number(number: int) -> Stage | None:
    """A built-in stage as a decoder needs it (parameters are in the side information), None for an unknown number."""
    kind = _built_in().get(number)
    return None if kind is None else kind()


def installed_stage(number: int, name: str) -> Stage | None:
    """The stage of an installed package that a file names, None where no package adds one of this name and number.

    Raises:
        CodecError: The package's stage breaks a rule, or cannot be imported.
    """
    try:
        kind = stage_type(name) if name in STAGES and name not in STAGES.builtin else None
    except ConfigError as error:
        raise CodecError(str(error)) from error
    return kind() if kind is not None and kind.number == number else None


def stage_header(stage: Stage) -> bytes:
    """How a file names a stage: its number, and for a package's stage its name and a zero byte.

    Raises:
        CodecError: The stage is neither built in nor added by an installed package, so that nobody could read it.

    >>> stage_header(LOSSLESS.stages[0])
    b'\\x06'
    """
    built_in = _built_in().get(stage.number)
    if built_in is not None and built_in.id == stage.id:  # of its class, or another one that writes the same
        return varint(stage.number)
    if stage.id not in STAGES or stage_type(stage.id) is not type(stage):
        raise CodecError(
            f"Stage {stage.id!r} of number {stage.number} ({type(stage).__module__}) cannot be written: no file with "
            "it could be read. Add it to the entry points evocompress.codecs of an installed package."
        )
    return varint(stage.number) + stage.id.encode("ascii") + b"\0"


LOSSLESS = Codec((Lossless(),))

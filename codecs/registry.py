"""All stages and all named codecs, each one row. A new codec is one file beside this one and one row here."""

from __future__ import annotations

import dataclasses
import difflib
import re
from typing import Any

from evocompress.codecs.codebook import Codebook
from evocompress.codecs.codec import Codec, Stage
from evocompress.codecs.coordinates import Coordinates
from evocompress.codecs.dct import Dct
from evocompress.codecs.deadzone import DeadZone
from evocompress.codecs.denoise import Denoise
from evocompress.codecs.linearconv import LinearConv
from evocompress.codecs.lossless import Lossless
from evocompress.codecs.lowrank import LowRank
from evocompress.codecs.symmetry import Symmetry
from evocompress.codecs.threshold import Threshold
from evocompress.codecs.trellis import Trellis
from evocompress.codecs.wavelet import Wavelet
from evocompress.errors import CodecError

__all__ = ["CODECS", "LOSSLESS", "STAGES", "codec_spec", "parse_codec", "stage_by_number"]

#: Stages by id. Numbers in files are theirs for ever.
STAGES: dict[str, type[Any]] = {
    stage.id: stage
    for stage in (
        DeadZone, Codebook, Lossless, Trellis, Dct, Threshold, Wavelet, LowRank, LinearConv, Symmetry, Coordinates,
        Denoise,
    )
}  # fmt: skip
_BY_NUMBER = {stage.number: stage for stage in STAGES.values()}

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

_STAGE = re.compile(r"\s*(?P<id>[\w-]+)\s*(?:\((?P<parameters>[^()]*)\))?\s*")


def nearest(word: str, known: list[str]) -> str:
    """A hint with the known word most like this one, or nothing."""
    match = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {match[0]!r}?" if match else ""


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _stage(text: str) -> Stage:
    match = _STAGE.fullmatch(text)
    if match is None:
        raise CodecError(f"{text!r} is not a stage; write one as name or name(parameter=value,…).")
    name = match["id"]
    if name not in STAGES:
        names, stages = ", ".join(sorted(CODECS)), ", ".join(sorted(STAGES))
        hint = nearest(name, sorted({*STAGES, *CODECS}))
        raise CodecError(f"There is no codec or stage {name!r}; codecs are {names}; stages are {stages}.{hint}")
    kind, parameters = STAGES[name], dict[str, int | float | str]()
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    for item in filter(None, (match["parameters"] or "").split(",")):
        key, equals, value = (part.strip() for part in item.partition("="))
        if key not in fields or not equals:
            known = ", ".join(fields) or "none"
            raise CodecError(f"{name} has no parameter {key!r}; it has {known}.{nearest(key, list(fields))}")
        parameters[key] = _value(value)
        expected = {"int": (int,), "float": (int, float)}.get(str(fields[key]), (str,))
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


def stage_by_number(number: int) -> Stage | None:
    """A stage as a decoder needs it (its parameters are in the side information), or None for an unknown number."""
    kind = _BY_NUMBER.get(number)
    return None if kind is None else kind()


LOSSLESS = Codec((Lossless(),))

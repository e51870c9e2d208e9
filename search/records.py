"""Tasks, outcomes and leaves: the plain data that pass between search, executors and journal, JSON in and out.

A *task* is one segment to run. An *outcome* is what came of it: a list of *leaves*, each one compressed file with its
measurements, or a status that says why there are none. Everything here is made of JSON scalars, so the journal can hold
it and `from_json(to_json(x)) == x`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from typing import Any, Literal, TypeAlias

from evocompress.search.old_runs import OLD_KEY, leaf_with_quality

__all__ = [
    "Genome",
    "Leaf",
    "Operator",
    "Outcome",
    "Parent",
    "ParentRule",
    "Scalar",
    "SegmentTask",
    "Status",
    "genome_hash",
]

Scalar: TypeAlias = bool | int | float | str
Genome: TypeAlias = dict[str, Scalar]
Status: TypeAlias = Literal["ok", "diverged", "out_of_memory", "failed"]
Operator: TypeAlias = Literal["initial", "seed", "continue", "mutate", "crossover"]
ParentRule: TypeAlias = Literal["none", "tournament", "size_bin", "budget", "random", "lineage"]


_NUMBER = (int, float)
_TEXT, _WHOLE, _TABLE, _LIST = (str,), (int,), (dict,), (list, tuple)
_KINDS: dict[str, dict[str, tuple[type, ...]]] = {
    "parent": {
        **dict.fromkeys(("leaf_id", "path", "sha256", "weights_sha256"), _TEXT),
        **dict.fromkeys(("depth", "epochs"), _WHOLE),
        "seconds": _NUMBER,
    },
    "task": {
        **dict.fromkeys(("index", "seed", "seen"), _WHOLE),
        **dict.fromkeys(("segment_id", "operator", "rule"), _TEXT),
        **dict.fromkeys(("parents", "probes"), _LIST),
        "genome": _TABLE,
    },
    "leaf": {
        **dict.fromkeys(("leaf_id", "path", "sha256", "weights_sha256"), _TEXT),
        **dict.fromkeys(("nbytes", "depth", "epochs"), _WHOLE),
        **dict.fromkeys(("quality", "error", "seconds"), _NUMBER),
        **dict.fromkeys(("genome", "measurements"), _TABLE),
    },
    "outcome": {
        **dict.fromkeys(("segment_id", "status", "error", "attempt"), _TEXT),
        **dict.fromkeys(("seconds", "encode_fraction"), _NUMBER),
        "index": _WHOLE,
        "leaves": _LIST,
        "metrics": _TABLE,
    },
}


def _checked(what: str, data: Any) -> dict[str, Any]:
    """Data that came out of a file, its fields of the types that they must have; the dataclass misses what is missing.

    Raises:
        TypeError: Names the field.
    """
    if not isinstance(data, dict):
        raise TypeError(f"{what} is {_shown(data)}, not a mapping")
    for name, kinds in _KINDS[what].items():
        value = data.get(name, kinds)
        if value is kinds:
            continue
        if not isinstance(value, kinds) or (value.__class__ is bool):
            raise TypeError(f"{what}.{name} is {_shown(value)}; it must be {kinds[-1].__name__}")
        if value.__class__ is float and not math.isfinite(value):
            raise TypeError(f"{what}.{name} is {value}; it must be finite")
    return data


def _checked_genome(genome: Any) -> Genome:
    if not isinstance(genome, dict):
        raise TypeError(f"a genome is {_shown(genome)}, not a mapping")
    for name, value in genome.items():
        if not isinstance(value, bool | int | float | str):
            raise TypeError(f"gene {name!r} is {_shown(value)}; it must be a number, a text or a truth value")
    return genome


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def genome_hash(genome: Genome) -> str:
    """First 16 hex digits of the SHA-256 of the genome's canonical JSON (sorted keys, no spaces).

    >>> genome_hash({"b": 1, "a": 2}) == genome_hash({"a": 2, "b": 1})
    True
    """
    canonical = json.dumps(genome, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Parent:
    """A file that a segment starts from: `path` is relative to the run's storage root, `sha256` is of the file."""

    leaf_id: str
    path: str
    sha256: str
    depth: int = 0
    epochs: int = 0
    seconds: float = 0.0
    weights_sha256: str = ""


@dataclasses.dataclass(frozen=True)
class SegmentTask:
    """One segment to run, known in full before it is submitted.

    `seen` is how many results the search had been told when it decided; `parents` is empty for an initial segment
    (which starts from the run's common initial weights). `probes` are genomes that differ from `genome` in recipe genes
    only. `seed` seeds the segment's own generator.
    """

    index: int
    segment_id: str
    operator: Operator
    rule: ParentRule
    parents: tuple[Parent, ...]
    genome: Genome
    probes: tuple[Genome, ...]
    seed: int
    seen: int

    @property
    def number(self) -> int:
        """The segment's number where people read it: `index` from 1."""
        return self.index + 1

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data, which shares the genomes."""
        return {**self.__dict__, "parents": [dict(parent.__dict__) for parent in self.parents]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SegmentTask:
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError: A field is missing, or of a wrong type.
        """
        _checked("task", data)
        parents = tuple(Parent(**_checked("parent", parent)) for parent in data["parents"])
        _checked_genome(data["genome"])
        return cls(**{**data, "parents": parents, "probes": tuple(map(_checked_genome, data["probes"]))})


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One compressed file. `path` is relative to the run's storage root once committed, to the attempt folder before.

    `nbytes` is `os.path.getsize` of the file, `quality` that of the network decoded from it, on validation data (see
    `quality.Quality`), `error` what the search minimises of it, finite and not negative. `measurements` holds whatever
    else the segment measured (seconds, bytes per layer, interval and loss), JSON only.
    """

    leaf_id: str
    path: str
    sha256: str
    nbytes: int
    quality: float
    error: float
    genome: Genome
    depth: int = 0
    epochs: int = 0
    seconds: float = 0.0
    weights_sha256: str = ""
    measurements: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data, which shares genome and measurements."""
        return dict(self.__dict__)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Leaf:
        """The inverse of `to_json`; reads those of old runs, too.

        Raises:
            KeyError, TypeError: A field is missing, or of a wrong type.
        """
        _checked_genome(_checked("leaf", data).get("genome", {}))
        if OLD_KEY in data:
            data = _checked("leaf", leaf_with_quality(data))
        return cls(**data)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of one segment. `metrics` is free-form JSON: curves per epoch, timings, node, peak memory, versions.

    `encode_fraction` is the share of the segment's seconds that encode + decode + evaluate of all recipes took; the
    search adapts K by it. `attempt` names the attempt whose COMMIT won.
    """

    segment_id: str
    index: int
    status: Status
    leaves: tuple[Leaf, ...] = ()
    error: str = ""
    attempt: str = ""
    seconds: float = 0.0
    encode_fraction: float = 0.0
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def number(self) -> int:
        """The segment's number where people read it: `index` from 1."""
        return self.index + 1

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data, which shares what is free-form."""
        return {**self.__dict__, "leaves": [leaf.to_json() for leaf in self.leaves]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Outcome:
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError: A field is missing, or of a wrong type.
            ValueError: Two leaves have one id, or one has an id that is not of this segment.
        """
        _checked("outcome", data)
        leaves = tuple(Leaf.from_json(leaf) for leaf in data["leaves"])
        ids = {leaf.leaf_id for leaf in leaves}
        if len(ids) < len(leaves):
            raise ValueError(f"two leaves of segment {data['segment_id']} have the same leaf_id")
        if strange := [leaf_id for leaf_id in ids if not leaf_id.startswith(data["segment_id"])]:
            raise ValueError(f"leaf_id {strange[0]!r} is not one of segment {data['segment_id']}")
        return cls(**{**data, "leaves": leaves})

"""Tasks, outcomes and leaves: the plain data that pass between search, executors and journal, JSON in and out.

A *task* is one segment to run. An *outcome* is what came of it: a list of *leaves*, each one compressed file with its
measurements, or a status that says why there are none. Everything here is made of JSON scalars, so the journal can hold
it and `from_json(to_json(x)) == x`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any, Literal, TypeAlias

__all__ = ["Genome", "Leaf", "Operator", "Outcome", "Parent", "ParentRule", "Scalar", "Status", "Task", "genome_hash"]

Scalar: TypeAlias = bool | int | float | str
Genome: TypeAlias = dict[str, Scalar]
Status: TypeAlias = Literal["ok", "diverged", "out_of_memory", "failed"]
Operator: TypeAlias = Literal["initial", "continue", "mutate", "crossover"]
ParentRule: TypeAlias = Literal["none", "tournament", "size_bin", "budget", "random", "lineage"]


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
class Task:
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

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Task:
        """The inverse of `to_json`."""
        return cls(
            **{
                **data,
                "parents": tuple(Parent(**parent) for parent in data["parents"]),
                "probes": tuple(data["probes"]),
            }
        )


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
    measurements: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Leaf:
        """The inverse of `to_json`; reads records of before there were tasks, too, which have an accuracy in [0, 1]."""
        if "accuracy" in data:
            accuracy = data["accuracy"]
            data = {key: value for key, value in data.items() if key != "accuracy"}
            data |= {"quality": accuracy, "error": 1.0 - accuracy}
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

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Outcome:
        """The inverse of `to_json`."""
        return cls(**{**data, "leaves": tuple(Leaf.from_json(leaf) for leaf in data["leaves"])})

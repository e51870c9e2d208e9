"""Header of a run, run.json: what it fixes for good, and how a resume is compared with it."""

from __future__ import annotations

import datetime
import json
import os
import uuid
from collections.abc import Collection, Mapping
from typing import Any

from evocompress.errors import RunError
from evocompress.search.history import FORMAT
from evocompress.search.old_runs import quality_of_run
from evocompress.search.settings import SearchSettings
from evocompress.search.space import Space
from evocompress.search.storage import Storage, open_storage

__all__ = [
    "MARK",
    "check_json",
    "compare",
    "describe",
    "identity",
    "locked",
    "make_run_json",
    "measured_as",
    "only_budget",
    "storage_of_run",
]

#: Where a storage of its own says whose it is.
MARK = "RUN.json"

# Parts of a header that decide what a segment computes; the rest (versions, revision, text) is only recorded.
_FIXED = ("config", "network", "data")

# What even an override must leave: results of before and after would not be comparable, or the journal not replay.
_LOCKED = ("quality", "network", "data", "storage")
# How long a run goes on changes nothing in what was done; a resume may change it without an override.
_ENDS = ("segments", "minutes", "give_up_after")
_BUDGET = frozenset(f"{prefix}search.{name}" for prefix in ("", "config.") for name in _ENDS)
#: Parts of a configuration, and the parts of a header that follow from each; splits and first weights do from the seed.
_FOLLOWS = {
    "config.genes.": ("space.",),
    "search.seed": ("data.", "network."),
}
# With more turns, lineages that had come to their end would go on, whose files are gone.
_LOCKED_SETTINGS = ("seed", "deterministic", "lag", "bytes_range", "error_range", "reference", "lineage_turns")


def make_run_json(
    header: Mapping[str, Any], space: Space, settings: SearchSettings, storage_uri: str
) -> dict[str, Any]:
    """The content of run.json."""
    return {
        **header,
        "format": FORMAT,
        "id": uuid.uuid4().hex,
        "seed": settings.seed,
        "reference_point": list(settings.reference),
        "ranges": {"bytes": list(settings.bytes_range), "error": list(settings.error_range)},
        "space": space.to_json(),
        "search": settings.to_json(),
        "storage": storage_uri,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def identity(header: Mapping[str, Any], space: Space, settings: SearchSettings, storage_uri: str) -> dict[str, Any]:
    """What must not change between a run and its resume, as it comes back from JSON."""
    parts = {key: header.get(key) for key in _FIXED}
    parts["quality"] = measured_as(header)
    content = {**parts, "space": space.to_json(), "search": settings.to_json(), "storage": storage_uri}
    result: dict[str, Any] = json.loads(json.dumps(content))
    return result


def measured_as(header: Mapping[str, Any]) -> dict[str, str]:
    """Which quality a run measures; its unit and digits may change, as they only show it."""
    quality = quality_of_run(header.get("quality"))
    return {"name": quality.name, "direction": quality.direction}


def compare(old: Any, new: Any, free: Collection[str] = (), prefix: str = "") -> dict[str, list[Any]]:
    """Differences as {dotted key: [old, new]}; keys in `free`, and everything below them, may differ."""
    if prefix in free:
        return {}
    if isinstance(old, dict) and isinstance(new, dict):
        changes: dict[str, list[Any]] = {}
        for key in sorted({*old, *new}):
            dotted = f"{prefix}.{key}" if prefix else str(key)
            changes.update(compare(old.get(key), new.get(key), free, dotted))
        return changes
    return {} if old == new else {prefix: [old, new]}


def locked(changes: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """The changes that no override can make."""
    keys = {*_LOCKED, *(f"search.{name}" for name in _LOCKED_SETTINGS), "config.search.ratio_range"}
    return {name: change for name, change in changes.items() if name in keys or name.split(".")[0] in keys}


def only_budget(changes: Mapping[str, list[Any]]) -> bool:
    """Whether nothing but what ends a run has changed: the budget of segments and minutes, and when it is given up.

    >>> only_budget({"search.segments": [100, 200]}), only_budget({"search.probes": [1, 2]})
    (True, False)
    """
    return changes.keys() <= _BUDGET


def describe(changes: Mapping[str, list[Any]]) -> str:
    """The differences in one line, long values cut, under the keys that a configuration has.

    What may change anyway is left out, and what only follows from a key of the configuration that is told.

    >>> describe({"config.search.probes": [1, 2], "search.probes": [1, 2], "search.segments": [100, 200]})
    'search.probes was 1, is 2'
    >>> describe(locked({"config.search.ratio_range": [[9, 99], [9, 80]], "search.bytes_range": [[5, 55], [6, 55]]}))
    'search.ratio_range was [9, 99], is [9, 80]'
    >>> describe(locked({"config.search.ratio_range": [[9, 99], [9, 80]], "search.seed": [0, 1], "data.x": [2, 3]}))
    'search.ratio_range was [9, 99], is [9, 80]; seed was 0, is 1'
    """
    told = {key: change for key, change in changes.items() if key not in _BUDGET}
    for key in [key for key in told if key.startswith("config.search.")]:
        name = key.removeprefix("config.search.")
        told.pop("search.bytes_range" if name == "ratio_range" else f"search.{name}", None)
    for source, follows in _FOLLOWS.items():
        if any(key.startswith(source) for key in told):
            told = {key: change for key, change in told.items() if not key.startswith(follows)}
    shown = {"seed" if key == "search.seed" else key.removeprefix("config."): told[key] for key in told}
    return "; ".join(f"{key} was {_short(old)}, is {_short(new)}" for key, (old, new) in shown.items())


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_json(header: Mapping[str, Any]) -> None:
    """Raise `RunError` where a header cannot be written."""
    try:
        json.dumps(dict(header), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RunError(
            f"header cannot be written to run.json ({error}); give JSON data, finite numbers only"
        ) from error


def storage_of_run(folder: str | os.PathLike[str], storage_uri: str = "") -> Storage:
    """Where the files of a run lie, which may not be begun yet; nothing is written there while it is not mounted."""
    return open_storage(storage_uri, mark=MARK) if storage_uri else open_storage(folder, mark="run.json")

"""Data of the report's page, as compact JSON: columns of leaves, genes with their repeated values once.

The page holds every leaf of a run of usual size. Of a large one it holds the front, all ancestors, and an even sample
of the rest, and layer tables for as many leaves as fit `MAX_LAYER_ROWS`, the front's and its ancestors' first.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evocompress.runs.front import (
    KNEE,
    FrontPoint,
    Reference,
    against_packing,
    audits,
    detail_names,
    float32_bytes,
    front,
    hypervolume_curve,
    in_view,
    knee,
    reference,
)
from evocompress.runs.segment_table import rounded
from evocompress.search.records import Leaf

if TYPE_CHECKING:
    from evocompress.search.history import History

__all__ = ["MAX_LAYER_ROWS", "MAX_LEAVES", "payload"]

MAX_LEAVES = 10_000
MAX_LAYER_ROWS = 30_000
_MAX_FAILURES = 40


def payload(
    history: History,
    *,
    files: str | None = None,
    max_leaves: int = MAX_LEAVES,
    max_layer_rows: int = MAX_LAYER_ROWS,
) -> dict[str, Any]:
    """Everything that the page shows, made of JSON scalars, lists and dicts; qualities as measured, sizes in bytes.

    `files` stands before the names of the front's files where they are links.
    """
    points, quality = front(history), history.quality
    shown = {point.leaf_id for point in in_view(points, quality)}
    leaves = _chosen(history, points, max_leaves)
    number = {leaf.leaf_id: place for place, leaf in enumerate(leaves)}
    line, bend = reference(history), knee(points, quality)
    return {
        "run": {
            key: history.run.get(key) for key in ("network", "data", "seed", "created", "git_revision", "versions")
        },
        "quality": quality.to_json() | {"rises": quality.is_maximised, "isShare": quality.is_share},
        "float32Bytes": float32_bytes(history),
        "audited": bool(points) and points[0].audited,
        "reference": None if line is None else dataclasses.asdict(dataclasses.replace(line, packed=())),
        "packed": _packed(history, points, line),
        "leafCount": len(history.leaves),
        "leaves": _leaf_columns(history, leaves, number),
        "genes": _gene_columns(leaves),
        "auditedQuality": {
            str(number[leaf_id]): rounded(audit.quality)
            for leaf_id, audit in audits(history).items()
            if leaf_id in number and audit.quality is not None
        },
        "details": detail_names(points),
        "knee": KNEE,
        "files": files,
        "front": [
            _front_entry(point, number[point.leaf_id], bend) | {"inView": point.leaf_id in shown} for point in points
        ],
        "layers": _layer_tables(history, _by_interest(history, points, leaves), number, max_layer_rows),
        "hypervolume": _hypervolume(history),
        "segments": _segments(history),
    }


def _chosen(history: History, points: Sequence[FrontPoint], limit: int) -> list[Leaf]:
    """The leaves that the page holds, in the order in which they were made, with all ancestors of each.

    Their measurements, which take most of the memory, are left out.
    """
    leaf_ids = list(history.leaves)
    kept = {point.leaf_id for point in points} | {leaf.leaf_id for leaf in history.archive}
    kept.update(leaf_ids[:: max(1, -(-len(leaf_ids) // limit))])
    for leaf_id in list(kept):
        ancestor = history.parent_of(leaf_id)
        while ancestor is not None and ancestor not in kept:
            kept.add(ancestor)
            ancestor = history.parent_of(ancestor)
    return [dataclasses.replace(history.leaves[leaf_id], measurements={}) for leaf_id in leaf_ids if leaf_id in kept]


def _by_interest(history: History, points: Sequence[FrontPoint], leaves: Sequence[Leaf]) -> list[str]:
    """The ids of the front's leaves, then of their ancestors, then of the newest."""
    ordered = dict.fromkeys(point.leaf_id for point in points)
    for point in points:
        ancestor = history.parent_of(point.leaf_id)
        line = []
        while ancestor is not None and ancestor not in ordered:
            line.append(ancestor)
            ancestor = history.parent_of(ancestor)
        ordered |= dict.fromkeys(reversed(line))
    ordered |= dict.fromkeys(leaf.leaf_id for leaf in reversed(leaves))
    return list(ordered)


def _leaf_columns(history: History, leaves: Sequence[Leaf], number: Mapping[str, int]) -> dict[str, list[Any]]:
    parents = [history.parent_of(leaf.leaf_id) for leaf in leaves]
    tasks = [history.tasks[history.segment_of[leaf.leaf_id]] for leaf in leaves]
    return {
        "id": [leaf.leaf_id for leaf in leaves],
        "bytes": [leaf.nbytes for leaf in leaves],
        "quality": [rounded(leaf.quality) for leaf in leaves],
        "depth": [leaf.depth for leaf in leaves],
        "epochs": [leaf.epochs for leaf in leaves],
        "seconds": [round(leaf.seconds, 1) for leaf in leaves],
        "parent": [-1 if parent is None else number.get(parent, -1) for parent in parents],
        "segment": [task.number for task in tasks],
        "operator": [task.operator for task in tasks],
    }


def _gene_columns(leaves: Sequence[Leaf]) -> dict[str, dict[str, list[Any]]]:
    """Per gene its distinct values and, per leaf, which one (-1: the leaf's genome has no such gene)."""
    columns: dict[str, dict[str, list[Any]]] = {}
    for name in sorted({name for leaf in leaves for name in leaf.genome}):
        place: dict[tuple[str, Any], int] = {}
        value_numbers = []
        for leaf in leaves:
            value = leaf.genome.get(name)
            short = float(f"{value:.4g}") if isinstance(value, float) else value
            # The type is part of the key because True == 1 == 1.0 to a dict.
            value_numbers.append(-1 if value is None else place.setdefault((type(short).__name__, short), len(place)))
        columns[name] = {"values": [value for _, value in place], "which": value_numbers}
    return columns


def _front_entry(point: FrontPoint, leaf: int, bend: FrontPoint | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"file": point.file, "total": point.total, "ratio": round(point.ratio, 6)}
    entry |= {key: rounded(getattr(point, key)) for key in ("quality", "error", "low", "high")}
    details = {name: None if value is None else rounded(value) for name, value in point.details.items()}
    return entry | {"details": details, "leaf": leaf, "bytes": point.nbytes, "knee": point is bend}


def _packed(history: History, points: Sequence[FrontPoint], line: Reference | None) -> list[dict[str, Any]]:
    """What training once and packing gave: judged on audit data, so beside a front on validation data nothing."""
    if line is None or not points or not points[0].audited:
        return []
    beside = {row.packed: row for row in against_packing(history, points)}
    entries = []
    for file in line.packed:
        row = beside.get(file)
        as_good = None if row is None or row.point is None else row.point.nbytes
        entry = {"bytes": file.nbytes, "quality": rounded(file.quality), "rateWeight": rounded(file.rate_weight)}
        entries.append(entry | {"inView": row is not None, "asGood": as_good})
    return entries


def _layer_tables(
    history: History, leaf_ids: Iterable[str], number: Mapping[str, int], max_rows: int
) -> dict[str, Any]:
    """Rows [layer, codec, payload bytes, side bytes] by leaf; layers and codecs are named once."""
    layers: dict[tuple[str, tuple[int, ...]], int] = {}
    codecs: dict[str, int] = {}
    tables: dict[int, dict[str, Any]] = {}
    left = max_rows
    for leaf in (history.leaves[leaf_id] for leaf_id in leaf_ids):
        rows = leaf.measurements.get("layers")
        if not rows:
            continue
        if (left := left - len(rows)) < 0:
            break
        coded = [
            [
                layers.setdefault((row["name"], tuple(row["shape"])), len(layers)),
                codecs.setdefault(row["codec"], len(codecs)),
                round(row["payload_bytes"], 1),
                row["side_bytes"],
            ]
            for row in rows
        ]
        tables[number[leaf.leaf_id]] = {"header": leaf.measurements.get("header_bytes", 0), "rows": coded}
    return {"names": [name for name, _ in layers], "shapes": [shape for _, shape in layers], "codecs": list(codecs)} | {
        "tables": tables
    }


def _hypervolume(history: History) -> dict[str, list[float]]:
    """Only where it changed, and the ends: a plateau needs no points of its own."""
    curve = hypervolume_curve(history)
    kept = [
        point
        for place, point in enumerate(curve)
        if place in (0, len(curve) - 1) or point.hypervolume != curve[place - 1].hypervolume
    ]
    return {
        "segments": [point.segments for point in kept],
        "seconds": [round(point.seconds, 2) for point in kept],
        "value": [round(point.hypervolume, 6) for point in kept],
    }


def _segments(history: History) -> dict[str, Any]:
    """Counts by status and by operator, and the failures by their text."""
    statuses = collections.Counter(outcome.status for outcome in history.outcomes)
    operators: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    failures: dict[tuple[str, str], list[int]] = collections.defaultdict(list)
    for outcome, told in zip(history.outcomes, history.told, strict=True):
        task = history.tasks[outcome.segment_id]
        counts = operators[task.operator]
        counts["segments"] += 1
        counts["failed"] += outcome.status != "ok"
        counts["leaves"] += len(outcome.leaves)
        counts["accepted"] += len(told.get("accepted", ()))
        if outcome.status != "ok":
            failures[outcome.status, outcome.error].append(outcome.number)
    if (given_up := history.given_up) is not None:  # after its first segments
        numbers = range(1, len(given_up["segments"]) + 1)
        failures[given_up["status"], given_up["error"]] += numbers
        statuses[given_up["status"]] += len(numbers)
    common = sorted(failures.items(), key=lambda item: (-len(item[1]), item[1]))
    return {
        "statuses": dict(sorted(statuses.items())),
        "operators": {name: dict(counts) for name, counts in sorted(operators.items())},
        "failures": [
            {"status": status, "error": error[:2000], "count": len(numbers), "segments": numbers[:8]}
            for (status, error), numbers in common[:_MAX_FAILURES]
        ],
        "moreFailures": max(0, len(common) - _MAX_FAILURES),
        "seconds": round(sum(outcome.seconds for outcome in history.outcomes), 1),
        "unfinished": len(history.tasks) - len(history.outcomes),
    }

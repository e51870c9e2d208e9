"""Table of all that a run recorded: a row per leaf, and one for each segment that has none."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evocompress.runs.front import audits, float32_bytes
from evocompress.runs.recorded_measurements import Recorded, of_leaf
from evocompress.search.records import Leaf, Outcome, SegmentTask, genome_hash
from evocompress.support.atomic_files import replacing
from evocompress.support.optional_libraries import needs_extra

if TYPE_CHECKING:
    from evocompress.search.history import History

__all__ = ["canonical_json", "renamed_value", "rounded", "segment_rows", "write_segments_parquet"]

_FIELDS = {
    "int": "index completion seen segment_seed probes peak_memory_bytes seed bytes total audited_total depth "
    "epochs header_bytes",
    "float": "float_quality segment_seconds train_seconds compress_seconds encode_fraction started finished told_at "
    "hypervolume_before hypervolume_after quality quality_low quality_high quality_error loss ratio "
    "audited_quality audited_low audited_high audited_error seconds encode_seconds decode_seconds evaluate_seconds",
    "str": "segment_id attempt status error operator rule parent_ids parent_sha256 parent_weights_sha256 "
    "segment_genome segment_genome_hash node device segment_versions git_revision data_sha256 versions leaf_id path "
    "sha256 weights_sha256 genome genome_hash quality_name details audited_details",
    "bool": "diverged accepted in_archive",
    "floats": "train_loss train_quality validation_quality_curve",
    "layers": "layers",
}
_ROWS_AT_ONCE = 10_000
_METRICS = ("train_seconds", "peak_memory_bytes", "node", "device", "started", "finished")
_MEASUREMENTS = ("encode_seconds", "decode_seconds", "evaluate_seconds", "header_bytes")


def segment_rows(history: History) -> list[dict[str, Any]]:
    """One row per leaf, in told order, with all that was recorded about it and its segment; sizes in bytes."""
    return list(_rows(history))


def _rows(history: History) -> Iterator[dict[str, Any]]:
    audited, archive = audits(history), {leaf.leaf_id for leaf in history.archive}
    run = _run_columns(history.run) | {"quality_name": history.quality.name}
    told_results = zip(history.outcomes, history.told, history.finished_at, history.completions, strict=True)
    for outcome, told, told_at, completion in told_results:
        segment = run | _segment_columns(history.tasks[outcome.segment_id], outcome)
        segment |= {"completion": completion, "told_at": told_at}
        segment |= {key: told.get(key) for key in ("hypervolume_before", "hypervolume_after")}
        accepted = set(told.get("accepted", ()))
        for leaf in outcome.leaves:
            kept = {"accepted": leaf.leaf_id in accepted, "in_archive": leaf.leaf_id in archive}
            yield segment | _leaf_columns(history, leaf) | kept | _audit_columns(audited.get(leaf.leaf_id))
        if not outcome.leaves:
            yield segment


def write_segments_parquet(history: History, path: str | Path) -> None:
    """Write `segment_rows` as parquet; the schema is fixed, so that tables of several runs can be joined.

    So many rows at a time as fit into little memory, whatever the length of the run.
    """
    with needs_extra("report"):
        import pyarrow
        import pyarrow.parquet
    integer, number, text = pyarrow.int64(), pyarrow.float64(), pyarrow.string()
    layer = {"name": text, "shape": pyarrow.list_(integer), "codec": text, "payload_bytes": number}
    layer |= {"side_bytes": number, "bits_per_weight": number}
    types = {"int": integer, "float": number, "str": text, "bool": pyarrow.bool_(), "floats": pyarrow.list_(number)}
    types["layers"] = pyarrow.list_(pyarrow.struct(list(layer.items())))
    schema = pyarrow.schema([(name, types[kind]) for kind, names in _FIELDS.items() for name in names.split()])
    rows = _rows(history)
    with (
        replacing(Path(path)) as temporary,
        pyarrow.parquet.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        while True:
            part = list(itertools.islice(rows, _ROWS_AT_ONCE))
            writer.write_table(pyarrow.Table.from_pylist(part, schema=schema))
            if len(part) < _ROWS_AT_ONCE:
                break


def rounded(value: float) -> float:
    """To eight digits: more than any measurement has, and no tail of a binary fraction."""
    return float(f"{value:.8g}")


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces, so that equal values are equal texts.

    >>> canonical_json({"b": 1, "a": True})
    '{"a":true,"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _run_columns(run: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "git_revision": run.get("git_revision", ""),
        "data_sha256": run.get("data", {}).get("sha256", ""),
        "versions": canonical_json(run.get("versions", {})),
        "seed": run.get("seed"),
    }


def _segment_columns(task: SegmentTask, outcome: Outcome) -> dict[str, Any]:
    metrics = outcome.metrics
    curves = metrics.get("curves", {})
    return {
        "index": task.index,
        "segment_id": task.segment_id,
        "attempt": outcome.attempt,
        "status": outcome.status,
        "diverged": outcome.status == "diverged",
        "error": outcome.error,
        "operator": task.operator,
        "rule": task.rule,
        "seen": task.seen,
        "segment_seed": task.seed,
        "parent_ids": " ".join(parent.leaf_id for parent in task.parents),
        "parent_sha256": " ".join(parent.sha256 for parent in task.parents),
        "parent_weights_sha256": " ".join(parent.weights_sha256 for parent in task.parents),
        "segment_genome": canonical_json(task.genome),
        "segment_genome_hash": genome_hash(task.genome),
        "probes": len(task.probes),
        "train_loss": curves.get("train_loss"),
        "train_quality": renamed_value(curves, "train_quality", "train_accuracy"),
        "validation_quality_curve": renamed_value(curves, "validation_quality", "validation_accuracy"),
        "float_quality": renamed_value(metrics, "float_quality", "float_accuracy"),
        "segment_seconds": outcome.seconds,
        "compress_seconds": metrics.get("encode_seconds"),
        "encode_fraction": outcome.encode_fraction,
        "segment_versions": canonical_json(metrics.get("versions", {})),
        **{key: metrics.get(key) for key in _METRICS},
    }


def renamed_value(record: Mapping[str, Any], name: str, old_name: str) -> Any:
    """A value by its name, or by the one that it had in runs of before there were tasks."""
    return record.get(name, record.get(old_name))


def _leaf_columns(history: History, leaf: Leaf) -> dict[str, Any]:
    measured = of_leaf(leaf)
    return {
        "leaf_id": leaf.leaf_id,
        "path": leaf.path,
        "sha256": leaf.sha256,
        "weights_sha256": leaf.weights_sha256,
        "bytes": leaf.nbytes,
        "quality": leaf.quality,
        "quality_low": measured.low,
        "quality_high": measured.high,
        "quality_error": leaf.error,  # `error` is what a segment says that failed
        "loss": measured.loss,
        "total": measured.total,
        "details": canonical_json(measured.details),
        "ratio": float32_bytes(history, leaf) / leaf.nbytes,
        "genome": canonical_json(leaf.genome),
        "genome_hash": genome_hash(leaf.genome),
        "depth": leaf.depth,
        "epochs": leaf.epochs,
        "seconds": leaf.seconds,
        "layers": leaf.measurements.get("layers"),
        **{key: leaf.measurements.get(key) for key in _MEASUREMENTS},
    }


def _audit_columns(audit: Recorded | None) -> dict[str, Any]:
    if audit is None:
        return {}
    numbers = {f"audited_{name}": getattr(audit, name) for name in ("quality", "low", "high", "error", "total")}
    return numbers | {"audited_details": canonical_json(audit.details)}

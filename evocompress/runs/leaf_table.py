"""Flat table of a run's leaves: one row each, one column for each number, gene and layer, and what the columns mean."""

from __future__ import annotations

import csv
import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evocompress.runs.file_exporter import FileExporter
from evocompress.runs.segment_table import canonical_json, segment_rows
from evocompress.support.atomic_files import replacing
from evocompress.support.optional_libraries import needs_extra

if TYPE_CHECKING:
    from evocompress.search.history import History

__all__ = ["COLUMNS", "CSV", "PARQUET", "flat_rows", "meaning_of", "write_table"]

#: What columns mean, in their order; those of genes and layers have names of their own and come after these.
COLUMNS: Mapping[str, str] = {
    "leaf_id": "The file: its segment, and its number there. Empty where the segment left none.",
    "segment_id": "The segment that made it; as a folder below seg/ in the run's storage.",
    "index": "The segment's number, in the order in which segments were asked for, from 0.",
    "completion": "The segment's number in the order in which they ended, from 0.",
    "status": "How the segment ended: ok, diverged or failed.",
    "error": "Why, where it did not end ok.",
    "operator": "How its genome came to be: initial, seed (another run's file), continue, mutate, crossover.",
    "rule": "How its parent was chosen.",
    "parent_ids": "The file that it went on from.",
    "started": "When the segment began, UTC.",
    "finished": "When it ended, UTC.",
    "node": "The machine that it ran on.",
    "device": "cpu, or the GPU's name.",
    "segment_seconds": "How long the segment took.",
    "train_seconds": "How much of that was training.",
    "compress_seconds": "How much of it was compressing and judging, of all its files.",
    "bytes": "Size of the file.",
    "ratio": "float32 bytes of the run's network over `bytes`.",
    "quality": "Quality on validation data; its name is in `quality_name`.",
    "quality_low": "Lower end of its 95 % interval.",
    "quality_high": "Upper end of its 95 % interval.",
    "quality_error": "What the search minimised: the error on validation data.",
    "audited_quality": "Quality on data that selection never saw; only of files of the front, once a run has ended.",
    "audited_low": "Lower end of its 95 % interval.",
    "audited_high": "Upper end of its 95 % interval.",
    "quality_name": "What the quality is.",
    "loss": "The task's mean loss on validation data, in nats for classes.",
    "depth": "How many segments its lineage has.",
    "epochs": "How many epochs its lineage has trained.",
    "seconds": "How long its lineage took.",
    "in_archive": "Whether no other file is both smaller and better, by validation data.",
    "header_bytes": "Bytes of the file that belong to no layer.",
    "peak_memory_bytes": "Most memory that the segment's process had.",
    "path": "Where the file lies in the run's storage; it is gone once nothing needs it.",
    "sha256": "Hash of the file.",
    "weights_sha256": "Hash of the weights that it decodes to.",
}
_GENE, _LAYER = "gene.", "layer."


def flat_rows(history: History) -> list[dict[str, Any]]:
    """One row for each leaf, in told order, and one for each segment without; all rows have the same columns.

    Columns that begin with `gene.` have the values of genes, those with `layer.` the bytes of layers; None where there
    is none. Times are datetimes in UTC.
    """
    rows = [_flat(row) for row in segment_rows(history)]
    added = sorted({name for row in rows for name in row} - COLUMNS.keys())
    return [{name: row.get(name) for name in (*COLUMNS, *added)} for row in rows]


def meaning_of(column: str) -> str:
    """What a column holds, in a sentence.

    >>> meaning_of("gene.learning_rate"), meaning_of("layer.fc1.weight.bytes")
    ('The gene learning_rate of its genome.', 'Bytes that fc1.weight takes in the file.')
    """
    if column.startswith(_GENE):
        return f"The gene {column.removeprefix(_GENE)} of its genome."
    if column.startswith(_LAYER):
        return f"Bytes that {column.removeprefix(_LAYER).rpartition('.')[0]} takes in the file."
    return COLUMNS[column]


def write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write flat rows as .csv or .parquet, by the name of the file, whole or not at all.

    In parquet the columns' meanings are in the schema's metadata, under the key `columns`.

    Raises:
        EvocompressError: pyarrow is missing, for parquet.
    """
    names = list(rows[0]) if rows else list(COLUMNS)
    if path.suffix.lower() == ".csv":
        with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows({name: _as_text(row[name]) for name in names} for row in rows)
        return
    with needs_extra("report"):
        import pyarrow
        import pyarrow.parquet
    # Options that are a number in one genome and a word in another have no common type: as text, they have.
    kinds = {name: {type(row[name]) for row in rows} - {type(None)} for name in names}
    mixed = {name for name in names if len(kinds[name]) > 1 and not kinds[name] <= {int, float}}
    columns = {
        name: [str(row[name]) if name in mixed and row[name] is not None else row[name] for row in rows]
        for name in names
    }
    table = pyarrow.table(columns)
    meanings = json.dumps({name: meaning_of(name) for name in names}, ensure_ascii=False)
    with replacing(path) as temporary:
        pyarrow.parquet.write_table(table.replace_schema_metadata({"columns": meanings}), temporary, compression="zstd")


def _write_rows(history: History, path: Path) -> None:
    write_table(flat_rows(history), path)


CSV = FileExporter("leaves.csv", _write_rows, in_report=False)
PARQUET = FileExporter("leaves.parquet", _write_rows, in_report=False)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat = {name: row.get(name) for name in COLUMNS}
    for name in ("started", "finished"):
        seconds = row.get(name)
        flat[name] = None if seconds is None else datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    genome = json.loads(row.get("genome") or row.get("segment_genome") or "{}")
    flat |= {_GENE + name: value for name, value in genome.items()}
    for layer in row.get("layers") or ():
        flat[f"{_LAYER}{layer['name']}.bytes"] = round(layer["payload_bytes"] + layer["side_bytes"], 2)
    return flat


def _as_text(value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        return value.isoformat(timespec="milliseconds")
    return canonical_json(value) if isinstance(value, list | dict) else value

"""Export of a run: the files of its front, tables, a picture, a report, an Optuna study.

Every file is written whole or not at all. Front files are copied first, so that `front.csv` never names a missing one.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import importlib.util
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from evocompress.errors import EvocompressError, RunError
from evocompress.extensions import EXPORTERS
from evocompress.runs.file_exporter import FileExporter
from evocompress.runs.front import FrontPoint, front
from evocompress.runs.optuna_study import to_optuna
from evocompress.runs.segment_table import canonical_json, rounded, segment_rows, write_segments_parquet
from evocompress.search.interrupts import asked_to_end
from evocompress.search.quality import Quality
from evocompress.search.records import Leaf
from evocompress.support.atomic_files import write_bytes
from evocompress.support.optional_libraries import needs_extra

if TYPE_CHECKING:
    from evocompress.search.history import History

__all__ = [
    "FRONT_COLUMNS",
    "PICTURE",
    "REPORT",
    "SEGMENTS",
    "Export",
    "ReadLeaf",
    "check_libraries",
    "export_front",
    "export_run",
    "front_rows",
    "segment_rows",
    "table_row",
    "to_optuna",
    "write_front_csv",
    "write_front_files",
    "write_segments_parquet",
]

ReadLeaf: TypeAlias = Callable[[Leaf], bytes]
"""Gives the bytes of a leaf's file, from wherever the run's storage is."""

_FRONT = "front"  # the exporter that must not fail
_LIBRARIES = ("jinja2", "matplotlib", "plotly", "pyarrow")

FRONT_COLUMNS: tuple[str, ...] = (
    "file",
    "bytes",
    "quality",
    "validation_quality",
    "ratio",
    "audited",
    "quality_name",
    "quality_low",
    "quality_high",
    "error",
    "total",
    "details",
    "depth",
    "epochs",
    "seconds",
    "leaf_id",
    "segment_id",
    "sha256",
    "genome",
)


@dataclasses.dataclass(frozen=True)
class Export:
    """The paths that `export_run` wrote; `further`: of other exporters.

    `problems` says what failed, in packages and of its own; `missing` are paths of its own that were not written.
    """

    folder: Path
    front_csv: Path
    segments_parquet: Path
    front_png: Path
    report_html: Path
    front_files: tuple[Path, ...]
    further: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()
    missing: tuple[Path, ...] = ()

    @property
    def written(self) -> tuple[Path, ...]:
        """What there is to look at: all paths but those of the front's files."""
        paths = (self.front_csv, self.segments_parquet, self.front_png, self.report_html, *self.further)
        return tuple(path for path in paths if path not in self.missing)


def check_libraries() -> None:
    """Refuse to begin where a library is missing that an export needs in the end; nothing is imported.

    Raises:
        EvocompressError: Names the library, and what installs it.
    """
    with needs_extra("report"):
        for name in _LIBRARIES:
            if importlib.util.find_spec(name) is None:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def export_run(history: History, run_folder: str | Path, read_leaf: ReadLeaf) -> Export:
    """Write `export/` below the run folder: front/*.evc, front.csv, segments.parquet, front.png, report.html.

    These are followed by what other exporters write (`extensions.EXPORTERS`), but for those that are asked for by name
    (`in_report` is False). Only the front's files and table must
    not fail; where another exporter does, as drawing without its library, that is one of the `problems`. Paths in
    front.csv are relative to the run folder.

    Raises:
        RunError: A file's bytes are not those that were evaluated.
    """
    folder = Path(run_folder) / "export"
    exporters, failed = EXPORTERS.load_all()
    problems = list(failed.values())
    written: dict[str, tuple[Path, ...]] = {}
    for name, exporter in sorted(exporters.items(), key=lambda pair: pair[0] != _FRONT):
        if not getattr(exporter, "in_report", True):
            continue
        try:
            written[name] = tuple(map(Path, exporter(history, folder, read_leaf)))
        except Exception as failure:
            if name == _FRONT or asked_to_end(failure):
                raise
            is_told = isinstance(failure, EvocompressError)
            reason = str(failure) if is_told else f"{type(failure).__name__}: {failure}"
            problems.append(f"The exporter {name!r} failed: {reason}")
    front_csv, *front_files = written.pop(_FRONT)
    fields = segments_parquet, front_png, report_html = [folder / one.file for one in (SEGMENTS, PICTURE, REPORT)]
    paths = [path for exported in written.values() for path in exported]
    return Export(
        folder=folder,
        front_csv=front_csv,
        segments_parquet=segments_parquet,
        front_png=front_png,
        report_html=report_html,
        front_files=tuple(front_files),
        further=tuple(path for path in paths if path not in fields),
        problems=tuple(problems),
        missing=tuple(path for path in fields if path not in paths),
    )


def export_front(history: History, folder: Path, read_leaf: ReadLeaf) -> list[Path]:
    """front.csv, and front/*.evc before it, so that it never names a missing file.

    Raises:
        RunError: A file's bytes are not those that were evaluated.
    """
    points = front(history)
    files = write_front_files(history, points, folder / "front", read_leaf)
    write_front_csv(points, folder / _FRONT_CSV, history.quality, prefix="export/front/")
    _remove_stale(folder / "front", files)
    return [folder / _FRONT_CSV, *files]


def _write_picture(history: History, path: Path) -> None:
    from evocompress.runs.front_figure import write_front_png

    write_front_png(history, path)


def _write_report(history: History, path: Path) -> None:
    from evocompress.runs.report import write_report

    write_report(history, path, files="front/")


SEGMENTS = FileExporter("segments.parquet", write_segments_parquet)
PICTURE = FileExporter("front.png", _write_picture)
REPORT = FileExporter("report.html", _write_report)
_FRONT_CSV = "front.csv"


def write_front_files(
    history: History, points: Sequence[FrontPoint], folder: str | Path, read_leaf: ReadLeaf
) -> tuple[Path, ...]:
    """Copy the front's files into `folder` under their readable names, and give back their paths.

    Raises `RunError` if what `read_leaf` gives is not what was evaluated.
    """
    paths = tuple(Path(folder) / point.file for point in points)
    for point, path in zip(points, paths, strict=True):
        data = read_leaf(history.leaves[point.leaf_id])
        if len(data) != point.nbytes or hashlib.sha256(data).hexdigest() != point.sha256:
            raise RunError(
                f"The file of leaf {point.leaf_id} ({point.path}) has {len(data)} bytes and is not the one that was "
                f"evaluated ({point.nbytes} bytes, sha256 {point.sha256[:16]}…): restore the run's storage."
            )
        write_bytes(path, data)
    return paths


def front_rows(points: Sequence[FrontPoint], quality: Quality, *, prefix: str = "") -> list[dict[str, Any]]:
    """The front as rows with `FRONT_COLUMNS`; `prefix` stands before each file's name.

    Qualities and errors are as they were measured, not as they are shown; details and genome are mappings, which
    `table_row` makes texts of.
    """
    return [
        {
            "file": prefix + point.file,
            "bytes": point.nbytes,
            "quality": rounded(point.quality),
            "validation_quality": rounded(point.validation_quality),
            "ratio": round(point.ratio, 3),
            "audited": point.audited,
            "quality_name": quality.name,
            "quality_low": rounded(point.low),
            "quality_high": rounded(point.high),
            "error": rounded(point.error),
            "total": point.total,
            "details": dict(point.details),
            "depth": point.depth,
            "epochs": point.epochs,
            "seconds": round(point.seconds, 3),
            "leaf_id": point.leaf_id,
            "segment_id": point.segment_id,
            "sha256": point.sha256,
            "genome": dict(point.genome),
        }
        for point in points
    ]


def table_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as a table takes it, which has a text in each cell: mappings as canonical JSON.

    >>> table_row({"bytes": 742, "genome": {"epochs": 2}})
    {'bytes': 742, 'genome': '{"epochs":2}'}
    """
    return {name: canonical_json(value) if isinstance(value, Mapping) else value for name, value in row.items()}


def write_front_csv(points: Sequence[FrontPoint], path: str | Path, quality: Quality, *, prefix: str = "") -> None:
    """Write the front as CSV, smallest file first; with no points it has its header only."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, FRONT_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(table_row, front_rows(points, quality, prefix=prefix)))
    write_bytes(path, text.getvalue().encode())


def _remove_stale(folder: Path, current: Sequence[Path]) -> None:
    """Files of an older export go last: until the new front.csv is there, the old one still names them."""
    for stale in set(folder.glob("*.evc")) - set(current):
        stale.unlink()

"""The command `export`: a run's leaves as a table, as a study of Optuna's, or whatever else an exporter writes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evocompress.errors import ConfigError, EvocompressError, RunError
from evocompress.extensions import EXPORTERS
from evocompress.support.command_line import about, check_output, echo

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export")(export)


def _exporters() -> list[str]:
    return [*EXPORTERS]


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, finished or going on.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="csv or parquet: a table with a row for each file that was evaluated; optuna: a study in SQLite; "
            "front, segments, picture or report: a part of what a run leaves at its end; or an installed package's. "
            "A data frame comes from Python: evocompress.open_run(RUN).dataframe().",
            autocompletion=_exporters,
        ),
    ] = "csv",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to; by default leaves.csv and so on in RUN/export.")
    ] = None,
    columns: Annotated[bool, typer.Option("--columns", help="Only print what each column means.")] = False,
) -> None:
    """Write what a run has evaluated: sizes, qualities, times, a column for each gene and for each layer's bytes."""
    from evocompress.runs.file_exporter import FileExporter
    from evocompress.runs.leaf_table import flat_rows, meaning_of
    from evocompress.search.history import read_history
    from evocompress.search.interrupts import asked_to_end

    with about("--to"):
        exporter = EXPORTERS.find(to, hint="A data frame comes from Python: evocompress.open_run(RUN).dataframe().")
    history = read_history(run)
    if columns:
        for name in flat_rows(history)[0] if history.outcomes else ():
            echo(f"{name}: {meaning_of(name)}")
        return
    folder = run / "export"
    if output is None:
        folder.mkdir(exist_ok=True)
    path = output or folder
    if isinstance(exporter, FileExporter):
        path = output or folder / exporter.file
        check_output(path, [])
        if path.suffix.lower() != exporter.suffix:
            raise ConfigError(f"--output {path}: the name of a file of this kind ends with {exporter.suffix}.")
    elif output is not None:
        raise ConfigError(f"--output {output}: {to} writes into RUN/export, several files perhaps; leave this out.")
    try:
        if isinstance(exporter, FileExporter):
            exporter.write(history, path)
            written = [path]
        else:
            written = exporter(history, folder, lambda leaf: history.storage.read(leaf.path))
    except EvocompressError:
        raise
    except Exception as failure:  # a package's
        if asked_to_end(failure):
            raise
        raise RunError(f"the exporter {to!r} failed: {type(failure).__name__}: {failure}") from failure
    for path in written:
        echo(str(path))

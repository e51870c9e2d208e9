"""The command `report`: everything in a run's export/, written anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evocompress.cli.exit_codes import ExitCode
from evocompress.support.command_line import echo

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report")(report)


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, finished or going on.")],
) -> None:
    """Write export/ anew: front.csv, the front's files, segments.parquet, front.png and report.html.

    This is about one run. Several are compared by `evocompress front RUN RUN --png FILE`, in tables and a picture.
    """
    from evocompress.runs.export import export_run
    from evocompress.search.history import read_history

    history = read_history(run)
    export = export_run(history, run, lambda leaf: history.storage.read(leaf.path))
    for path in export.written:
        echo(str(path))
    for problem in export.problems:
        echo(f"note: {problem}", err=True)
    if export.missing:
        raise typer.Exit(ExitCode.FAILED)

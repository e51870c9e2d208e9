"""The command `export`: a run's leaves as a table, or as a study of Optuna's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from evocompress.errors import ConfigError, EvocompressError
from evocompress.support.command_line import check_output, echo

__all__ = ["register"]

_SUFFIXES = {"parquet": ".parquet", "csv": ".csv", "optuna": ".db"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export")(export)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, finished or going on.")],
    to: Annotated[
        Literal["parquet", "csv", "optuna"],
        typer.Option(help="A table with a row for each file that was evaluated, or a study in SQLite."),
    ] = "csv",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to; by default leaves.csv and so on in RUN/export.")
    ] = None,
    columns: Annotated[bool, typer.Option("--columns", help="Only print what each column means.")] = False,
) -> None:
    """Write what a run has evaluated: sizes, qualities, times, a column for each gene and for each layer's bytes."""
    from evocompress.runs.leaf_table import flat_rows, meaning_of, write_table
    from evocompress.search.history import read_history

    history = read_history(run)
    if columns:
        for name in flat_rows(history)[0] if history.outcomes else ():
            echo(f"{name}: {meaning_of(name)}")
        return
    path = output or run / "export" / f"leaves{_SUFFIXES[to]}"
    if output is None:
        path.parent.mkdir(exist_ok=True)
    check_output(path, [])
    if path.suffix.lower() != _SUFFIXES[to]:
        raise ConfigError(f"--output {path}: the name of a file of this kind ends with {_SUFFIXES[to]}.")
    if to == "optuna":
        from evocompress.runs.optuna_study import to_optuna

        if path.exists():
            raise EvocompressError(f"{path} exists, and a study is not written over; give another name.")
        name = str(history.run.get("config", {}).get("name") or run.name)
        to_optuna(history, study_name=name, storage=f"sqlite:///{path}")
    else:
        write_table(flat_rows(history), path)
    echo(str(path))

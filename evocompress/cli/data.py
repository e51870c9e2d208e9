"""The command `data`: fetch a data set."""

from __future__ import annotations

from typing import Annotated

import typer

from evocompress.extensions import DATA_SETS

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("data")(data)


def data(
    name: Annotated[str, typer.Argument(help=f"{', '.join(DATA_SETS.builtin)}, or what a package adds.")],
    root: Annotated[
        str | None, typer.Option(help="Where to; default $EVOCOMPRESS_DATA, else the user's cache.")
    ] = None,
) -> None:
    """Fetch a data set, with its checksums verified; what is there already is kept."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from evocompress.data.download import fetch

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, object] = {}

        def show(file: str, done: int, total: int) -> None:
            task = tasks.setdefault(file, progress.add_task(file, total=total))
            progress.update(task, completed=done, total=total)  # type: ignore[arg-type]

        folder = fetch(name, root, show)
    typer.echo(f"{name}: {folder}")

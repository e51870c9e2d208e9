"""The command `data`: fetch a data set."""

from __future__ import annotations

from typing import Annotated

import typer

from evocompress.extensions import DATA_SETS
from evocompress.support.command_line import echo

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
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from evocompress.data.download import SOURCES, fetch
    from evocompress.support.printable import SafeConsole

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=SafeConsole(stderr=True), transient=True) as progress:
        tasks: dict[str, object] = {}

        def show(file: str, done: int, total: int) -> None:
            task = tasks.setdefault(file, progress.add_task(file, total=total))
            progress.update(task, completed=done, total=total)  # type: ignore[arg-type]

        folder = fetch(name, root, show)
    echo(f"{name}: {folder}" if name in SOURCES else f"{name}: is there; there is nothing to fetch")

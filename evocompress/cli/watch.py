"""The command `watch`: a run's live page for a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evocompress.cli.command_words import as_commands
from evocompress.support.command_line import echo

__all__ = ["register"]

_PORT = 8010


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("watch")(watch)


def watch(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, finished or going on.")],
    port: Annotated[int, typer.Option(help="The page's port; 0: one that is free.", min=0, max=65535)] = _PORT,
    host: Annotated[
        str, typer.Option(help="The address to listen on. Others than this machine's own let others look, too.")
    ] = "127.0.0.1",
) -> None:
    """Show a run in a browser as it goes on: front, hypervolume, segments in flight, failures and why.

    The page is for this machine only; from elsewhere it is seen through `ssh -L 8010:localhost:8010`. Ctrl-C ends it.
    """
    from evocompress.runs.watch.server import WatchServer

    with WatchServer(run, host=host, port=port, wording=as_commands) as server:
        echo(server.url)
        server.serve_forever()

"""The command `stop`: ask the driver of a run to stop."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from evocompress.support.command_line import echo

__all__ = ["register"]

_LOOK_SECONDS = 0.5


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("stop")(stop)


def stop(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    wait: Annotated[bool, typer.Option(help="Wait until the driver has stopped.")] = True,
) -> None:
    """Ask the driver of a run to stop, from any machine that sees the folder; a resume goes on.

    What is in flight is given up, and run again by the resume. Nothing that was finished is lost.
    """
    from evocompress.search.lease import holder_of
    from evocompress.search.stop_request import ask_to_stop, forget_request

    ask_to_stop(run)  # first, since it says what is no run
    holder = holder_of(run)
    if holder is None or holder.alive is False:
        forget_request(run)
        echo(f"{run}: no driver to stop; `evocompress status {run}` says how the last one ended.")
        return
    # Of a driver on another machine all that is seen is whether it still has the lease.
    while wait and (now := holder_of(run)) is not None and now.token == holder.token and now.alive is not False:
        time.sleep(_LOOK_SECONDS)
    words = "stopped" if wait else "asked to stop"
    echo(f"{run}: {words}. Go on with: evocompress run --resume --out {run}")

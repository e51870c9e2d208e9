"""The commands `status` and `stop`: look at a run from outside, and end it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from evocompress.support.command_line import echo, output_console

__all__ = ["register"]

_REFRESH_SECONDS = 2.0
_LOOK_SECONDS = 0.5

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, finished or going on.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("status")(status)
    app.command("stop")(stop)


def status(
    run: RunFolder,
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing it, until the run ends or Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Say what a run has done, what is in flight, what failed and why, who drives it, and how much time is left."""
    from evocompress.runs.status import read_status, shown_status

    if as_json:
        while True:
            seen = read_status(run)
            echo(json.dumps(seen.to_json()))
            if not watch or seen.state not in ("running", "held"):
                return
            time.sleep(_REFRESH_SECONDS)
    if not watch:
        for line in shown_status(read_status(run)):
            echo(line)
        return
    from rich.live import Live
    from rich.text import Text

    with Live(console=output_console(), refresh_per_second=4) as live:
        while True:
            seen = read_status(run)
            live.update(Text("\n".join(shown_status(seen))))
            if seen.state not in ("running", "held"):
                return
            time.sleep(_REFRESH_SECONDS)


def stop(
    run: RunFolder,
    wait: Annotated[bool, typer.Option(help="Wait until the driver has stopped.")] = True,
) -> None:
    """Ask the driver of a run to stop, from any machine that sees the folder; a resume goes on.

    What is in flight is given up, and run again by the resume. Nothing that was finished is lost.
    """
    from evocompress.runs.status import read_status
    from evocompress.search.stop_request import ask_to_stop

    seen = read_status(run)
    if seen.state not in ("running", "held"):
        echo(f"{run}: no driver to stop; it is {seen.state} ({seen.driver}).")
        return
    ask_to_stop(run)
    while wait and (seen := read_status(run)).state in ("running", "held"):
        time.sleep(_LOOK_SECONDS)
    words = f"it is {seen.state} ({seen.driver})" if wait else "asked to stop"
    echo(f"{run}: {words}. Go on with: evocompress run --resume --out {run}")

"""The command `status`: what a run has done, and who drives it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evocompress.cli.command_words import as_commands
from evocompress.cli.output import AsJson, Output, Quiet
from evocompress.support.command_line import echo, output_console

if TYPE_CHECKING:
    from evocompress.runs.status import Status

__all__ = ["register"]

_REFRESH_SECONDS = 2.0
_PAUSES = 10.0  # times as long as reading took: a long journal is read at most a tenth of the time


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status")(status)


def status(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, finished or going on.")],
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing it, until the run ends or Ctrl-C.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say what a run has done, what is in flight, what failed and why, who drives it, and how much time is left.

    With --watch and --json there is a line each time; --watch --quiet waits for the run's end.
    """
    from evocompress.runs.status import shown_status

    output = Output(as_json, quiet)
    if not output.says_results:
        for seen in _seen(run, watch=watch):
            output.document(seen.to_json())
    elif watch:
        from rich.live import Live
        from rich.text import Text

        with Live(console=output_console(), refresh_per_second=4) as live:
            for seen in _seen(run, watch=True):
                live.update(Text("\n".join(shown_status(seen))))
    else:
        for line in shown_status(next(_seen(run, watch=False))):
            echo(line)


def _seen(run: Path, *, watch: bool) -> Iterator[Status]:
    """The status now, and again and again while somebody drives the run, if it is to be watched."""
    from evocompress.runs.status import read_status

    while True:
        began = time.monotonic()
        seen = read_status(run)
        yield dataclasses.replace(seen, driver=as_commands(seen.driver))
        if not watch or seen.state not in ("running", "held"):
            return
        time.sleep(max(_REFRESH_SECONDS, _PAUSES * (time.monotonic() - began)))

"""The command `repair`: the journal of a run, rebuilt from the files of its segments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evocompress.support.command_line import echo
from evocompress.support.wording import counted, listed

if TYPE_CHECKING:
    from evocompress.search.repair import Repair

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("repair")(repair)


def repair(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder whose journal is damaged.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what can be rebuilt.")] = False,
) -> None:
    """Rebuild a damaged journal from what is whole of it and from the segments' COMMIT files and metrics.

    The damaged journal is kept beside the new one. It is refused while a driver is alive.
    """
    from evocompress.search.repair import repair_run

    done = repair_run(run, dry_run=dry_run)
    if not done.damage:
        echo(f"{run}: nothing to repair in its journal")
    else:
        for line in _lines(run, done):
            echo(line)
    for text in done.broken:
        echo(f"note: {text}", err=True)


def _lines(run: Path, done: Repair) -> list[str]:
    lines = [f"damaged: {listed(done.damage)}"]
    lines.append(f"whole: {counted(done.kept, 'line')}")
    back = [(done.outcomes, "outcome"), (done.tasks, "task")]
    lines.append(f"put back from COMMIT files: {' and '.join(counted(number, noun) for number, noun in back)}")
    if done.decided:
        lines.append(f"decided again, as before: {counted(done.decided, 'task')}")
    if done.unknown_tasks:
        lines.append(f"parents unknown, though the files are whole: {_named(done.unknown_tasks)}")
    if done.given_up:
        lines.append(f"lost, and counted as failed: {_named(done.given_up)}")
    if done.lost:
        lines.append(f"not put back: {counted(done.lost, 'line')} of what drivers noted beside the segments")
    if done.open:
        lines.append(f"left for a resume to run: {counted(done.open, 'segment')}")
    if done.aside is None:
        lines.append("Nothing was changed.")
    else:
        lines.append(f"The damaged journal is in {done.aside}. Go on with: evocompress run --resume --out {run}")
    return lines


def _named(segment_ids: list[str]) -> str:
    return f"{counted(len(segment_ids), 'segment')} ({listed(segment_ids)})"

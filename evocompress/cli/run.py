"""The command `run`: evolve a population, or resume that."""

from __future__ import annotations

import contextlib
import functools
import shlex
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evocompress.cli.exit_codes import ExitCode
from evocompress.cli.front import left_out
from evocompress.cli.output import AsJson, Output, Quiet
from evocompress.errors import ConfigError, HopelessError, InfrastructureError
from evocompress.support.printable import SafeConsole
from evocompress.support.wording import counted

if TYPE_CHECKING:
    from evocompress.evolve.config import Config
    from evocompress.evolve.driver import RunSummary
    from evocompress.protocols import Observer
    from evocompress.runs.export import Export
    from evocompress.search.history import History

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("run")(run)


def run(
    config: Annotated[Path | None, typer.Argument(help="TOML file, such as configs/digits.toml.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/NAME.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    address: Annotated[
        str | None, typer.Option(help="An existing Ray cluster, such as auto or ray://host:10001.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Change a setting (see `evocompress settings`): --set search.segments=200. Repeatable."
        ),
    ] = None,
    more: Annotated[
        int | None,
        typer.Option(
            help="With --resume: so many segments more than were begun so far, however long they take.", min=1
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(help="With --resume: for so long from now, such as 2h or 90min, however many segments that is."),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="With --resume of a folder that was made elsewhere: import the code that it names."
        ),
    ] = False,
    override: Annotated[
        bool, typer.Option("--override", help="With --resume: accept a changed configuration, and journal the change.")
    ] = False,
    seeds: Annotated[
        list[Path] | None,
        typer.Option(
            "--from", metavar="RUN", help="Begin with files of another run's front, of the same network and data."
        ),
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TRACKER",
            help="Log segments, front and hypervolume with tensorboard, mlflow, wandb or a package's own. Repeatable.",
        ),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train, compress and evolve a population, and show the front of size against quality."""
    from evocompress.evolve.driver import run_experiment, with_more
    from evocompress.runs.front import front
    from evocompress.search.history import read_history
    from evocompress.support.command_line import about
    from evocompress.support.quantities import parse_duration

    source = _source(seeds or (), config, resume=resume)
    loaded, text, folder = _configuration(config, out, settings or (), resume=resume, trusted=trust)
    if more is not None or until is not None:
        if not resume:
            raise ConfigError("--more and --until are for a run that goes on: give --resume, too.")
        with about("--until", until or "", ConfigError):
            seconds = None if until is None else parse_duration(until)
        loaded = with_more(loaded, folder, segments=more, seconds=seconds)
    output = Output(as_json, quiet)
    again = f"evocompress run --resume --out {shlex.quote(str(folder))}" + (f" --address {address}" if address else "")
    try:
        with _observer(output) as shown, _tracked(log or (), folder, shown) as observer:
            summary = run_experiment(
                loaded,
                folder,
                config_text=text,
                resume=resume,
                override=override,
                address=address,
                observer=observer,
                seeds=source,
            )
    except KeyboardInterrupt:
        if not (folder / "run.json").exists():
            _say_stop(output, "\nStopped before the run began; nothing was written. Start it again.")
            raise typer.Exit(ExitCode.STOPPED) from None
        _say_stop(output, f"\nStopped. Nothing that was finished is lost. Go on with:\n  {again}")
        raise typer.Exit(ExitCode.STOPPED) from None
    except (HopelessError, InfrastructureError) as error:
        if not (folder / "run.json").exists():
            raise
        raise type(error)(f"{error} Go on with: {again}") from error
    history = read_history(folder)
    output.document(_document(summary, history))
    if not summary.finished or summary.export is None:
        _say_stop(output, f"Stopped after {counted(summary.segments, 'segment')}. Go on with:\n  {again}")
        raise typer.Exit(ExitCode.STOPPED)
    if not front(history):
        _say_stop(output, _reasons_for_no_file(history))
        raise typer.Exit(ExitCode.FAILED)
    if output.says_results:
        _show(loaded.name, history, summary.export)
    if resume and not summary.ended and not output.quiet:
        output.note("The run had used its budget already, so no segment was trained; --more 100 or --until 2h goes on.")
    for problem in summary.export.problems:
        output.warning(f"note: {problem}")


def _source(runs: Sequence[Path], config: Path | None, *, resume: bool) -> Path | None:
    """The run that `--from` names, if any.

    Raises:
        ConfigError: It names several, or what is to begin is no new run.
    """
    if len(runs) > 1:
        raise ConfigError(f"--from takes one run, and {len(runs)} are given.")
    if runs and resume:
        raise ConfigError("--from is for a new run; leave it or --resume out.")
    if runs and config is None:
        raise ConfigError("--from begins a new run with another one's files: give a configuration file, too.")
    return runs[0] if runs else None


def _configuration(
    config: Path | None, out: Path | None, settings: Sequence[str], *, resume: bool, trusted: bool
) -> tuple[Config, str, Path]:
    """The configuration, the text of its file, and the run's folder.

    Raises:
        ConfigError: Neither a file nor a run that goes on is given.
    """
    from evocompress.evolve.config import load_config
    from evocompress.evolve.driver import config_of_run

    if config is not None:
        loaded = load_config(config, settings)
        return loaded, config.read_text(encoding="utf-8"), out or Path("runs") / loaded.name
    if not resume or out is None:
        raise ConfigError("Give a configuration file, or --resume with --out of a run that exists.")
    return config_of_run(out, settings, trusted=trusted), "", out


@contextlib.contextmanager
def _observer(output: Output) -> Iterator[Observer]:
    """The live board or its lines, where there is room for them; warnings in any case."""
    from evocompress.runs.display import RunDisplay

    if output.quiet:
        yield functools.partial(_say_warnings, output)
        return
    with RunDisplay(console=SafeConsole(stderr=True) if output.as_json else None) as display:
        yield display


def _tracked(names: Sequence[str], folder: Path, observer: Observer) -> AbstractContextManager[Observer]:
    """The observer, and trackers beside it."""
    if not names:
        return contextlib.nullcontext(observer)
    from evocompress.runs.trackers import Trackers

    return Trackers(names, folder, observer)


def _say_warnings(output: Output, event: object) -> None:
    from evocompress.protocols import Said

    if isinstance(event, Said) and event.level == "warning":
        output.warning(event.text)


def _say_stop(output: Output, text: str) -> None:
    """Why there is no front to show: beside a document on the standard error."""
    (output.result if output.says_results else output.note)(text)


def _document(summary: RunSummary, history: History) -> dict[str, Any]:
    """The result for programs."""
    from evocompress.runs.export import front_rows
    from evocompress.runs.front import front

    export = summary.export
    return {
        "folder": str(summary.folder),
        "finished": summary.finished,
        "segments": summary.segments,
        "failed": len(history.failed),
        "hypervolume": float(history.hypervolumes[-1]) if len(history.hypervolumes) else 0.0,
        "front": front_rows(front(history), history.quality),
        "export": [] if export is None else [str(path) for path in export.written],
    }


def _show(name: str, history: History, export: Export) -> None:
    """The front, and beside it what training once and packing gives."""
    from evocompress.runs.display import against_packing_table, front_table
    from evocompress.runs.front import against_packing, front, in_view, knee, reference
    from evocompress.support.command_line import output_console

    console, points = output_console(), front(history)
    useful = in_view(points, history.quality)
    console.print(front_table(useful, history.quality, title=f"Front of {name}, audited", whole=points))
    shown, audited = len(points), len(history.archive)
    note = "* the knee; " if knee(points, history.quality) else ""
    note += f"{history.quality.name} is on data that selection never saw"
    if audited > shown:
        note += f"; {audited - shown} of {audited} audited files are dominated there and left out"
    if len(useful) < shown:
        note += f"; {left_out(shown - len(useful))} (evocompress front --all shows them)"
    console.print(note, markup=False, highlight=False)
    beside = against_packing(history, points)
    if beside:
        console.print()
        console.print(against_packing_table(beside, history.quality, reference(history)))
    for path in export.written:
        console.print(str(path), soft_wrap=True, markup=False, highlight=False)


def _reasons_for_no_file(history: History) -> str:
    """What to say where no segment left a file: how they ended, and the last one's words."""
    last = next((outcome for outcome in reversed(history.outcomes) if outcome.error), None)
    statuses = ", ".join(sorted({outcome.status for outcome in history.outcomes})) or "not run"
    return f"No file came out: of {counted(len(history.outcomes), 'segment')} all ended {statuses}." + (
        f" The last one: {last.error}" if last else ""
    )

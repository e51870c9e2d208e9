"""The command `front`: the size/quality front of a run, or of several compared."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evocompress.cli.exit_codes import ExitCode
from evocompress.cli.output import AsJson, Output, Quiet
from evocompress.errors import ConfigError
from evocompress.support.command_line import about, check_output
from evocompress.support.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from evocompress.runs.front import FrontPoint
    from evocompress.search.history import History
    from evocompress.search.quality import Quality

__all__ = ["left_out", "register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("front")(front)


def front(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders; several are compared.")],
    under: Annotated[str | None, typer.Option(help="Only files of at most so many bytes: 16kB, 64KiB, 900.")] = None,
    above: Annotated[
        str | None, typer.Option(help="Only files at least this good: 0.95 or 95% of an accuracy, 0.3 of an error.")
    ] = None,
    below: Annotated[
        str | None, typer.Option(help="The same, for runs whose quality is minimised, such as an error: 0.3.")
    ] = None,
    different_data: Annotated[
        bool, typer.Option("--different-data", help="Compare runs although they were judged on different data.")
    ] = False,
    show_all: Annotated[
        bool,
        typer.Option("--all", help="Show files of chance level too, and let them count where runs are compared."),
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    png: Annotated[Path | None, typer.Option(help="Draw the fronts, several in one picture, to this file.")] = None,
) -> None:
    """Print the front of a run, finished or going on; compare several.

    Files of chance level, which are on every front, are left out of the table unless --all or a limit asks for them,
    and of a comparison unless --all asks for them. A run that has no file yet has an empty front; what failed is
    counted, with the reasons.
    Where --under, --above or --below is met by no file of any run, the exit status is 3.
    """
    from evocompress.runs.comparison import check_same_data, common_quality
    from evocompress.runs.display import front_table
    from evocompress.runs.front import KNEE, in_view, knee
    from evocompress.runs.front import front as front_of
    from evocompress.runs.status import NO_FILE
    from evocompress.search.history import read_history
    from evocompress.support.command_line import output_console

    if png is not None:
        check_output(png, [], "--png")
    histories = {str(run): read_history(run) for run in runs}
    quality = common_quality(histories)
    if not different_data:
        try:
            check_same_data(histories)
        except ConfigError as error:
            compares = "--different-data compares them all the same."
            raise ConfigError(f"{str(error).removesuffix('.')}; {compares}") from error
    limits = _Limits(quality, under, above, below)
    whole = {label: front_of(history) for label, history in histories.items()}
    fronts = {label: limits.apply(points) for label, points in whole.items()}
    if png is not None:
        _draw(histories, png, chance_level=show_all)
    missed = limits.given and not any(fronts.values())
    output = Output(as_json, quiet)
    if not output.says_results:
        documents = {label: _document(points, histories[label], quality) for label, points in fronts.items()}
        output.document(documents, indent=1)
        raise typer.Exit(ExitCode.MISSED if missed else ExitCode.OK)
    console = output_console()
    for label, points in fronts.items():
        shown = points if show_all or limits.given else in_view(points, quality)
        if whole[label]:
            console.print(front_table(shown, quality, title=label, whole=whole[label]))
        else:
            console.print(f"{label}: {NO_FILE}", markup=False, highlight=False, soft_wrap=True)
        if len(shown) < len(points):
            console.print(f"{left_out(len(points) - len(shown))}; --all shows them", markup=False, highlight=False)
        if knee(whole[label], quality) in points:
            console.print(f"*: {KNEE}", markup=False, highlight=False, soft_wrap=True)
        for line in _failed(histories[label]):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        console.print()
    if limits.given:
        for label, points in fronts.items():
            console.print(limits.answer(label, points, whole[label]), markup=False, highlight=False, soft_wrap=True)
    for run in dict.fromkeys(run for run in runs if runs.count(run) > 1):
        output.note(f"{run} is given more than once, and is shown once.")
    if len(runs) > 1:
        _compare(console, histories, fronts, quality, chance_level=show_all)
    if missed:
        raise typer.Exit(ExitCode.MISSED)


def left_out(count: int) -> str:
    """That so many files of a front are of chance level (`in_view`), and not in its table.

    >>> left_out(1), left_out(3)
    ('1 file of chance level is left out', '3 files of chance level are left out')
    """
    return f"{counted(count, 'file')} of chance level {'is' if count == 1 else 'are'} left out"


def _failed(history: History) -> list[str]:
    """How many segments left no file, and a line for each way in which they ended; nothing where all left one."""
    from evocompress.runs.status import failures_of, shown_failures

    failures = failures_of(history)
    count = sum(failure.count for failure in failures)
    head = f"{count} of {counted(_ended(history), 'segment')} left no file:"
    return [head, *shown_failures(failures)] if failures else []


def _ended(history: History) -> int:
    """How many segments have ended; those of a run that was given up are no longer among the outcomes."""
    given_up = history.given_up
    return len(history.outcomes) if given_up is None else len(given_up["segments"])


def _document(points: list[FrontPoint], history: History, quality: Quality) -> dict[str, Any]:
    """A run for programs: its front, and the segments that left no file, by names that `status` and `run` have too."""
    from evocompress.runs.export import front_rows
    from evocompress.runs.status import failures_of

    failures = failures_of(history)
    return {
        "front": front_rows(points, quality),
        "segments": _ended(history),
        "failed": sum(failure.count for failure in failures),
        "failures": [dataclasses.asdict(failure) for failure in failures],
    }


class _Limits:
    """What `--under`, `--above` and `--below` ask for; `level` is in the units in which the quality was measured."""

    def __init__(self, quality: Quality, under: str | None, above: str | None, below: str | None) -> None:
        from evocompress.runs.front import parse_level
        from evocompress.support.quantities import parse_bytes

        self.quality = quality
        with about("--under", under or ""):
            self.under = None if under is None else parse_bytes(under)
        if below is not None and quality.is_maximised:
            raise ConfigError(f"--below {below}: {quality.name} is better where it is larger; use --above.")
        if above is not None and below is not None:
            raise ConfigError(f"--above {above} and --below {below} ask for the same here; give one of them.")
        option, level = ("--above", above) if below is None else ("--below", below)
        with about(option, level or ""):
            self.level = None if level is None else parse_level(level, quality)

    @property
    def given(self) -> bool:
        """Whether there is any."""
        return self.under is not None or self.level is not None

    def apply(self, points: list[FrontPoint]) -> list[FrontPoint]:
        return [
            point
            for point in points
            if (self.under is None or point.nbytes <= self.under)
            and (self.level is None or self.quality.merit(point.quality) >= self.quality.merit(self.level))
        ]

    def answer(self, label: str, points: list[FrontPoint], whole: list[FrontPoint]) -> str:
        """The file of `points` that is asked for; where there is none the one of the whole front that is nearest."""
        from evocompress.runs.front import best_under, smallest_meeting

        quality, level = self.quality, self.level
        if points:
            pick = best_under(points, self.under or 0) if level is None else smallest_meeting(points, level, quality)
            assert pick is not None
            return f"{label}: {'best' if level is None else 'smallest'}: {self._shown(pick)}"
        missed = f"{label}: no file of the front meets this."
        if not whole:
            return missed
        if self.under is not None and (pick := best_under(whole, self.under)) is not None:
            return f"{missed} The best of that size: {self._shown(pick)}"
        if self.under is not None:
            return f"{missed} The smallest: {self._shown(min(whole, key=lambda point: point.nbytes))}"
        return f"{missed} The best: {self._shown(min(whole, key=lambda point: point.error))}"

    def _shown(self, point: FrontPoint) -> str:
        from evocompress.support.quantities import format_bytes

        quality = self.quality
        return f"{point.file}, {format_bytes(point.nbytes)}, {quality.name} {quality.show(point.quality)}"


def _draw(histories: dict[str, History], png: Path, *, chance_level: bool) -> None:
    from evocompress.runs.front_figure import compare_figure, write_front_png
    from evocompress.support.atomic_files import replacing

    if len(histories) == 1:
        write_front_png(next(iter(histories.values())), png)
        return
    with replacing(png) as temporary:
        compare_figure(histories, chance_level=chance_level).savefig(temporary, dpi=160, format="png")


def _compare(
    console: Console,
    histories: dict[str, History],
    fronts: dict[str, list[FrontPoint]],
    quality: Quality,
    *,
    chance_level: bool,
) -> None:
    """Hypervolume of each run, what the seeds of an experiment attain, and the fronts' sizes at equal quality."""
    from rich.table import Table
    from rich.text import Text

    from evocompress.runs.comparison import Comparison
    from evocompress.runs.comparison_tables import attained_table, bd_rate_table

    comparison = Comparison.of(histories, fronts, quality, chance_level=chance_level)
    table = Table(box=None, pad_edge=False, header_style="bold", title="Compared", title_justify="left")
    best = f"best {quality.name}"
    for title in ("run", "points", "smallest B", best, "hypervolume (validation)", "BD-rate vs the first"):
        table.add_column(Text(title), justify="left" if title == "run" else "right")
    for number, row in enumerate(comparison.rows):
        rate = "no common range" if row.bd_rate is None else f"{row.bd_rate:+.1f} %"
        table.add_row(
            Text(row.label),
            str(row.points),
            "—" if row.smallest is None else str(row.smallest),
            Text("—" if row.best is None else quality.show(row.best)),
            "—" if row.hypervolume is None else f"{row.hypervolume:.4f}",
            rate if number else "—",
        )
    console.print(table)
    if comparison.left_out:
        note = f"{left_out(comparison.left_out)} of the comparison; --all lets them count"
        console.print(note, markup=False, highlight=False)
    for name, labels in comparison.groups.items():
        if labels[1:]:
            title = f"\nAttained by {name}, which differ in their seeds"
            console.print(title, markup=False, highlight=False, soft_wrap=True)
            console.print(attained_table([comparison.fronts[label] for label in labels], quality))
    if len(comparison.groups) > 1:
        console.print("\nBD-rate of the column against the row")
        console.print(bd_rate_table(comparison.attained))

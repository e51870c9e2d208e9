"""The commands `front` and `report`, which look at runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evocompress.errors import EvocompressError
from evocompress.support.command_line import about, check_output

if TYPE_CHECKING:
    from rich.console import Console

    from evocompress.runs.front import FrontPoint
    from evocompress.search.history import History

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("front")(front)
    app.command("report")(report)


def front(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders; several are compared.")],
    under: Annotated[str | None, typer.Option(help="Only files of at most so many bytes: 16kB, 64KiB, 900.")] = None,
    above: Annotated[str | None, typer.Option(help="Only files of at least this accuracy: 0.95 or 95%.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    png: Annotated[Path | None, typer.Option(help="Draw the fronts, several in one picture, to this file.")] = None,
) -> None:
    """Print the front of a run, finished or going on; compare several."""
    from evocompress.runs.display import front_table
    from evocompress.runs.export import front_rows
    from evocompress.runs.front import front as front_of
    from evocompress.search.history import read_history
    from evocompress.support.command_line import output_console

    limits = _Limits(under, above)
    if png is not None:
        check_output(png, [], "--png")
    histories = {str(run): read_history(run) for run in runs}
    fronts = {label: limits.apply(front_of(history)) for label, history in histories.items()}
    if png is not None:
        _draw(histories, png)
    if as_json:
        typer.echo(json.dumps({label: front_rows(points) for label, points in fronts.items()}, indent=1))
        return
    console = output_console()
    for label, points in fronts.items():
        console.print(front_table(points, title=label))
        console.print()
    if under or above:
        for label, points in fronts.items():
            console.print(limits.answer(label, points), markup=False, highlight=False, soft_wrap=True)
    if len(runs) > 1:
        _compare(console, histories, fronts)


class _Limits:
    """What `--under` and `--above` ask for."""

    def __init__(self, under: str | None, above: str | None) -> None:
        from evocompress.support.quantities import parse_bytes, parse_fraction

        with about("--under", under or ""):
            self.under = None if under is None else parse_bytes(under)
        with about("--above", above or ""):
            self.above = None if above is None else parse_fraction(above)

    def apply(self, points: list[FrontPoint]) -> list[FrontPoint]:
        return [
            point
            for point in points
            if (self.under is None or point.nbytes <= self.under)
            and (self.above is None or point.accuracy >= self.above)
        ]

    def answer(self, label: str, points: list[FrontPoint]) -> str:
        from evocompress.runs.front import best_under, smallest_above
        from evocompress.support.quantities import format_bytes

        if not points:
            return f"{label}: no file of the front meets this."
        pick = smallest_above(points, self.above) if self.above is not None else best_under(points, self.under or 0)
        assert pick is not None
        kind = "smallest" if self.above is not None else "most accurate"
        return f"{label}: {kind}: {pick.file}, {format_bytes(pick.nbytes)}, accuracy {pick.accuracy:.4f}"


def _draw(histories: dict[str, History], png: Path) -> None:
    from evocompress.runs.front_figure import compare_figure, write_front_png
    from evocompress.support.atomic_files import replacing

    if len(histories) == 1:
        write_front_png(next(iter(histories.values())), png)
        return
    with replacing(png) as temporary:
        compare_figure(histories).savefig(temporary, dpi=160, format="png")


def _compare(console: Console, histories: dict[str, History], fronts: dict[str, list[FrontPoint]]) -> None:
    """Hypervolume of each run, and the size of each front against the first one's at equal accuracy."""
    from rich.table import Table
    from rich.text import Text

    from evocompress.runs.comparison import bd_rate, steps
    from evocompress.runs.front import hypervolume_curve

    table = Table(box=None, pad_edge=False, header_style="bold", title="Compared", title_justify="left")
    for title in ("run", "points", "smallest B", "best accuracy", "hypervolume (validation)", "BD-rate vs the first"):
        table.add_column(title, justify="left" if title == "run" else "right")
    first = next(iter(fronts.values()))
    for label, points in fronts.items():
        curve = hypervolume_curve(histories[label])
        try:
            rate = f"{bd_rate(steps(first), steps(points)):+.1f} %" if points is not first else "—"
        except EvocompressError:
            rate = "no common range"
        table.add_row(
            Text(label),
            str(len(points)),
            str(min((p.nbytes for p in points), default=0)),
            f"{max((p.accuracy for p in points), default=0.0):.4f}",
            f"{curve[-1].hypervolume:.4f}" if curve else "—",
            rate,
        )
    console.print(table)


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, finished or going on.")],
) -> None:
    """Write export/ anew: front.csv, the front's files, segments.parquet, front.png and report.html."""
    from evocompress.runs.export import export_run
    from evocompress.search.history import read_history

    history = read_history(run)
    export = export_run(history, run, lambda leaf: history.storage.read(leaf.path))
    for path in (export.front_csv, export.segments_parquet, export.front_png, export.report_html, *export.further):
        typer.echo(str(path))
    for problem in export.problems:
        typer.echo(f"note: {problem}", err=True)

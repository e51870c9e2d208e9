"""Progress bars on a terminal's standard error: an observer of `Began`, `Progressed` and `Said`."""

from __future__ import annotations

from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from evocompress.protocols import Abandoned, Began, Progressed, Said
from evocompress.support.printable import SafeConsole

__all__ = ["ProgressBars"]

_PACE = 3600.0  # seconds of progress that the time left is estimated from: a single step may take minutes


class ProgressBars:
    """An observer that draws a bar for each thing under way, on a terminal only, and prints what is said anywhere."""

    def __init__(self) -> None:
        self.console = SafeConsole(stderr=True)
        self._bars: dict[str, tuple[Progress, TaskID]] = {}

    def __call__(self, event: object) -> None:
        """Show an event."""
        match event:
            case Began(what):
                self._open(what)
            case Progressed(what, share):
                self._move(what, share)
            case Abandoned(what):
                self._close(what)
            case Said(text):
                self.say(text)
            case _:
                pass

    def say(self, line: str) -> None:
        """Print one line as it is, however long: not wrapped, not coloured."""
        self.console.print(line, soft_wrap=True, markup=False, highlight=False)

    def _open(self, what: str) -> None:
        """A bar with time elapsed and left."""
        columns = (
            TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), TaskProgressColumn(),
            TimeElapsedColumn(), TextColumn("elapsed,"), TimeRemainingColumn(), TextColumn("left"),
        )  # fmt: skip
        bar = Progress(
            *columns,
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
            speed_estimate_period=_PACE,
        )
        bar.start()
        self._bars[what] = bar, bar.add_task(what, total=1.0)

    def _move(self, what: str, share: float) -> None:
        if what not in self._bars:
            return
        bar, task = self._bars[what]
        bar.update(task, completed=share)
        if share >= 1.0:
            self._close(what)

    def _close(self, what: str) -> None:
        if what in self._bars:
            self._bars.pop(what)[0].stop()

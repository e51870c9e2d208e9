"""Terminal display of a run: an observer with a live board, or plain lines elsewhere; the front afterwards.

The board is fed by `search.events` and `protocols.Said`; it holds no truth of its own (that is the journal's).
"""

from __future__ import annotations

import collections
import dataclasses
import math
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from evocompress.protocols import Abandoned, Began, Progressed, Said
from evocompress.runs.front import AgainstPacking, FrontPoint, Reference, detail_names, knee, measured_float32_bytes
from evocompress.runs.text_plot import braille_scatter, sparkline
from evocompress.search.events import (
    AwaitingNodes,
    Delayed,
    Ended,
    Finished,
    LargerShare,
    Late,
    LateJob,
    Opened,
    SnapshotIgnored,
    Submitted,
    Watching,
)
from evocompress.search.node_roll import NodeNews
from evocompress.search.quality import Quality
from evocompress.search.records import Leaf, Outcome
from evocompress.support.printable import SafeConsole
from evocompress.support.quantities import format_bytes, format_duration
from evocompress.support.wording import counted

__all__ = ["Progress", "RunDisplay", "against_packing_table", "board", "front_table"]

_RECENT = 64
_SHOWN_ROWS = 9


@dataclasses.dataclass
class Progress:
    """What the events have said so far; `began` and the finish times are readings of one clock, in seconds."""

    title: str
    total: int | None
    workers: int | None
    began: float
    done: int = 0
    failed: int = 0
    hypervolume: float = 0.0
    volumes: list[float] = dataclasses.field(default_factory=list)
    in_flight: set[str] = dataclasses.field(default_factory=set)
    finishes: collections.deque[float] = dataclasses.field(default_factory=lambda: collections.deque(maxlen=_RECENT))
    events: collections.deque[str] = dataclasses.field(default_factory=lambda: collections.deque(maxlen=4))
    front: tuple[Leaf, ...] = ()
    quality: Quality = Quality("quality")
    work: dict[str, float] = dataclasses.field(default_factory=dict)  # under way beside segments, and its share done
    seconds: float | None = None  # from `began` until the budget of time is used up

    def seconds_left(self, now: float) -> float | None:
        """Until the first of the two budgets is used up; None where nothing tells.

        That of segments by the pace of the last results, so that a resumed run or a slow start does not distort it.
        """
        ends = [] if self.seconds is None else [max(0.0, self.began + self.seconds - now)]
        if self.total is not None and self.done >= self.total:
            return None
        if self.total is not None and len(self.finishes) >= 2:
            pace = (self.finishes[-1] - self.finishes[0]) / (len(self.finishes) - 1)
            ends.append(max(0.0, (self.total - self.done) * pace - (now - self.finishes[-1])))
        return min(ends, default=None)


class RunDisplay:
    """Observer of a run, and a context manager: `with RunDisplay() as shown: run_experiment(..., observer=shown)`.

    On a terminal it draws a live board, from the event `Opened` to the end of the context. Elsewhere it prints a line
    at most every `interval` seconds, and at once for failures, messages and the last segment, without control codes.
    """

    def __init__(
        self,
        *,
        console: Console | None = None,
        interval: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console or SafeConsole()
        self._clock, self._interval = clock, interval
        self._lock = threading.Lock()
        self._last_line = -math.inf
        self._live: Live | None = None
        self.progress = Progress("", None, None, began=clock())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, traceback)
            self._live = None

    def __call__(self, event: object) -> None:
        """Take an event of the search, or something that was said."""
        match event:
            case Opened():
                self._open(event)
            case Submitted():
                with self._lock:
                    self.progress.in_flight.add(event.task.segment_id)
            case Finished():
                kept = {leaf.leaf_id: leaf for leaf in (*self.progress.front, *event.outcome.leaves)}
                held = ({leaf.leaf_id for leaf in self.progress.front} | {*event.told.accepted}) - {
                    *event.told.displaced
                }
                front = sorted((kept[leaf_id] for leaf_id in held), key=lambda leaf: leaf.nbytes)
                self._finish(event.outcome, hypervolume=event.hypervolume, front=front, done=event.completion + 1)
            case Delayed():
                self._say(f"segment {event.task.number} is tried again in {event.pause:g} s: {event.reason}")
            case LargerShare():
                more = f"it is tried again with {event.share:g} of a GPU"
                self._say(f"segment {event.task.number} ran out of memory ({_first_line(event.error)}); {more}")
            case Late():
                self._say(_late(event))
            case LateJob():
                self._say(_late_job(event))
            case NodeNews():
                self.progress.workers = event.workers
                self._say(_node_news(event))
            case AwaitingNodes():
                self._say(_awaiting(event))
            case Watching():
                holder = f"pid {event.pid} on {event.host}"
                self._say(f"waiting {event.seconds:g} s to see whether another driver ({holder}) is alive")
            case SnapshotIgnored(path, reason):
                self._say(f"{path} is passed over, and the whole journal read: {reason}")
            case Ended():
                if event.reason != "finished":
                    self._say(f"{event.reason} after {event.completions} segments")
            case Said(text):
                self._say(text)
            case Began(what):
                with self._lock:
                    self.progress.work[what] = 0.0
            case Progressed(what, share):
                with self._lock:
                    self.progress.work |= {what: share}
                    if share >= 1.0:
                        del self.progress.work[what]
            case Abandoned(what):
                with self._lock:
                    self.progress.work.pop(what, None)
            case _:
                pass

    def _open(self, event: Opened) -> None:
        self.progress = Progress(
            event.name,
            event.total,
            event.workers,
            began=self._clock(),
            front=event.front,
            quality=event.quality,
            seconds=event.seconds,
        )
        if self._console.is_terminal and self._live is None:
            self._live = Live(get_renderable=self._draw, console=self._console, refresh_per_second=4)
            self._live.__enter__()

    def _finish(self, outcome: Outcome, *, hypervolume: float, front: Sequence[Leaf], done: int) -> None:
        """A result has been told; `front` is the archive after it."""
        progress, now = self.progress, self._clock()
        with self._lock:
            progress.in_flight.discard(outcome.segment_id)
            progress.done = done
            progress.hypervolume, progress.front = hypervolume, tuple(front)
            progress.volumes.append(hypervolume)
            progress.finishes.append(now)
            progress.failed += outcome.status != "ok"
        if outcome.status != "ok":
            ended = outcome.status.replace("_", " ")
            self._say(f"segment {outcome.number} {ended}: {_first_line(outcome.error)}")
        if self._live is None and (now - self._last_line >= self._interval or done == progress.total):
            self._last_line = now
            self._print(_line(progress, now))

    def _say(self, text: str) -> None:
        """Show a line among the last events, or print it at once where there is no terminal."""
        with self._lock:
            self.progress.events.append(text)
        if self._live is None:
            self._print(text)

    def _print(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)

    def _draw(self) -> RenderableType:
        with self._lock:
            return board(self.progress, self._clock())


def board(progress: Progress, now: float) -> RenderableType:
    """The live board at the clock reading `now`."""
    rows: list[RenderableType] = [_bar(progress), *(_work_bar(what, share) for what, share in progress.work.items())]
    rows += [_facts(progress, now), _volume(progress)]
    if progress.front:
        side = Table.grid(padding=(0, 3))
        side.add_row(_leaf_table(progress.front, progress.quality), _scatter(progress.front, progress.quality))
        rows += [Text(), side]
    if progress.events:
        rows += [
            Text(),
            *(Text(f"· {event}", style="dim", no_wrap=True, overflow="ellipsis") for event in progress.events),
        ]
    return Panel(Group(*rows), title=Text(progress.title, style="bold"), title_align="left", border_style="dim")


def front_table(
    points: Sequence[FrontPoint], quality: Quality, *, title: str = "", whole: Sequence[FrontPoint] | None = None
) -> Table:
    """The front as a table, smallest first; `*` marks the knee, `±` is half the 95 % interval in the quality's unit.

    `whole` is the front that these points are a part of, whose knee it is; by default, they are all of it.
    """
    audited = bool(points) and points[0].audited
    table = Table(
        title=Text(title) if title else None, title_justify="left", box=None, pad_edge=False, header_style="bold"
    )
    table.add_column("", style="yellow")
    name = quality.name if audited else f"{quality.name} (validation)"
    details = detail_names(points)
    names = ["bytes", name, "±", "validation", *details, "ratio", "depth", "epochs"]
    for name in names if audited else [name for name in names if name != "validation"]:
        table.add_column(Text(name), justify="right", no_wrap=True, style="dim" if name == "validation" else "")
    # Where the terminal is narrow, it is the id that is cut.
    table.add_column("leaf", style="dim", min_width=6)
    bend = knee(points if whole is None else whole, quality)
    for point in points:
        validation = [Text(quality.show(point.validation_quality))] if audited else []
        table.add_row(
            "*" if point is bend else "",
            str(point.nbytes),
            Text(quality.show(point.quality)),
            f"{quality.scale * (point.high - point.low) / 2:.{quality.digits}f}",
            *validation,
            *(Text(_number(point.details.get(name))) for name in details),
            _ratio(point.ratio),
            str(point.depth),
            str(point.epochs),
            Text(point.leaf_id, no_wrap=True, overflow="ellipsis"),
        )
    return table


def against_packing_table(rows: Sequence[AgainstPacking], quality: Quality, line: Reference | None) -> Table:
    """What training once and packing gave, and beside each file the front's smallest that is at least as good."""
    epochs = f" ({counted(line.epochs, 'epoch')})" if line and line.epochs else ""
    title = f"Instead: train once{epochs}, then pack, judged on the same data"
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in ("bytes", quality.name, "front: as good in", "times smaller"):
        table.add_column(Text(name), justify="right", no_wrap=True)
    for row in rows:
        smaller, point = row.times_smaller, row.point
        table.add_row(
            str(row.packed.nbytes),
            Text(quality.show(row.packed.quality)),
            "-" if point is None else f"{point.nbytes}",
            "-" if smaller is None else f"{smaller:.1f}",
        )
    return table


def _number(value: float | int | None) -> str:
    return "—" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _line(progress: Progress, now: float) -> str:
    """The board in one line."""
    total = "" if progress.total is None else f"/{progress.total}"
    parts = [
        f"segments {progress.done}{total}",
        f"hypervolume {progress.hypervolume:.4f}",
        f"front {len(progress.front)}",
    ]
    if progress.front:
        best, least = (
            min(progress.front, key=lambda leaf: leaf.error),
            min(progress.front, key=lambda leaf: leaf.nbytes),
        )
        parts += [f"best {progress.quality.show(best.quality)} in {format_bytes(best.nbytes)}"]
        parts += [f"smallest {format_bytes(least.nbytes)} at {progress.quality.show(least.quality)}"]
    parts += [f"failed {progress.failed}"] if progress.failed else []
    left = progress.seconds_left(now)
    return ", ".join([*parts, *([] if left is None else [f"{format_duration(left)} left"])])


def _bar(progress: Progress) -> RenderableType:
    total = progress.total
    share = "" if not total else f"{100 * progress.done / total:.0f} %"
    count = Text(f"{progress.done}" if total is None else f"{progress.done}/{total}", style="bold")
    return _grid(Text.assemble("segments ", count), ProgressBar(total, progress.done), share)


def _work_bar(what: str, share: float) -> RenderableType:
    return _grid(Text(what), ProgressBar(1.0, share), f"{100 * share:.0f} %")


def _grid(text: Text, bar: ProgressBar, share: str) -> RenderableType:
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True, justify="right")
    grid.add_row(text, bar, share)
    return grid


def _facts(progress: Progress, now: float) -> Text:
    facts = [f"elapsed {format_duration(now - progress.began)}"]
    left = progress.seconds_left(now)
    facts += [] if left is None else [f"left {format_duration(left)}"]
    busy = len(progress.in_flight)
    facts.append(
        f"{busy} in flight" if progress.workers is None else f"workers {min(busy, progress.workers)}/{progress.workers}"
    )
    text = Text("  ·  ".join(facts))
    return text.append(f"  ·  {progress.failed} failed", style="red") if progress.failed else text


def _volume(progress: Progress) -> Text:
    text = Text.assemble("hypervolume ", (f"{progress.hypervolume:.4f}", "bold"), "  ")
    return text.append(sparkline(progress.volumes), style="cyan")


def _leaf_table(front: Sequence[Leaf], quality: Quality) -> Table:
    """At most `_SHOWN_ROWS` leaves, evenly over the front, its ends always among them."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("size", quality.name, "ratio", "depth", "epochs"):
        table.add_column(Text(name), justify="right", no_wrap=True)
    count = min(_SHOWN_ROWS, len(front))
    places = [round(number * (len(front) - 1) / max(1, count - 1)) for number in range(count)]
    for leaf in (front[place] for place in places):
        float32_size = measured_float32_bytes(leaf)
        ratio = _ratio(float32_size / leaf.nbytes) if float32_size else ""
        table.add_row(
            format_bytes(leaf.nbytes), Text(quality.show(leaf.quality)), ratio, str(leaf.depth), str(leaf.epochs)
        )
    table.caption = Text(f"{len(front)} on the front, by validation", style="dim")
    table.caption_justify = "left"
    return table


def _scatter(front: Sequence[Leaf], quality: Quality) -> Text:
    rows = braille_scatter([(math.log2(leaf.nbytes), leaf.quality) for leaf in front], 34, 8)
    low, high = (quality.show(pick(leaf.quality for leaf in front)) for pick in (min, max))
    labels = [high, *[""] * (len(rows) - 2), low]
    width = max(8, len(low), len(high))
    text = Text()
    for label, row in zip(labels, rows, strict=True):
        text.append(f"{label:>{width}} ", style="dim").append("│", style="dim").append(f"{row}\n", style="cyan")
    ends = format_bytes(min(leaf.nbytes for leaf in front)), format_bytes(max(leaf.nbytes for leaf in front))
    return text.append(
        f"{'':{width + 1}}└ {ends[0]} {'─' * max(1, 30 - len(ends[0]) - len(ends[1]))} {ends[1]}", style="dim"
    )


def _ratio(ratio: float) -> str:
    return f"{ratio:.0f}×" if ratio >= 100 else f"{ratio:.1f}×"


# Up to how many seconds after it was asked an autoscaler has said for the first time that nodes can come.
_SOON = 60.0


def _node_news(event: NodeNews) -> str:
    match event.change:
        case "unfit":
            return f"left out of this run: {event.nodes}: {event.reason}"
        case "joined":
            return f"{event.nodes} takes part now; at once run {counted(event.workers, 'segment')}"
        case "gone":
            return f"{event.nodes} is gone; at once run {counted(event.workers, 'segment')}"


def _awaiting(event: AwaitingNodes) -> str:
    asks = ", ".join(f"{need:g} {name}" for name, need in event.needs.items())
    nodes = f"waiting for a node: a segment asks for {asks}, and no node of the Ray cluster has that"
    if event.seconds < _SOON:
        return f"{nodes} yet; its autoscaler was asked for more"
    return f"{nodes} after {format_duration(event.seconds)}; ray status says what its autoscaler does"


def _late(event: Late) -> str:
    number, took, limit = event.task.number, format_duration(event.seconds), format_duration(event.limit)
    if event.node is None:
        return f"segment {number} has been waiting for a free worker for {took}"
    running = f"segment {number} has been running on {event.node} for {took}"
    if not event.attempt:
        return (
            f"{running}; no other has ended yet that it could be held against (resources.segment_timeout sets a limit)"
        )
    return (
        f"{running}, longer than its limit of {limit}: attempt {event.attempt} begins, on another node if "
        "there is one; the first that is stored counts"
    )


def _late_job(event: LateJob) -> str:
    took = format_duration(event.seconds)
    if event.node is None:
        return f"{event.what}: waiting for a free worker for {took}"
    if event.kind == "silent":
        return (
            f"{event.what}: nothing was heard of the worker on {event.node} for {took}; if it stands still it is "
            "ended, and the job begun anew"
        )
    if event.kind == "begun anew":
        return f"{event.what}: a worker was lost; after {took} it was begun anew on {event.node}"
    return f"{event.what}: running on {event.node} for {took}"


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if len(lines) > 1 and lines[0].startswith("Traceback") else (lines[0] if lines else "no message")

"""Display of a run: the live board, lines, and the table of the front."""

import dataclasses
import io
import time
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console
from synthetic_run import synthetic_run

from evocompress.protocols import Abandoned, Began, Said, reporting
from evocompress.runs.display import Progress, RunDisplay, board, front_table
from evocompress.runs.front import front
from evocompress.runs.text_plot import braille_scatter, sparkline
from evocompress.search.ask_tell import Told
from evocompress.search.events import Ended, Finished, LargerShare, LateJob, Opened, Submitted
from evocompress.search.history import History
from evocompress.search.node_roll import NodeNews
from evocompress.search.quality import Quality
from evocompress.tasks.classification import ACCURACY


def console(*, terminal: bool) -> tuple[Console, Callable[[], str]]:
    text = io.StringIO()
    made = Console(file=text, force_terminal=terminal, width=120, height=40, legacy_windows=False, _environ={})
    return made, text.getvalue


def play(display: RunDisplay, history: History, *, upto: int, tick: Callable[[], None], **opened: Any) -> None:
    display(Opened("digits", 40, 2, **opened))
    for number, outcome in enumerate(history.outcomes[:upto]):
        display(Submitted(outcome.index, history.tasks[outcome.segment_id], 1))
        tick()
        line = history.told[number]
        told = Told(
            line["hypervolume_before"], line["hypervolume_after"], tuple(line["accepted"]), tuple(line["displaced"])
        )
        display(Finished(outcome.index, number, outcome, told, told.hypervolume_after, 0, 0, 0.0))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def tick(self) -> None:
        self.now += 2.0


def test_front_follows_the_events() -> None:
    history, clock = synthetic_run(40), Clock()
    display = RunDisplay(console=console(terminal=False)[0], clock=clock)
    with display:
        play(display, history, upto=40, tick=clock.tick)
    assert [leaf.leaf_id for leaf in display.progress.front] == [leaf.leaf_id for leaf in history.archive]
    assert display.progress.done == 40 and not display.progress.in_flight
    assert display.progress.failed == sum(outcome.status != "ok" for outcome in history.outcomes) > 0


def test_nodes_of_a_cluster_are_told_and_counted() -> None:
    made, written = console(terminal=False)
    with RunDisplay(console=made) as display:
        display(Opened("digits", 40, 3))
        display(NodeNews("n7 (node ab)", "unfit", "does not see the storage", 3))
        display(NodeNews("n8 (node cd)", "joined", "", 5))
        assert display.progress.workers == 5
        display(NodeNews("n8 (node cd)", "gone", "", 1))
    assert written().splitlines() == [
        "left out of this run: n7 (node ab): does not see the storage",
        "n8 (node cd) takes part now; at once run 5 segments",
        "n8 (node cd) is gone; at once run 1 segment",
    ]
    assert display.progress.workers == 1


def test_a_job_that_takes_long_or_falls_silent_is_told() -> None:
    made, text = console(terminal=False)
    with RunDisplay(console=made) as display:
        display(LateJob("auditing 3 files", 601.0, None))
        display(LateJob("auditing 3 files", 1801.0, "n7 (node ab)"))
        display(LateJob("auditing 3 files", 125.0, "n7 (node ab)", kind="silent"))
        display(LateJob("auditing 3 files", 30.0, "n8 (node cd)", kind="begun anew"))
    lines = " ".join(text().split())
    assert "a worker was lost; after 0:30 it was begun anew on n8 (node cd)" in lines
    assert "auditing 3 files: waiting for a free worker for 10:01" in lines
    assert "auditing 3 files: running on n7 (node ab) for 30:01" in lines
    assert "nothing was heard of the worker on n7 (node ab) for 2:05" in lines and "begun anew" in lines


def test_a_larger_share_of_a_gpu_is_told() -> None:
    made, written = console(terminal=False)
    task = next(iter(synthetic_run(1).tasks.values()))
    with RunDisplay(console=made) as display:
        display(LargerShare(task, 0.5, "OutOfMemoryError: CUDA out of memory"))
    line = "segment 1 ran out of memory (OutOfMemoryError: CUDA out of memory); it is tried again with 0.5 of a GPU"
    assert written().splitlines() == [line]


def test_plain_lines_where_there_is_no_terminal() -> None:
    history, clock = synthetic_run(40), Clock()
    made, written = console(terminal=False)
    with RunDisplay(console=made, clock=clock, interval=10.0) as display:
        play(display, history, upto=40, tick=clock.tick)
        display(Said("[bold]written as it is[/bold] " + "x" * 200))
        display("nothing that it knows")
        display(Ended("interrupted", 40, 0.5, 3))
    lines = written().splitlines()
    assert "\x1b" not in written()
    progress = [line for line in lines if line.startswith("segments ")]
    # One line at the first result, then every 10 s of 80 s, and one at the end.
    assert 8 <= len(progress) <= 10
    assert progress[-1].startswith("segments 40/40, hypervolume ") and "left" not in progress[-1]
    assert "0:28 left" in "".join(progress)
    assert [line for line in lines if "diverged: loss is nan after epoch 1" in line] == [
        f"segment {number} diverged: loss is nan after epoch 1" for number in (8, 21, 34)
    ]
    assert "[bold]written as it is[/bold] " + "x" * 200 in lines
    assert lines[-1] == "interrupted after 40 segments"


def test_board_on_a_terminal() -> None:
    history, clock = synthetic_run(40), Clock()
    made, written = console(terminal=True)
    with RunDisplay(console=made, clock=clock) as display:
        play(display, history, upto=30, tick=clock.tick)
        time.sleep(0.6)  # a few redraws by the live thread
    text = written()
    for part in ("digits", "30/40", "75 %", "hypervolume", "left 0:20", "workers 0/2", "2 failed", "on the front"):
        assert part in text, part
    assert "\x1b[?25h" in text  # the cursor is back


def test_board_shows_work_beside_segments_until_it_has_ended() -> None:
    made, written = console(terminal=False)
    display = RunDisplay(console=made)
    with reporting(display, "auditing 3 files of the front") as done:
        done(0.25)
        made.print(board(display.progress, 5.0))
    assert "auditing 3 files of the front" in written() and "25 %" in written()
    assert not display.progress.work


def test_work_that_fails_leaves_the_board_and_is_never_said_to_be_done() -> None:
    heard: list[object] = []
    made, _ = console(terminal=False)
    display = RunDisplay(console=made)
    with pytest.raises(OSError, match="the disk is full"), reporting(display, "auditing") as done:
        done(0.5)
        raise OSError("the disk is full")
    assert not display.progress.work
    with pytest.raises(OSError, match="full"), reporting(heard.append, "auditing"):
        raise OSError("full")
    assert heard == [Began("auditing"), Abandoned("auditing")]


def test_board_shows_brackets_as_they_are() -> None:
    made, written = console(terminal=False)
    progress = Progress("run [red]x[/red]", None, None, began=0.0)
    progress.events.append("failed: [/nothing] opened")
    made.print(board(progress, 5.0))
    assert "run [red]x[/red]" in written() and "[/nothing] opened" in written()


def test_time_left_follows_the_pace() -> None:
    progress = Progress("", 100, 2, began=0.0)
    assert progress.seconds_left(0.0) is None
    progress.done = 40
    progress.finishes.extend([1000.0 + 3.0 * number for number in range(20)])
    assert progress.seconds_left(1057.0) == pytest.approx(180.0)
    assert progress.seconds_left(1060.0) == pytest.approx(177.0)
    progress.seconds = 1100.0
    assert progress.seconds_left(1060.0) == pytest.approx(40.0)  # the budget of time ends first
    assert Progress("", None, 2, began=5.0, seconds=60.0).seconds_left(25.0) == pytest.approx(40.0)
    progress.done = 100
    assert progress.seconds_left(1060.0) is None


def test_resumed_display_begins_with_the_archive() -> None:
    history, clock = synthetic_run(20), Clock()
    display = RunDisplay(console=console(terminal=False)[0], clock=clock)
    display(Opened("digits", 40, front=tuple(history.archive)))
    outcome = history.outcomes[-1]
    display(Finished(outcome.index, 19, outcome, Told(0.5, 0.5), 0.5, 0, 0, 0.0))
    assert list(display.progress.front) == history.archive


def test_a_minimised_quality_is_shown_as_it_is() -> None:
    quality = Quality("RMSE [m]", unit="m", direction="minimise", digits=3)
    history, clock = synthetic_run(40, quality=quality), Clock()
    made, written = console(terminal=False)
    with RunDisplay(console=made, clock=clock, interval=10.0) as display:
        play(display, history, upto=40, tick=clock.tick, quality=quality)
    best, least = history.archive[-1], history.archive[0]
    assert f"best {best.quality:.3f} m in" in written() and f" at {least.quality:.3f} m" in written()
    assert best.quality < least.quality
    made.print(board(display.progress, 300.0))
    made.print(front_table(front(history), quality))
    assert "RMSE [m]" in written() and "%" not in written().partition("RMSE")[2].replace("100 %", "")
    assert f"{least.quality:.3f} m" in written()


def test_front_table_has_a_row_per_point() -> None:
    points = front(synthetic_run(80))
    made, written = console(terminal=False)
    made.print(front_table(points, ACCURACY, title="run [1]"))
    text = written()
    assert text.startswith("run [1]")
    for point in points:
        assert point.leaf_id in text and f" {point.nbytes} " in text and f"{100 * point.quality:.2f} %" in text
    assert text.count("*") == 1 and "validation" in text
    assert " correct " in text and all(f" {point.details['correct']} " in text for point in points)
    narrow = Console(file=io.StringIO(), width=72)
    with narrow.capture() as capture:
        narrow.print(front_table(points, ACCURACY))
    assert len(capture.get().splitlines()) == len(points) + 1  # nothing wraps
    assert all(f"{100 * point.quality:.2f} %" in capture.get() for point in points)
    unaudited = front(synthetic_run(20, audited=False))
    made, written = console(terminal=False)
    made.print(front_table(unaudited, ACCURACY))
    made.print(front_table([], ACCURACY))
    assert "accuracy (validation)" in written()


def test_what_a_task_measures_beside_its_quality_has_columns() -> None:
    points = front(synthetic_run(20))
    points = [dataclasses.replace(points[0], details={"top5": 0.98765}), *points[1:2]]
    made, written = console(terminal=False)
    made.print(front_table(points, ACCURACY))
    header, first, second = written().splitlines()
    assert " top5 " in header and " correct " in header
    assert " 0.9877 " in first and " — " in first and f" {points[1].details['correct']} " in second


def test_sparkline_and_scatter() -> None:
    assert sparkline([]) == "" and sparkline([3.0, 3.0]) == "▁▁"
    assert len(sparkline(list(range(1000)), 30)) == 30
    rows = braille_scatter([(x, x) for x in range(50)], 10, 5)
    assert len(rows) == 5 and {len(row) for row in rows} == {10}
    assert rows[0].strip() and rows[0].startswith(" ") and rows[-1].endswith(" ")
    assert braille_scatter([], 3, 2) == ["   ", "   "]

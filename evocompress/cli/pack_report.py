"""What `pack` says while it works, and of the file that came out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from evocompress.checkpoint.recipe import Recipe
from evocompress.packer.calibrated import Calibration
from evocompress.packer.targets import Try
from evocompress.support.wording import listed, shortened
from evocompress.tasks.classification import evaluate

__all__ = ["held_out_line", "progress_bar", "say", "table_of", "zeroed_warning"]

_PACE = 3600.0  # seconds of progress that the time left is estimated from: a single step may take minutes
_LISTED = 3  # names of tensors


def say(console: Console, line: str) -> None:
    """Print one line as it is, however long: not wrapped, not coloured."""
    console.print(line, soft_wrap=True, markup=False, highlight=False)


@contextlib.contextmanager
def progress_bar(console: Console, what: str) -> Iterator[Callable[[float], None]]:
    """A bar with time elapsed and left, which takes the share that is done; on a terminal only, else nothing."""
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), TaskProgressColumn(),
        TimeElapsedColumn(), TextColumn("elapsed,"), TimeRemainingColumn(), TextColumn("left"),
    )  # fmt: skip
    shown = Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal, speed_estimate_period=_PACE
    )
    with shown as progress:
        task = progress.add_task(what, total=1.0)
        yield lambda share: progress.update(task, completed=share)


def table_of(tried: Sequence[Try], loss_name: str) -> Table:
    """What was tried, by λ."""
    measured = any(found.loss is not None for found in tried)
    table = Table(box=None)
    for title in ("λ", "bytes", *([loss_name] if measured else [])):
        table.add_column(title, justify="left" if title == "λ" else "right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for found in sorted(tried, key=lambda found: found.rate_weight):
        loss = ["" if found.loss is None else f"{found.loss:#.5g}"] if measured else []
        verdict = "meets it" if found.meets else "does not"
        table.add_row(f"{found.rate_weight:.3g}", str(len(found.data)), *loss, verdict)
    return table


def held_out_line(calibration: Calibration, data: bytes) -> str:
    """How good the network is on held-out examples before and after; without labels: how far its outputs moved."""
    held_out = calibration.held_out
    if not calibration.labelled:
        return f"held-out: {calibration.loss_name} {calibration.loss(data):.4g} ({_grouped(len(held_out))} examples)"
    networks = calibration.model, calibration.decoded(data)
    before, after = (evaluate(network, held_out, calibration.device) for network in networks)
    return (
        f"held-out: loss {before.loss:.4f} → {after.loss:.4f}, "
        f"accuracy {100 * before.accuracy:.2f} % → {100 * after.accuracy:.2f} % "
        f"({_grouped(after.total)} {'examples' if held_out.labels.ndim == 1 else 'labels'})"
    )


def zeroed_warning(zeroed: Sequence[str], state: Mapping[str, torch.Tensor], recipe: Recipe) -> str:
    """That tensors were lost, and how to keep them: `recipe` has the rules that they follow."""
    rule = recipe.rule(zeroed[0], state[zeroed[0]].ndim)
    finer = f"{zeroed[0]}={rule.codecs[0]}@{rule.rate_factor / 10:g}"
    decode = "tensor that is not zero decodes" if len(zeroed) == 1 else "tensors that are not zero decode"
    return (
        f"warning: {len(zeroed)} {decode} to zeros: {listed([shortened(name) for name in zeroed], _LISTED)}. "
        f"To keep them, use a smaller λ, or for single ones a rule with a smaller factor, such as --rule '{finer}'"
    )


def _grouped(number: int) -> str:
    return f"{number:,}".replace(",", " ")

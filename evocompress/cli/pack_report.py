"""Progress, tables and warnings of `pack` on standard error, and the line on held-out examples on standard output."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from evocompress.cli.output import Output
from evocompress.cli.progress_bars import ProgressBars
from evocompress.packer import events
from evocompress.packer.calibrated import HeldOut
from evocompress.packer.targets import LossLimit, Try
from evocompress.protocols import Said
from evocompress.support.wording import listed, shortened

__all__ = ["PackReport", "held_out_line", "missed_warning", "table_of", "zeroed_warning"]

_LISTED = 12  # names of tensors
_FAR = 0.05  # of the outputs' variance


class PackReport:
    """An observer of the pack job that shows what it hears: bars on a terminal only, all else anywhere."""

    def __init__(self, output: Output | None = None) -> None:
        self._bars = ProgressBars()
        self._output = output or Output()

    def __call__(self, event: object) -> None:
        """Show an event."""
        match event:
            case events.TargetMissed():
                self._output.warning(missed_warning(event))
            case events.TensorsZeroed():
                self._output.warning(zeroed_warning(event))
            case events.HeldOutMeasured(held_out):
                self._output.result(held_out_line(held_out))
                if warning := moved_warning(held_out):
                    self._output.warning(warning)
            case Said(text, "warning"):
                self._output.warning(text)
            case _ if not self._output.quiet:
                self._show(event)
            case _:
                pass

    def _show(self, event: object) -> None:
        """Show how the work goes on."""
        match event:
            case Said(text):
                self._output.note(text)
            case events.PhaseBegan(what, number, phases):
                self._bars.say(what if phases == 1 else f"{number} of {phases}: {what}")
            case events.ConfidenceFitted(confidence):
                self._bars.say(
                    f"confidence: logits are scaled by {confidence.scale:.3f} ({confidence.layer!r}); "
                    f"held-out loss {confidence.before:.4f}, with it {confidence.after:.4f}"
                )
            case events.Searched(tried, loss_name) if tried:
                self._bars.console.print(table_of(tried, loss_name), highlight=False)
            case events.StoppedEarly(best, tries):
                self._bars.say(
                    f"Stopped early: of {tries} files that were tried, the best that meets the target "
                    f"has {len(best.data)} bytes (λ = {best.rate_weight:.3g})."
                )
            case _:
                self._bars(event)


def table_of(tried: Sequence[Try], loss_name: str) -> Table:
    """What was tried, by λ."""
    measured = any(attempt.loss is not None for attempt in tried)
    table = Table(box=None)
    for title in ("λ", "bytes", *([loss_name] if measured else [])):
        table.add_column(title, justify="left" if title == "λ" else "right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for attempt in sorted(tried, key=lambda attempt: attempt.rate_weight):
        loss = ["" if attempt.loss is None else f"{attempt.loss:#.5g}"] if measured else []
        verdict = "meets it" if attempt.meets else "does not"
        table.add_row(f"{attempt.rate_weight:.3g}", str(len(attempt.data)), *loss, verdict)
    return table


def held_out_line(held_out: HeldOut) -> str:
    """How good the network is on held-out examples before and after; without labels: how far its outputs moved."""
    total = f"({_grouped(held_out.total)} {held_out.counted})"
    if held_out.quality is None or held_out.quality_before is None or held_out.quality_after is None:
        return f"held-out: {held_out.loss_name} {100 * held_out.loss_after:.4g} % of their variance {total}"
    return (
        f"held-out: loss {held_out.loss_before:.4f} → {held_out.loss_after:.4f}, "
        f"{held_out.quality.name} {held_out.quality.show(held_out.quality_before)} → "
        f"{held_out.quality.show(held_out.quality_after)} {total}"
    )


def moved_warning(held_out: HeldOut) -> str:
    """What to do where outputs without labels have moved far; empty where they have not."""
    if held_out.quality is not None or held_out.loss_after <= _FAR:
        return ""
    return (
        "warning: the outputs are far from those of the network; give a smaller λ, or the change that you can bear, "
        "such as --max-loss-increase 0.01."
    )


def missed_warning(missed: events.TargetMissed) -> str:
    """That the target was missed, by how much, and which limit would be met."""
    option = "--max-loss-increase" if isinstance(missed.target, LossLimit) else "--max-bytes"
    limit = missed.target.within_reach(missed.nearest)
    advice = f" {option} {limit} can be met." if limit else " Is the network fine before it is packed?"
    return f"warning: {missed} This nearest file is written all the same.{advice}"


def zeroed_warning(zeroed: events.TensorsZeroed) -> str:
    """That tensors were lost, and how to keep them."""
    names, keep = zeroed.names, zeroed.keep
    finer = f"{keep.match}={keep.codecs[0]}@{keep.rate_factor:g}"
    match zeroed.target:
        case None:
            more = "use a smaller λ"
        case LossLimit():
            more = "ask for a smaller --max-loss-increase"
        case _:
            more = "allow more bytes with --max-bytes"
    decode = "tensor that is not zero decodes" if len(names) == 1 else "tensors that are not zero decode"
    return (
        f"warning: {len(names)} {decode} to zeros: {listed([shortened(name) for name in names], _LISTED)}. "
        f"To keep them, {more}, or for single ones a rule with a smaller factor, such as --rule '{finer}'"
    )


def _grouped(number: int) -> str:
    return f"{number:,}".replace(",", " ")

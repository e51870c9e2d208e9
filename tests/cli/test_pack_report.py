"""Report of `pack`: what it shows of the job's events."""

from __future__ import annotations

import pytest

from evocompress.checkpoint.recipe import Rule
from evocompress.cli.pack_report import PackReport, held_out_line, zeroed_warning
from evocompress.packer.calibrated import HeldOut
from evocompress.packer.events import (
    ConfidenceFitted,
    HeldOutMeasured,
    PhaseBegan,
    Searched,
    StoppedEarly,
    TensorsZeroed,
)
from evocompress.packer.targets import LossLimit, SizeLimit, Target, Try
from evocompress.packer.temperature_scaling import Confidence
from evocompress.protocols import Began, Progressed, Said
from evocompress.tasks.classification import ACCURACY

FINE, ROUGH = Try(1e-4, bytes(900), meets=False, loss=0.25), Try(2e-4, bytes(80), meets=True, loss=0.5)


def test_a_pipe_gets_lines_and_tables_but_no_bars(capsys: pytest.CaptureFixture[str]) -> None:
    report = PackReport()
    for event in (
        ConfidenceFitted(Confidence(0.5, "head", 0.25, 0.125)),
        PhaseBegan("searching λ for at most 99 bytes", 1, 2),
        Began("searching"),
        Progressed("searching", 0.5),
        Progressed("searching", 1.0),
        Progressed("searching", 1.0),
        Searched((ROUGH, FINE), "held-out loss"),
        Searched((), ""),
        PhaseBegan("quantising"),
        StoppedEarly(ROUGH, 2),
        TensorsZeroed(("a.bias", "b"), Rule("a.bias", ("dct",), 0.05)),
        Said("[b]said as it is[/b]"),
        object(),
        HeldOutMeasured(HeldOut("held-out loss", 0.25, 0.5, ACCURACY, 1.0, 0.975, 1200)),
    ):
        report(event)
    out, err = capsys.readouterr()
    assert "\x1b" not in err and "\r" not in err and all(line.strip() for line in err.splitlines())
    lines = [" ".join(line.split()) for line in err.splitlines()]
    assert lines == [
        "confidence: logits are scaled by 0.500 ('head'); held-out loss 0.2500, with it 0.1250",
        "1 of 2: searching λ for at most 99 bytes",
        "λ bytes held-out loss",
        "0.0001 900 0.25000 does not",
        "0.0002 80 0.50000 meets it",
        "quantising",
        "Stopped early: of 2 files that were tried, the best that meets the target has 80 bytes (λ = 0.0002).",
        "warning: 2 tensors that are not zero decode to zeros: a.bias, b. To keep them, use a smaller λ, or for single "
        "ones a rule with a smaller factor, such as --rule 'a.bias=dct@0.05'",
        "[b]said as it is[/b]",
    ]
    assert out == "held-out: loss 0.2500 → 0.5000, accuracy 100.00 % → 97.50 % (1 200 examples)\n"


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        (None, "To keep them, use a smaller λ, or for"),
        (SizeLimit(99), "To keep them, allow more bytes with --max-bytes, or for"),
        (LossLimit(lambda _: 0.0, "loss", 0.1, 0.2), "To keep them, ask for a smaller --max-loss-increase, or for"),
    ],
)
def test_lost_tensors_are_kept_by_what_the_user_has_set(target: Target | None, advice: str) -> None:
    assert advice in zeroed_warning(TensorsZeroed(("a.bias",), Rule("a.bias", ("dct",), 0.05), target))


def test_without_labels_the_line_tells_the_change_of_outputs() -> None:
    line = held_out_line(HeldOut("change of outputs", 0.0, 0.0123456, None, None, None, 50))
    assert line == "held-out: change of outputs 1.235 % of their variance (50 examples)"

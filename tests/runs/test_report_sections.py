"""Sections of a report: Ctrl-C in compiled code comes out of it as a SystemError, and is no section's fault."""

from __future__ import annotations

import pytest
from synthetic_run import synthetic_run

from evocompress.extensions import REPORT_SECTIONS
from evocompress.runs.report.section import further_sections


def test_an_interrupt_in_compiled_code_is_no_section_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    cause: BaseException = KeyboardInterrupt()

    def stopped(history: object) -> None:
        raise SystemError("a compiled function returned a result with an exception set") from cause

    monkeypatch.setattr(type(REPORT_SECTIONS), "load_all", lambda self: ({"stopped": stopped}, {}))
    with pytest.raises(SystemError):
        further_sections(synthetic_run(3))
    cause = ValueError("its own")
    assert "cannot be made here" in further_sections(synthetic_run(3))["stopped"].words

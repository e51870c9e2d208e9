"""Exporters and report sections of packages, and what their failures leave."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import content, synthetic_run

from evocompress.errors import ConfigError
from evocompress.extensions import EXPORTERS, REPORT_SECTIONS, Extensions
from evocompress.runs.export import export_run
from evocompress.runs.report import ReportSection, render_report
from evocompress.search.history import History

PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
Function = Callable[..., Any]


class Point:
    """As an entry point."""

    dist = None

    def __init__(self, name: str, thing: Any) -> None:
        self.name, self.value, self.module, self._thing = name, "somewhere:thing", "somewhere", thing

    def load(self) -> Any:
        if isinstance(self._thing, Exception):
            raise self._thing
        return self._thing


def add(monkeypatch: pytest.MonkeyPatch, kind: Extensions, **things: Any) -> None:
    monkeypatch.setitem(kind.__dict__, "_added", {name: Point(name, thing) for name, thing in things.items()})
    monkeypatch.setattr(kind, "_loaded", {})


def test_a_further_built_in_exporter_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def note(history: History, folder: Path, read_leaf: Function) -> list[Path]:
        (folder / "note.txt").write_text(f"{len(history.archive)} files")
        return [folder / "note.txt"]

    further = Extensions("exporter", "evocompress.exporters", {**EXPORTERS._builtin, "note": "math:pi"})
    further._loaded["note"] = note
    monkeypatch.setattr("evocompress.runs.export.EXPORTERS", further)
    assert export_run(synthetic_run(10), tmp_path, content).further[-1] == tmp_path / "export/note.txt"


def test_exporters_of_packages_come_last_and_their_failures_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(history: History, folder: Path, read_leaf: Function) -> list[Path]:
        assert {"front.csv", "front.png", "report.html", "segments.parquet"} <= {path.name for path in folder.iterdir()}
        path = folder / "sizes.txt"
        path.write_text("\n".join(str(len(read_leaf(leaf))) for leaf in history.archive))
        return [path]

    def failing(history: History, folder: Path, read_leaf: Function) -> list[Path]:
        raise ZeroDivisionError("by nothing")

    add(monkeypatch, EXPORTERS, failing=failing, broken=ImportError("no such thing"), names=names)
    history = synthetic_run(10)
    export = export_run(history, tmp_path, content)
    assert export.further[-1] == tmp_path / "export/sizes.txt"
    assert [int(line) for line in export.further[-1].read_text().split()] == [leaf.nbytes for leaf in history.archive]
    assert export.problems == (
        "The exporter 'broken' of the package somewhere cannot be imported (somewhere:thing): ImportError: "
        "no such thing",
        "The exporter 'failing' failed: ZeroDivisionError: by nothing",
    )


def section(history: History, name: str) -> str:
    found = re.search(f'<section class="card" id="section-{name}">.*?</section>', render_report(history), re.DOTALL)
    assert found is not None
    return found[0]


def test_sections_of_packages_are_text_and_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = ReportSection("Sizes <b>", "What <i>each</i> file takes.", "A & B", (PIXEL, PIXEL))
    add(monkeypatch, REPORT_SECTIONS, sizes=lambda history: shown, nothing=lambda history: None)
    text = section(synthetic_run(5), "sizes")
    assert "<h2>Sizes &lt;b&gt;</h2>" in text and "What &lt;i&gt;each&lt;/i&gt; file takes. A &amp; B" in text
    assert text.count(f'src="{PIXEL}"') == 2 and 'alt="Sizes &lt;b&gt;, picture 2"' in text
    assert 'id="section-nothing"' not in render_report(synthetic_run(5))


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (ImportError("gone"), "cannot be imported (somewhere:thing): ImportError: gone"),
        (lambda history: 1 / 0, "This section cannot be made here: ZeroDivisionError: division by zero"),
        (lambda history: "<p>", "it is a str; it must be a ReportSection, or None"),
        (lambda history: ReportSection("x", pictures=("https://example.org/x.png",)), "write it as a data URI"),
    ],
)
def test_a_section_that_fails_says_so_in_the_page(thing: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good = ReportSection("Fine")
    add(monkeypatch, REPORT_SECTIONS, bad=thing, good=lambda history: good)
    assert words in section(synthetic_run(5), "bad")
    assert "<h2>Fine</h2>" in section(synthetic_run(5), "good")


def test_a_picture_comes_with_the_page() -> None:
    with pytest.raises(ConfigError, match="data URI"):
        ReportSection("x", pictures=("javascript:alert(1)",))

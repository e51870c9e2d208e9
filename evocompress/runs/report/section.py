"""Sections that ideas and packages add to a run's report: some words and pictures under a title."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from evocompress.errors import ConfigError
from evocompress.extensions import REPORT_SECTIONS
from evocompress.search.interrupts import asked_to_end

if TYPE_CHECKING:
    from evocompress.search.history import History

__all__ = ["ReportSection", "further_sections"]


@dataclasses.dataclass(frozen=True)
class ReportSection:
    """One section. All texts are shown as text, never as markup.

    Args:
        title: Its heading.
        note: What it shows, in a sentence.
        words: What is to be said of it.
        pictures: Pictures below each other, as data URIs ("data:image/png;base64,…").

    Raises:
        ConfigError: A picture that is no data URI of an image: a report asks nothing of any network.
    """

    title: str
    note: str = ""
    words: str = ""
    pictures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for picture in self.pictures:
            if not picture.startswith("data:image/"):
                raise ConfigError(f"pictures has {picture[:40]!r}; write it as a data URI, data:image/png;base64,…")


def further_sections(history: History) -> dict[str, ReportSection]:
    """The sections that have something to show of this run, by name; one that fails says so in its place."""
    sections: dict[str, ReportSection] = {}
    functions, problems = REPORT_SECTIONS.load_all()
    for name, problem in problems.items():
        sections[name] = ReportSection(name, words=problem)
    for name, function in functions.items():
        try:
            section = function(history)
            if section is not None and not isinstance(section, ReportSection):
                raise ConfigError(f"it is a {type(section).__name__}; it must be a ReportSection, or None")
        except Exception as failure:  # a report is of use without it
            if asked_to_end(failure):
                raise
            text = f"This section cannot be made here: {type(failure).__name__}: {failure}"
            section = ReportSection(name, words=text)
        if section is not None:
            sections[name] = section
    return sections

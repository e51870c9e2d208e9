"""One self-contained HTML page about a run."""

from evocompress.runs.report.page import render_report, write_report
from evocompress.runs.report.section import ReportSection

__all__ = ["ReportSection", "render_report", "write_report"]

"""The report page: a run's payload, the style, the script and plotly in one HTML file that asks nothing of any network.

Nobody's text can become markup or code: data travels as JSON in which `<`, `>` and `&` are written as escapes, the
script sets text only as text, and the page's own policy allows just the two scripts whose hashes it names.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evocompress.runs.report.payload import payload
from evocompress.runs.report.section import further_sections
from evocompress.support.atomic_files import write_bytes
from evocompress.support.optional_libraries import needs_extra

if TYPE_CHECKING:
    from evocompress.search.history import History

__all__ = ["render_report", "script_json", "write_report"]

_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def write_report(history: History, path: str | Path) -> None:
    """Write the report of a run, going on or finished, to `path`, whole or not at all.

    Raises:
        EvocompressError: The libraries of `evocompress[report]` are missing.
    """
    write_bytes(path, render_report(history).encode())


def render_report(history: History) -> str:
    """The report as one HTML text."""
    with needs_extra("report"):
        import jinja2
        from markupsafe import Markup
        from plotly.offline import get_plotlyjs
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("evocompress.runs.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    plotly, script = get_plotlyjs(), _template("script.html.j2")
    run = history.run
    return environment.get_template("page.html.j2").render(
        title=f"{run.get('network', {}).get('name', 'network')} on {run.get('data', {}).get('name', 'data')}",
        run=run,
        quality=history.quality,
        config=json.dumps(run.get("config", {}), indent=2, ensure_ascii=False),
        data=Markup(script_json(payload(history))),
        style=Markup(_template("style.html.j2")),
        sections=further_sections(history),
        script=Markup(script),
        plotly=Markup(plotly),
        hashes=[_hash(plotly), _hash(script)],
    )


def script_json(value: Any) -> str:
    r"""JSON that may stand in a script element, whatever texts it holds.

    >>> script_json({"note": "</script>"})
    '{"note":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text


def _template(name: str) -> str:
    return resources.files("evocompress.runs.report").joinpath(name).read_text(encoding="utf-8").strip("\n")


def _hash(script: str) -> str:
    """A script's source expression in a content security policy (W3C, CSP Level 3)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

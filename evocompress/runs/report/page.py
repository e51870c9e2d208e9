"""The report page: a run's payload, the style, the script and plotly in one HTML file that asks nothing of any network.

Data and plotly lie in it compressed, in script elements that a browser does not run; the page's script inflates them.
Nobody's text can become markup or code: what is compressed is written in base64, the script sets text only as text, and
the page's own policy allows just the two scripts whose hashes it names, of which plotly is one.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evocompress.runs.report.payload import payload
from evocompress.runs.report.section import further_sections
from evocompress.runs.report.views import views
from evocompress.support.atomic_files import write_bytes
from evocompress.support.optional_libraries import needs_extra

if TYPE_CHECKING:
    from evocompress.search.history import History

__all__ = ["compressed", "render_report", "write_report"]


def write_report(history: History, path: str | Path, *, files: str | None = None) -> None:
    """Write the report of a run, going on or finished, to `path`, whole or not at all; `files` as of `render_report`.

    Raises:
        EvocompressError: The libraries of `evocompress[report]` are missing.
    """
    write_bytes(path, render_report(history, files=files).encode())


def render_report(history: History, *, files: str | None = None) -> str:
    """The report as one HTML text. `files` is the folder of the front's files beside the page, for links to them."""
    with needs_extra("report"):
        import jinja2
        from markupsafe import Markup
        from plotly.offline import get_plotlyjs
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("evocompress.runs.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    (plotly, plotly_hash), script = _once(get_plotlyjs), f"{_template('views.html.j2')}\n{_template('script.html.j2')}"
    run = history.run
    return environment.get_template("page.html.j2").render(
        title=f"{run.get('network', {}).get('name', 'network')} on {run.get('data', {}).get('name', 'data')}",
        run=run,
        quality=history.quality,
        config=json.dumps(run.get("config", {}), indent=2, ensure_ascii=False),
        data=_compressed_json(payload(history, files=files)),
        views=_compressed_json(views(history)),
        style=Markup(_template("style.html.j2")),
        sections=further_sections(history),
        script=Markup(script),
        plotly=plotly,
        hashes=[plotly_hash, _hash(script)],
    )


def compressed(text: str) -> str:
    """A text as gzip in base64: what the page's `inflate` makes a text of again. Equal texts give equal ones.

    >>> gzip.decompress(base64.b64decode(compressed("</script>")))
    b'</script>'
    """
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _compressed_json(value: Any) -> str:
    return compressed(json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False))


@functools.cache
def _once(get_script: Callable[[], str]) -> tuple[str, str]:
    """A script that is the same in all pages, compressed, and its hash."""
    script = get_script()
    return compressed(script), _hash(script)


def _template(name: str) -> str:
    return resources.files("evocompress.runs.report").joinpath(name).read_text(encoding="utf-8").strip("\n")


def _hash(script: str) -> str:
    """A script's source expression in a content security policy (W3C, CSP Level 3)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

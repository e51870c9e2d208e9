"""The gallery of kernels as one HTML file that asks nothing of any network: pictures are inside it as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from evocompress.ideas.kernels.panels import Picture, Section
from evocompress.support.atomic_files import write_bytes
from evocompress.support.optional_libraries import needs_extra

__all__ = ["render_gallery", "write_gallery_html"]


def render_gallery(sections: Sequence[Section], title: str) -> str:
    """The page as text; names of layers are escaped, and its own policy allows neither scripts nor addresses.

    Raises:
        EvocompressError: The libraries of `evocompress[report]` are missing.
    """
    with needs_extra("report"):
        import jinja2
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("evocompress.ideas.kernels", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["data_uri"] = _data_uri
    return environment.get_template("gallery.html.j2").render(
        title=title,
        sections=sections,
        changed=sum(tile.changed for section in sections for tile in section.tiles),
    )


def write_gallery_html(sections: Sequence[Section], title: str, path: Path) -> None:
    """Write `render_gallery` to `path`, whole or not at all."""
    write_bytes(path, render_gallery(sections, title).encode())


def _data_uri(picture: Picture) -> str:
    with needs_extra("report"):
        from PIL import Image
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()

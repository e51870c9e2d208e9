"""Hooks of mkdocs: pages that lie outside docs/ are in the site too, and links to code become its path.

A page links to files of the repository by relative paths, so that links work where the repository is looked at. In the
site, links to a page of `PAGES` lead to that page; of the others only the text stays, with the path behind it.
"""

import posixpath
import re
from pathlib import Path

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
#: Pages from elsewhere: their name in the site, and where they are.
PAGES = {
    "FORMAT.md": "codecs/FORMAT.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "NOTES.md": "benchmarks/NOTES.md",
    "RESULTS.md": "benchmarks/RESULTS.md",
    "records.md": "examples/records/README.md",
}
NAMES = {path: name for name, path in PAGES.items()} | {"README.md": "index.md"}
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s#]*)(#[^)\s]*)?\)")


def on_files(files, config):
    """Add the pages from elsewhere."""
    for name, path in PAGES.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links as the site has them; blocks of code stay as they are."""
    source = PAGES.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _text(part, source) for part in parts)


class Doctests(griffe.Extension):
    """Docstrings as the site has them: doctests are blocks of code."""

    def on_object(self, *, obj, **kwargs):
        """Of each function, class and module."""
        if obj.docstring is not None:
            text = re.sub(r"^>>> .*?(?=\n\n|\Z)", r"```pycon\n\g<0>\n```", obj.docstring.value, flags=re.M | re.S)
            obj.docstring.value = text


def _text(markdown, source):
    """Text between blocks of code; a[i][j] in it is no reference."""
    spans = re.split(r"(`+[^`]+`+)", LINK.sub(lambda match: _link(match, source), markdown))
    return "".join(span if span.startswith("`") else span.replace("][", "]\\[") for span in spans)


def _link(match, source):
    text, target, anchor = match[1], match[2], match[3] or ""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    name = NAMES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
    if name is not None:
        return f"[{text}]({name}{anchor})"
    bare = text.strip("`").strip("/")
    return f"`{path}`" if bare in (path, posixpath.basename(path)) else f"{text} (`{path}`)"

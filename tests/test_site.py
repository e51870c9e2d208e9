"""The site of docs/: every page has its place, and it builds where mkdocs is installed (the extra docs)."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(not (ROOT / "mkdocs.yml").exists(), reason="not run from a source tree")


def test_every_page_is_in_the_navigation_once() -> None:
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    named = re.findall(r"- [^:\n]+: (\S+\.md)$", text[text.index("\nnav:") :], re.MULTILINE)
    hooks = (ROOT / "docs" / "site_hooks.py").read_text("utf-8")
    elsewhere = re.findall(r'^    "([\w.]+\.md)": "', hooks, re.MULTILINE)
    pages = [path.name for path in (ROOT / "docs").glob("*.md")]
    assert len(elsewhere) == 5 and sorted(named) == sorted([*pages, *elsewhere])


def test_every_public_name_is_in_the_reference() -> None:
    import evocompress

    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    names = {line.rpartition(".")[2] for line in page.splitlines() if line.startswith("::: ")}
    assert set(evocompress.__all__) - {"__version__", "EvocompressError"} <= names and "errors" in names


@pytest.mark.slow
def test_it_builds_without_a_warning(tmp_path: Path) -> None:
    for library in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed (extra docs)")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "api.html").exists()

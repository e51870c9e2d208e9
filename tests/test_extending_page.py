"""The page docs/extending.md: its code is written out, installed as the package that it says, and run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from small_package import write_package

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending.md"
#: Runs each part in a namespace of its own, and goes on after one that fails.
RUNNER = """
import json, sys, traceback, torch
torch.set_num_threads(1)
failed = {}
for name, source in json.load(open("parts.json")).items():
    try:
        exec(compile(source, name, "exec"), {"__name__": name})
    except BaseException:
        failed[name] = traceback.format_exc()
json.dump(failed, open("failed.json", "w"))
"""


class Block(NamedTuple):
    """A block of code: its section, its language, the file that its first line names ("" for none), and its text."""

    section: str
    language: str
    file: str
    text: str


def blocks() -> Iterator[Block]:
    page = PAGE.read_text(encoding="utf-8")
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL):
            named = re.match(r"# (\w+\.\w+)\n", text)
            yield Block(title, language, named[1] if named else "", text)


def parts() -> dict[str, str]:
    """The code of each section that is no file."""
    found: dict[str, str] = {}
    for block in blocks():
        if block.language == "python" and not block.file:
            found[block.section] = found.get(block.section, "") + block.text
    return found


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What went wrong in each section, in one process for all of them."""
    folder = tmp_path_factory.mktemp("page")
    files = {block.file: block.text for block in blocks() if block.file}
    modules = {name.removesuffix(".py"): text for name, text in files.items() if name.endswith(".py")}
    project = tomllib.loads(files["pyproject.toml"])
    assert set(project["tool"]["setuptools"]["py-modules"]) == set(modules)
    points = project["project"]["entry-points"]
    write_package(folder, "evocompress-additions", modules, points)
    (folder / "ink.toml").write_text(files["ink.toml"], encoding="utf-8")
    (folder / "parts.json").write_text(json.dumps(parts()), encoding="utf-8")
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    command = [sys.executable, "-W", "error", "-c", RUNNER]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    problems: dict[str, str] = json.loads((folder / "failed.json").read_text(encoding="utf-8"))
    return problems


@pytest.mark.parametrize("section", parts())
def test_the_code_of_a_section(section: str, failed: dict[str, str]) -> None:
    assert section not in failed, failed[section]


def test_every_protocol_has_a_whole_example() -> None:
    sections = {block.section for block in blocks() if block.file.endswith(".py")}
    assert sections == {"Task", "Term", "Form", "LayerView", "Observer"} and sections < set(parts())

"""A package with one of everything, installed in a folder of its own, and a search that uses all of it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
from small_package import every_list, installed, write_package

from evocompress import protocols
from evocompress.cli import main
from evocompress.extensions import FORMS, LAYER_VIEWS, TASKS, TERMS, Extensions

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SOURCE = Path(__file__).parent / "example_package"
KINDS = {kind.group.removeprefix("evocompress.") for kind in every_list()}
CONFIG = """
model = "scaled_mlp"
data = "quadrants"
reference_epochs = 1
task = "agreement"
named_files = true
[model_options]
hidden = 6
first_scale = 1.5

[data_options]
examples = 128

[search]
segments = 5
initial = 3
probes = 1
deterministic = true
lag = 2
selection = "smallest"
pool_size = 4

[genes]
epochs = 2
centre = 0.01
rate_term = ["off"]
squeeze = [0.0, 1.0]
rate_weight = [0.03, 3.0]
sensitivity = ["gradient"]
codecs = { first = ["negated+deadzone"], dense = ["negated + trellis"], last = ["negated+deadzone"] }

[resources]
executor = "counting"
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the package is installed, as its pyproject.toml says."""
    folder = tmp_path_factory.mktemp("environment") / "site"
    project = tomllib.loads((SOURCE / "pyproject.toml").read_text(encoding="utf-8"))
    (name,) = project["tool"]["setuptools"]["py-modules"]
    modules = {name: (SOURCE / f"{name}.py").read_text(encoding="utf-8")}
    write_package(folder, project["project"]["name"], modules, project["project"]["entry-points"])
    return folder


@pytest.fixture(scope="module")
def log(environment: Path) -> Path:
    return environment.parent / "used.txt"


class Done(NamedTuple):
    """What a command has left."""

    returncode: int
    stdout: str
    stderr: str


def variables_of(log: Path | None) -> dict[str, str]:
    return {"COLUMNS": "150", **({} if log is None else {"EVOCOMPRESS_EXAMPLE_LOG": str(log)})}


def in_a_process(*words: str | Path, environment: Path, log: Path) -> Done:
    """A command in an interpreter of its own that has the package installed."""
    command = [sys.executable, "-m", "evocompress", *map(str, words)]
    path = os.pathsep.join(map(str, [environment, ROOT]))
    variables = {**os.environ, "PYTHONPATH": path, **variables_of(log)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, env=variables, cwd=ROOT / "tests")
    return Done(done.returncode, done.stdout, done.stderr)


def evocompress(*words: str | Path, path: list[Path], log: Path | None = None) -> Done:
    """A command in this process, while the package is installed in it, or while it is not."""
    stdout, stderr, status = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        for folder in path:
            stack.enter_context(installed(folder, patch))
        patch.setattr("sys.argv", ["evocompress", *map(str, words)])
        for name, value in variables_of(log).items():
            patch.setenv(name, value)
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            try:
                main()
            except SystemExit as end:
                status = int(end.code or 0)
    return Done(status, stdout.getvalue(), stderr.getvalue())


@pytest.fixture(scope="module")
def run(environment: Path, log: Path) -> Path:
    """A finished run."""
    config, folder = environment.parent / "example.toml", environment.parent / "run"
    config.write_text(CONFIG)
    done = in_a_process("run", config, "--out", folder, "--log", "sizes", environment=environment, log=log)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder


@pytest.mark.parametrize(
    ("kind", "name", "protocol"),
    [
        (TASKS, "agreement", protocols.Task),
        (TERMS, "centred", protocols.Term),
        (FORMS, "frozen_scale", protocols.Form),
        (LAYER_VIEWS, "scaled_linear", protocols.LayerView),
    ],
    ids=lambda value: value.kind if isinstance(value, Extensions) else "",
)
def test_parts_have_what_their_protocols_ask_for(
    environment: Path, kind: Extensions, name: str, protocol: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    with installed(environment, monkeypatch):
        part = kind.find(name)
        needed = {key for key in (*vars(protocol), *protocol.__annotations__) if not key.startswith("_")}
        assert needed and not [key for key in needed if not hasattr(part, key)]


def test_a_search_uses_every_part(run: Path, environment: Path, log: Path) -> None:
    done = evocompress("sizes", run, path=[environment], log=log)
    assert done.returncode == 0, done.stderr
    sizes = sorted(path.stat().st_size for path in (run / "export" / "front").glob("*.evc"))
    assert sizes and set(sizes) <= {int(line) for line in done.stdout.split()}
    assert len((run / "tracked.txt").read_text().split()) == 5
    assert set(log.read_text().split()) == KINDS  # layer views, too: what is trained once is packed calibrated


def test_calibration_sees_its_layer(run: Path, environment: Path, tmp_path: Path) -> None:
    file, used = next((run / "export" / "front").glob("*.evc")), tmp_path / "used.txt"
    network = ["--model", "scaled_mlp", "--set", "hidden=6", "--data", "quadrants", "--samples", "64"]
    done = evocompress("pack", file, "-o", tmp_path / "w.evc", *network, path=[environment], log=used)
    assert done.returncode == 0, done.stderr
    assert set(used.read_text().split()) == {"networks", "data", "layer_views"}


def test_the_run_is_shown_with_the_package(run: Path, environment: Path) -> None:
    shown = evocompress("front", run, path=[environment])
    assert shown.returncode == 0, shown.stderr
    written = evocompress("report", run, path=[environment])
    assert written.returncode == 0 and str(run / "export" / "sizes.txt") in written.stdout
    page = (run / "export" / "report.html").read_text(encoding="utf-8")
    assert re.search(r'id="section-smallest">\s*<h2>Smallest file</h2>\s*<p class="note"> It has \d+ bytes.', page)
    file = next((run / "export" / "front").glob("*.evc"))
    inspected = evocompress("inspect", file, path=[environment])
    assert inspected.returncode == 0 and "negated+deadzone" in inspected.stdout
    listed = evocompress("codecs", path=[environment])
    assert re.search(r"negated +transform +\(no parameters\)", listed.stdout)
    helped = evocompress("--help", path=[environment])
    assert "Print what the exporter of sizes has written" in helped.stdout


def test_the_run_and_its_files_without_the_package(run: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(run, tmp_path / "run")
    file = next((copied / "export" / "front").glob("*.evc"))
    for command in ("unpack", "inspect"):
        output: list[str | Path] = ["-o", tmp_path / "w.safetensors"] if command == "unpack" else []
        done = evocompress(command, file, *output, path=[])
        assert done.returncode == 2 and "Traceback" not in done.stderr
        text = " ".join(done.stderr.split())
        assert re.search(r"Tensor '[\w.]+' needs codec stage 'negated' \(number 63, of the range for private use", text)
        assert "install the package that adds it" in text
    shown = evocompress("front", copied, path=[])
    assert shown.returncode == 0, shown.stderr
    written = evocompress("report", copied, path=[])
    assert written.returncode == 0 and "Smallest file" not in (copied / "export" / "report.html").read_text("utf-8")
    again = evocompress("run", "--resume", "--out", copied, path=[])
    assert again.returncode == 2 and "Traceback" not in again.stderr
    assert "unknown" in again.stderr and "counting" in again.stderr

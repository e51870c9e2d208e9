"""The package of examples/codec_package: pip installs it, and its stage works wherever codecs have names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_package import installed
from typer.testing import CliRunner

from evocompress.cli import app
from evocompress.codecs.conformance import CHECKS
from evocompress.evolve.config import parse_config

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (Path(__file__).parents[1] / "docs").is_dir(), reason="no source tree"),
]

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "examples" / "codec_package"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip has installed the package into, from the source, without an index."""
    pytest.importorskip("setuptools", minversion="77", reason="the build backend is not installed")
    pytest.importorskip("pip")
    folder = tmp_path_factory.mktemp("installed")
    copy = tmp_path_factory.mktemp("source")
    for path in SOURCE.glob("*.*"):
        (copy / path.name).write_bytes(path.read_bytes())
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index"]
    command = [sys.executable, "-m", "pip", "install", *quiet, "--target", str(folder), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_page_shows_these_files() -> None:
    page = (ROOT / "docs" / "own_codec.md").read_text("utf-8")
    for name in ("pairs_codec.py", "pyproject.toml"):
        assert (SOURCE / name).read_text("utf-8") in page


def test_the_stage_keeps_what_every_stage_must(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with installed(site, monkeypatch):
        for check in CHECKS:
            check("pairs(level=1)+deadzone")


def test_a_configuration_may_name_it(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with installed(site, monkeypatch):
        config = parse_config(
            {"model": "digits_cnn", "data": "digits", "genes": {"codecs": {"conv": ["pairs+trellis"]}}}
        )
        assert "pairs+trellis" in str(config.genes)


def shown(*words: str | Path) -> str:
    """What a command prints, in this process."""
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_a_run_in_a_process_of_its_own_and_other_commands_have_it(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["search.segments=2", "search.initial=2", "reference_epochs=0", "genes.epochs=1", "named_files=true"]
    settings += ["resources.executor=inline", "search.probes=0", 'genes.codecs.dense=["pairs(level=1)+deadzone"]']
    (tmp_path / "c.toml").write_text('model = "digits_cnn"\ndata = "digits"\n[genes]\ngrid = ["codecs"]\n', "utf-8")
    options = [word for text in settings for word in ("--set", text)]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    command = [sys.executable, "-m", "evocompress", "run", "c.toml", "--out", "run", *options]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr + done.stdout
    with installed(site, monkeypatch):
        assert re.search(r"pairs +transform +level=0", shown("codecs"))
        files = list((tmp_path / "run" / "export" / "front").glob("*.evc"))
        assert any("pairs" in shown("inspect", file) for file in files)

"""Shell completion: the scripts, and what a shell is answered."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from evocompress.cli import app, main

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str) -> None:
    script = CliRunner().invoke(app, ["completion", shell])
    assert script.exit_code == 0 and f"_EVOCOMPRESS_COMPLETE=complete_{shell}" in script.output
    assert script.output.isascii()


def test_another_shell_is_refused() -> None:
    assert CliRunner().invoke(app, ["completion", "cmd"]).exit_code == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("evocompress sta", ["status"]),
        ("evocompress status --w", ["--watch"]),
        ("evocompress pack w -o o --preset b", ["balanced", "best"]),
        ("evocompress export run --to p", ["picture", "parquet"]),
        ("evocompress ker", ["kernels"]),
    ],
)
def test_what_it_completes(
    words: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_EVOCOMPRESS_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    monkeypatch.setattr("sys.argv", ["evocompress"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code and capsys.readouterr().out.split() == expected


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_in_bash(tmp_path: Path) -> None:
    command = tmp_path / "evocompress"
    command.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m evocompress\n")
    command.chmod(0o755)
    script = CliRunner().invoke(app, ["completion", "bash"]).output
    words = "COMP_WORDS=(evocompress rep); COMP_CWORD=1; _evocompress_completion evocompress; echo ${COMPREPLY[@]}"
    found = subprocess.run(
        ["bash", "-c", f"{script}\n{words}"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path,
    )  # fmt: skip
    assert found.stdout.split() == ["report", "repair"] and not found.stderr

"""The command `python -m benchmarks`: the names that it takes."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAIN = runpy.run_path(str(ROOT / "benchmarks" / "__main__.py"), run_name="benchmarks")


@pytest.mark.parametrize(
    ("words", "names"),
    [([], [*MAIN["BENCHMARKS"]]), (["kernels"], ["kernels"]), (["speed", "demo"], ["speed", "demo"])],
)
def test_names(words: list[str], names: list[str]) -> None:
    assert MAIN["asked"](words) == names


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        (["--help"], 0, "saccades_canvas"),
        (["--help"], 0, "[NAME ...]"),
        (["none"], 2, "no such benchmark: none; there"),
    ],
)
def test_help_and_unknown_names(
    words: list[str], status: int, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        MAIN["asked"](words)
    assert caught.value.code == status and expected in "".join(capsys.readouterr())


def test_each_packing_benchmark_can_be_imported_first_and_knows_its_folders() -> None:
    modules = [f"benchmarks.pack.{path.stem}" for path in (ROOT / "benchmarks" / "pack").glob("[!_]*.py")]
    code = (
        "import importlib, sys\n"
        f"for module in {modules}:\n"
        "    for name in [name for name in sys.modules if name.startswith('benchmarks')]:\n"
        "        del sys.modules[name]\n"
        "    importlib.import_module(module)\n"
        "from benchmarks.pack.runs import ROOT\n"
        "assert (ROOT / 'evocompress').is_dir() and (ROOT / 'benchmarks' / 'results.json').is_file()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr

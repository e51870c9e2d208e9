"""What `python -m benchmarks` is asked for."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

MAIN = runpy.run_path(str(Path(__file__).resolve().parents[1] / "benchmarks" / "__main__.py"), run_name="benchmarks")


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

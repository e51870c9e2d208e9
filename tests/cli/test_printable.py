"""Printable text: what comes from outside cannot steer the terminal that it is printed on."""

from __future__ import annotations

import ast
import io
import re
import warnings
from pathlib import Path

import pytest
import safetensors.torch
import torch
from rich.text import Text
from synthetic_run import synthetic_run, write_synthetic_run
from typer.testing import CliRunner

from evocompress.cli import app, main
from evocompress.protocols import Said
from evocompress.runs.display import RunDisplay
from evocompress.support.printable import SafeConsole, printable

TITLE = "\x1b]0;owned\x07"
HOSTILE = f"{TITLE}\x1b[2J\x9b31m\x1bP1$r\x1b\\\u202egnp\u2066.exe\r\x08\x7f"
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A checkpoint, a file packed from it, and a run, with hostile names."""
    generator = torch.Generator().manual_seed(0)
    state = {f"{HOSTILE}.weight": torch.randn(8, 4, 3, 3, generator=generator), TITLE: torch.randn(8, 16)}
    weights = tmp_path / f"w{TITLE.replace('/', '')}.safetensors"
    safetensors.torch.save_file(state, weights)
    run = tmp_path / "run"
    write_synthetic_run(run, synthetic_run(24, hostile=HOSTILE))
    return weights, tmp_path / f"p{TITLE}.evc", run


@pytest.mark.filterwarnings("ignore:Glyph")
def test_no_command_prints_what_a_terminal_obeys(
    files: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    weights, packed, run = files
    second = tmp_path / f"run{TITLE}"
    write_synthetic_run(second, synthetic_run(12, hostile=HOSTILE))
    broken = tmp_path / f"broken{TITLE}"
    write_synthetic_run(broken, synthetic_run(3, hostile=HOSTILE))
    journal = broken / "journal" / "000001.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"seq":2', b'"seq":9', 1))
    commands: list[list[object]] = [
        ["pack", weights, "-o", packed, "--rate-weight", "1e-3"],
        ["inspect", packed],
        ["inspect", packed, "--json"],
        ["inspect", packed, "--against", weights],
        ["unpack", packed, "-o", tmp_path / f"back{TITLE}.safetensors"],
        ["curve", weights, "--codecs", "deadzone", "--rate-weights", "1e-3,1e-2"],
        ["kernels", weights],
        ["front", run, second, "--under", "100kB"],
        ["front", run, "--json"],
        ["front", broken],
        ["report", run],
        ["repair", broken],
        ["repair", run, "--dry-run"],
        ["certify", packed, "--run", run],
        ["evaluate", packed, "--model", "digits_cnn", "--data", "digits"],
        ["run", "--resume", "--out", run],
        ["run", "--resume", "--out", broken],
        ["inspect", tmp_path / f"none{HOSTILE}"],
        ["saccades", packed],
        ["codecs"],
        ["settings", HOSTILE],
    ]
    said = ""
    for words in commands:
        monkeypatch.setattr("sys.argv", ["evocompress", *map(str, words)])
        try:
            main()
        except SystemExit:
            pass
        captured = capsys.readouterr()
        for text in (captured.out, captured.err):
            found = UNSAFE.search(text)
            assert found is None, (words[0], text[max(0, (found.start() if found else 0) - 60) :][:200])
            said += text
    assert "gnp.exe" in said and "conv" in said  # the names themselves are there


def test_a_terminal_s_own_colours_stay_and_others_go() -> None:
    file = io.StringIO()
    console = SafeConsole(file=file, force_terminal=True, color_system="truecolor", width=200)
    console.print(Text.assemble(("name", "bold red"), f" {HOSTILE}conv"))
    shown = file.getvalue()
    assert "\x1b[1;31mname" in shown and "conv" in shown
    assert "\x1b]" not in shown and "\x1b[2J" not in shown and "\u202e" not in shown
    display_file = io.StringIO()
    with RunDisplay(console=SafeConsole(file=display_file, width=80)) as display:
        display(Said(f"node {HOSTILE}gpu-1 is away"))
    assert display_file.getvalue() == "node 0;ownedgnp.exegpu-1 is away\n"  # rich itself takes the end of a title


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain", "plain"),
        ("two\nlines\tand é ✓ 日本", "two\nlines\tand é ✓ 日本"),
        (TITLE + "a", "a"),
        ("\x1b]0;never ended", "0;never ended"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\x1b[38;5;196mb\x1b[0mc", "abc"),
        ("a\x9b2Jb\x9d0;t\x9cc", "abc"),
        ("a\x1bcb\x1b(Bd\x1b", "abd"),
        ("a\r\nb\x00\x7f\x85", "a\nb"),
        ("\u202eevil\u202c \u2066x\u2069\u061c", "evil x"),
        ("half \udc80", "half \N{REPLACEMENT CHARACTER}"),
    ],
)
def test_printable(text: str, safe: str) -> None:
    assert printable(text) == safe
    assert printable(safe) == safe


def test_all_that_is_printed_goes_through_there() -> None:
    """No module of the command line prints by itself: the kind is closed, whatever is added."""
    package = ROOT / "evocompress"
    allowed = {package / "support" / "command_line.py", package / "support" / "printable.py"}
    for path in {*package.rglob("*.py")} - allowed:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            assert called not in ("print", "typer.echo", "typer.secho", "click.echo", "Console"), (
                f"{path}:{node.lineno}"
            )


def test_warnings_are_printed_so_too(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["evocompress", "--version"])
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with pytest.raises(SystemExit):
        main()
    assert "conv" in warnings.formatwarning(f"{HOSTILE}conv", UserWarning, "file.py", 1)
    assert not UNSAFE.search(warnings.formatwarning(f"{HOSTILE}conv", UserWarning, "file.py", 1))
    assert "repair" in CliRunner().invoke(app, ["--help"]).output

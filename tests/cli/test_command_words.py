"""Commands and options in messages: the library speaks of its arguments, and `cli/` alone of what is typed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch

from evocompress.checkpoint.loading import load_state
from evocompress.checkpoint.packing import pack, unpack
from evocompress.cli.command_words import as_commands
from evocompress.data.location import missing
from evocompress.errors import EvocompressError, FormatError, JournalError, ModelError

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "evocompress"

pytestmark = pytest.mark.skipif(not (ROOT / "codecs").is_dir(), reason="not run from a source tree")

#: Modules whose messages may name commands, and why.
ALLOWED = {
    "evocompress/support/command_line.py": "what commands share, those of ideas too: options and their checks",
    "evocompress/checkpoint/pretrained.py": "no command runs it, and what it needs is made by one",
    "evocompress/evolve/driver.py": "options of git",
}
COMMANDS = sorted(path.stem for path in (PACKAGE / "cli").glob("*.py"))
TYPED = re.compile(rf"(?<![\w-])--[a-z]|\bevocompress ({'|'.join(COMMANDS)})\b")


def typed_words(source: str) -> list[str]:
    """What is typed in a shell, among a module's texts that are no docstrings."""
    tree = ast.parse(source)
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in statements]
    texts = [node.value for node in constants if isinstance(node.value, str)]
    return [match.group() for text in texts for match in TYPED.finditer(text)]


def library() -> list[Path]:
    """Modules outside `cli/`, but for the commands that ideas bring."""
    paths = [*PACKAGE.rglob("*.py"), *(ROOT / "codecs").rglob("*.py"), *(ROOT / "search").rglob("*.py")]
    real = [path for path in paths if not any(part.is_symlink() for part in (path, *path.parents))]
    return [path for path in real if path.parent.name != "cli" and path.name != "command.py"]


def test_the_library_names_neither_commands_nor_options() -> None:
    named = {str(path.relative_to(ROOT)): typed_words(path.read_text(encoding="utf-8")) for path in library()}
    assert len(named) > 100
    assert {name for name, words in named.items() if words} == ALLOWED.keys()


def test_a_named_option_or_command_is_seen() -> None:
    source = '"""Reads `evocompress pack --bare`."""\nraise Error(f"{path}: say --trust, or evocompress repair {path}")'
    assert typed_words(source) == ["--t", "evocompress repair"]
    assert not typed_words('"""As the option --trust."""\nTITLE = "a -- b, evocompress packs"')


def of_prefixed_weights() -> EvocompressError:
    import torch

    with pytest.raises(ModelError) as caught:
        load_state(torch.nn.Linear(2, 2), {"module.weight": torch.ones(2, 2), "module.bias": torch.ones(2)}, "w.evc")
    return caught.value


def test_the_command_line_says_what_to_type() -> None:
    said = as_commands(str(JournalError("000001.jsonl line 3 is damaged (x)", Path("runs/a (1)"))))
    assert "is damaged (x); `evocompress repair runs/a (1)` rebuilds it from the segments' files" in said
    assert " does not exist. Run `evocompress data mnist`, or set" in as_commands(str(missing("mnist", Path("x"))))
    said = as_commands(str(of_prefixed_weights()))
    assert said.endswith(": load(…, strip_prefix='module.'), or pack --strip-prefix module., take it away.")
    said = as_commands("runs/a already holds a run; resume it, or choose another folder")
    assert "`evocompress run --resume --out runs/a`" in said and said.endswith("or choose another --out")
    with pytest.raises(FormatError) as too_large:
        unpack(pack({"w": torch.ones(64)}), max_output_bytes=10)
    assert "than --max-output-bytes, which is 10" in as_commands(str(too_large.value))
    assert as_commands("it is fine") == "it is fine"

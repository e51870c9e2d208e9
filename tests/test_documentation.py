"""The pages are true: their Python runs, and every file and module that pages, docstrings and comments name exists."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import io
import re
import shlex
import tokenize
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import typer
from ideas_present import with_all_ideas
from torch import nn

import evocompress
from evocompress import extensions
from evocompress.cli import app
from evocompress.errors import ConfigError
from evocompress.evolve.config import parse_config
from evocompress.evolve.settings_table import setting_rows
from evocompress.networks import build

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "evocompress"
TOP = ("evocompress", "codecs", "search", "benchmarks", "tests", "docs", "configs", "examples")

pytestmark = [
    pytest.mark.slow,
    with_all_ideas,
    pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="not run from a source tree"),
]


#: Pages whose Python is run. That of docs/extending.md is run by a test of its own.
PAGES = [ROOT / "README.md", *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.stem != "extending")]
#: Pages of which only names and commands are checked.
OTHER_PAGES = [ROOT / "CHANGELOG.md", ROOT / "codecs" / "FORMAT.md", ROOT / "benchmarks" / "NOTES.md"]
#: All of these, and the page whose modules are files that its reader makes: there only links and commands are checked.
ALL_PAGES = [*PAGES, *OTHER_PAGES, *(ROOT / "docs").glob("extending.md")]
SKIP = re.compile(r"<!-- not run: (.+) -->")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def page_text(page: Path) -> str:
    """The text of a page; of the CHANGELOG what has not been released."""
    text = page.read_text(encoding="utf-8")
    return text[: text.find("\n## [0")] if page.name == "CHANGELOG.md" and "\n## [0" in text else text


# Blocks of code


class Block(NamedTuple):
    """A fenced block: the line of its first line, what it holds, and why it is not run, if so."""

    line: int
    code: str
    skipped: str


def blocks(text: str, language: str) -> list[Block]:
    """The fenced blocks of a language; `<!-- not run: reason -->` on the line before one says that it is not run."""
    lines, at, found = text.splitlines(), 0, []
    while at < len(lines):
        if lines[at] == f"```{language}":
            end = lines.index("```", at)
            reason = SKIP.fullmatch(lines[at - 1]) if at else None
            found.append(Block(at + 2, "\n".join(lines[at + 1 : end]), reason[1] if reason else ""))
            at = end
        at += 1
    return found


def run_blocks(page: str, text: str, names: dict[str, Any]) -> None:
    """Run the Python of a page from its beginning, as one program; tracebacks have the page's lines."""
    for block in blocks(text, "python"):
        if not block.skipped:
            exec(compile("\n" * (block.line - 1) + block.code, page, "exec"), names)


# What the reader of a page has: networks, data and functions of their own, and files that the page names.


def readers_of_pack() -> dict[str, Any]:
    return {
        "validation_accuracy": lambda model: 0.5,
        "train_some_epochs": lambda model: None,
    }


def readers_of_connections() -> dict[str, Any]:
    from evocompress.ideas.connections.overprovisioned import OverProvisionedConv2d
    from evocompress.ideas.connections.plan import ConnectionPlan

    return {"network": nn.Sequential(OverProvisionedConv2d(1, 2, ConnectionPlan(kernel=3, near=0.2), in_size=(6, 6)))}


def readers_of_linearconv() -> dict[str, Any]:
    from evocompress.ideas.linearconv import convert

    file = Path("runs/linearconv/export/front/012345B_0.9000.evc")
    file.parent.mkdir(parents=True)
    network = build("base_cnn", {"in_channels": 1})
    file.write_bytes(evocompress.pack(convert(network, alpha=0.75).state_dict(), evocompress.Recipe(1e-2)))
    small = nn.Sequential(nn.Conv2d(2, 8, 3), nn.Conv2d(8, 16, 3))
    return {"trained": small, "network": convert(small, alpha=0.5), "cross_entropy": torch.zeros(())}


def readers_of_own_network() -> dict[str, Any]:
    file = Path("runs/spirals/export/front/000075B_0.9680.evc")
    file.parent.mkdir(parents=True)
    layers = (nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3))
    file.write_bytes(evocompress.pack(nn.Sequential(*layers).state_dict(), evocompress.Recipe(1e-2, names=False)))
    return {}


def readers_of_symmetry() -> dict[str, Any]:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2, self.conv3, self.conv4, self.conv5 = (nn.Conv2d(2, 2, 3) for _ in range(5))

    constrained = build("digits_cnn", {"kernels": "radial"})
    Path("FILE.evc").write_bytes(evocompress.pack(constrained.state_dict()))
    return {
        "torch": torch,
        "network": Network(),
        "cross_entropy": torch.zeros(()),
        "train": lambda network, optimiser, epochs: optimiser.step(),
    }


def readers_of_saccades() -> dict[str, Any]:
    from saccade_gates import undecided

    from evocompress.data.examples import Examples
    from evocompress.ideas.saccades.saccade import SaccadeConv2d

    images, labels = torch.randn(8, 1, 28, 28), torch.arange(8) % 10
    model = build("saccade_cnn", {"width": 4}).eval()
    for layer in model.modules():
        if isinstance(layer, SaccadeConv2d):
            nn.init.normal_(undecided(layer).gate.decide.weight, std=30)
    examples = Examples(images, labels)
    cross_entropy = nn.functional.cross_entropy
    return {"model": model, "images": images, "labels": labels, "examples": examples, "cross_entropy": cross_entropy}


def readers_of_checkpoints() -> dict[str, Any]:
    transformers = pytest.importorskip("transformers", reason="needs transformers (of the dev extra)")
    config = transformers.GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=1)
    config.save_pretrained("OUT")
    Path("OUT/model.evc").write_bytes(evocompress.pack(transformers.GPT2LMHeadModel(config).state_dict()))
    return {}


def readers_of_tutorial_checkpoint() -> dict[str, Any]:
    Path("small.evc").write_bytes(evocompress.pack(build("digits_cnn").state_dict(), 1e-3))
    return {}


READERS: dict[str, Callable[[], dict[str, Any]]] = {
    "docs/checkpoints.md": readers_of_checkpoints,
    "docs/connections.md": readers_of_connections,
    "docs/linearconv.md": readers_of_linearconv,
    "docs/pack.md": readers_of_pack,
    "docs/symmetry.md": readers_of_symmetry,
    "docs/saccades.md": readers_of_saccades,
    "docs/tutorial_checkpoint.md": readers_of_tutorial_checkpoint,
    "docs/tutorial_own_network.md": readers_of_own_network,
}


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page_text(page), "python")], ids=relative)
def test_the_python_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = READERS.get(relative(page), dict[str, Any])()
    run_blocks(relative(page), page_text(page), names)


def test_a_block_that_is_wrong_fails_and_one_may_be_skipped() -> None:
    wrong = "text\n```python\n1 / 0\n```\n"
    with pytest.raises(ZeroDivisionError):
        run_blocks("page", wrong, {})
    skipped = wrong.replace("```python", "<!-- not run: takes an hour -->\n```python")
    assert blocks(skipped, "python") == [Block(4, "1 / 0", "takes an hour")]
    run_blocks("page", skipped, {})


def test_few_blocks_are_skipped() -> None:
    skipped = [block for page in PAGES for block in blocks(page_text(page), "python") if block.skipped]
    assert len(skipped) <= 2


def configuration(text: str) -> dict[str, Any]:
    """A piece of a configuration, made whole by the keys that every one has."""
    return {"model": "digits_cnn", "data": "digits"} | tomllib.loads(text)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_the_configurations_of_a_page_are_read(page: Path) -> None:
    for block in blocks(page_text(page), "toml"):
        if "[project" not in block.code:
            # Two lines that give one key are two ways to say it.
            wholes = block.code.splitlines() if block.code.count("model_options") > 1 else [block.code]
            for whole in wholes:
                parse_config(configuration(whole), f"{relative(page)}:{block.line}")


def test_a_wrong_configuration_fails() -> None:
    with pytest.raises(ConfigError, match="alfa"):
        parse_config(configuration("[genes]\nalfa = 0.5"))


# Commands


def commands(text: str) -> Iterator[str]:
    """The calls of the command `evocompress` in a page: in indented lines, and, with or without its name, in spans."""
    joined = text.replace("\\\n", " ")
    for line in joined.splitlines():
        if line.startswith("    evocompress "):
            yield line.strip()
    for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", re.sub(r"\n *", " ", text)):
        words = span.split()
        if words[0] == "evocompress" and len(words) > 1:
            yield span
        elif words[0] in COMMAND_NAMES and any(word.startswith("--") for word in words):
            yield f"evocompress {span}"


ROOT_COMMAND: Any = typer.main.get_command(app)
ROOT_CONTEXT: Any = ROOT_COMMAND.context_class(ROOT_COMMAND)
COMMAND_NAMES = ROOT_COMMAND.list_commands(ROOT_CONTEXT)


def wrong_call(line: str) -> str | None:
    """What is wrong with a call: an unknown command or option, an argument too many; not a missing one."""
    words = shlex.split(line, comments=True)[1:]
    words = [word for word in words if word != "…"]
    if words == ["--version"]:
        return None
    command = ROOT_COMMAND.get_command(ROOT_CONTEXT, words[0])
    if command is None:
        return f"{line}: there is no command {words[0]!r}"
    try:
        command.make_context(words[0], words[1:], parent=ROOT_CONTEXT)
    except Exception as failure:  # newer versions of typer have a click of their own, whose classes have no other name
        kinds = {kind.__name__ for kind in type(failure).__mro__}
        placeholder = "BadParameter" in kinds and any(PLACEHOLDER.fullmatch(word) for word in words)
        if placeholder or kinds & {"Exit", "MissingParameter"} or "requires an argument" in str(failure):
            return None
        return f"{line}: {failure}"
    return None


#: Words that stand for a value.
PLACEHOLDER = re.compile("[A-Zλ]+")


@pytest.mark.parametrize("page", ALL_PAGES, ids=relative)
def test_the_commands_of_a_page_exist(page: Path) -> None:
    assert not [wrong for line in commands(page_text(page)) if (wrong := wrong_call(line))]


@pytest.mark.parametrize(
    "page", ["    evocompress pak W.safetensors", "Use `evocompress front RUN --over 2kB`.", "See `curve --preset`."]
)
def test_a_wrong_command_is_seen(page: str) -> None:
    (line,) = commands(page)
    assert wrong_call(line)


# What is named


#: Words that look like a path of this repository: its top folders, and what follows.
PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(TOP)})/[\w.*/-]*")
#: A module of this package, or something in it; not the end of a path.
DOTTED = re.compile(r"(?<![\w./-])evocompress(?:\.\w+)+")
#: A dotted name in single backticks.
QUOTED = re.compile(r"(?<!`)`([a-z_]\w*(?:\.\w+)+)(?:\([^`]*\))?`(?!`)")
#: A Python file, with or without folders.
FILE = re.compile(r"(?<![\w./*:-])(?:[a-z_]\w*/)*[a-z_]\w*\.py\b")
BENCHMARK = re.compile(r"python -m (benchmarks(?:\.\w+)*)")
#: Files of users that the pages speak of.
OF_USERS = {"mine.py"}


def tree() -> frozenset[str]:
    """Files and folders of the repository, as paths below its root; links are not followed, but are there."""
    names = {*TOP} | {path.name for path in ROOT.iterdir() if path.is_file()}
    for folder in TOP:
        names |= {relative(path) for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts}
    for link in ("codecs", "search"):
        names |= {f"evocompress/{name}" for name in names if name.split("/")[0] == link}
    return frozenset(names)


TREE = tree()
FILES = (".py", ".json", ".toml", ".csv", ".png", ".html", ".parquet", ".safetensors", ".evc", ".prototxt")
PACKAGES = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
MODULES: dict[str, list[str]] = {}
for name in TREE:
    if name.startswith("evocompress/") and name.endswith(".py"):
        MODULES.setdefault(name.split("/")[-1].removesuffix(".py"), []).append(name[:-3].replace("/", "."))
SECTIONS = {"search", "genes", "resources", "model_options", "data_options"}


def wrong_names(text: str, identifiers: frozenset[str] | None = None) -> set[str]:
    """Paths, modules and attributes that a text names and that do not exist.

    `identifiers` are those of the code that a docstring or comment is about: a quoted name may begin with one.
    """
    joined = re.sub(r"(?<=\w/)\n\s*(?:#:? )?(?=\w)", "", text)  # a path that goes on in the next line
    wrong = {name for name in map(bare, PATH.findall(joined)) if not path_exists(name)}
    wrong |= {name for name in DOTTED.findall(joined) if not dotted_exists(name)}
    wrong |= {name for name in QUOTED.findall(joined) if not quoted_exists(name, identifiers)}
    wrong |= {name for name in FILE.findall(joined) if not file_exists(name)}
    wrong |= {name for name in BENCHMARK.findall(joined) if not is_module(name)}
    return wrong


def bare(path: str) -> str:
    return path.rstrip("./-")


def path_exists(path: str) -> bool:
    pattern = re.compile("[^/]*".join(map(re.escape, path.split("*"))))
    return path in TREE or ("*" in path and any(pattern.fullmatch(other) for other in TREE))


def file_exists(name: str) -> bool:
    return name in OF_USERS or any(f"/{path}".endswith(f"/{name}") for path in TREE)


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@functools.cache
def dotted_exists(name: str) -> bool:
    """Whether a dotted name is a module, an attribute of one, or a group of entry points."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        module = ".".join(parts[:length])
        if is_module(module):
            return has_attribute(importlib.import_module(module), parts[length:]) or name in GROUPS
    return False


GROUPS = {thing.group for thing in vars(extensions).values() if isinstance(thing, extensions.Extensions)}


def has_attribute(thing: Any, names: list[str]) -> bool:
    for name in names:
        if not hasattr(thing, name):
            return name in getattr(thing, "__annotations__", {})
        thing = getattr(thing, name)
    return True


def quoted_exists(name: str, identifiers: frozenset[str] | None) -> bool:
    """Whether a dotted name in backticks is something: in one of our packages or modules, in the code, or elsewhere."""
    first, _, rest = name.partition(".")
    if name.endswith(FILES):
        return True
    if first in PACKAGES and dotted_exists(f"evocompress.{name}"):
        return True
    if any(dotted_exists(f"{module}.{rest}") for module in MODULES.get(first, ())):
        return True
    if first in SECTIONS or first == "codecs":  # genes.codecs is a section too, and goes by its own name
        return is_setting(name) or is_setting(f"genes.{name}")
    if first in PACKAGES or first in MODULES:
        return identifiers is not None and first in identifiers
    return identifiers is None or first in identifiers or is_module(first)


@functools.cache
def settings() -> frozenset[str]:
    """All keys of configurations with their sections, such as search.segments."""
    return frozenset(f"{row.section}.{row.key}" for row in setting_rows("classification"))


def is_setting(name: str) -> bool:
    return name == "genes.codecs" or name in settings() or name.startswith(("model_options.", "data_options."))


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES, *sorted((ROOT / "configs").glob("*.toml"))], ids=relative)
def test_what_a_page_names_exists(page: Path) -> None:
    assert not wrong_names(page_text(page))


def broken_links(page: Path, text: str) -> list[str]:
    """Links of a page to files, or to headings of its own, that are not there."""
    targets = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    headings = {f"#{title.strip().lower().replace(' ', '-')}" for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    within = [link for link in targets if link.startswith("#") and link not in headings]
    files = [link for link in targets if not link.startswith("#")]
    return within + [link for link in files if relative((page.parent / link.split("#")[0]).resolve()) not in TREE]


@pytest.mark.parametrize("page", ALL_PAGES, ids=relative)
def test_the_links_of_a_page_lead_to_files(page: Path) -> None:
    assert not broken_links(page, page_text(page))


def test_a_link_to_nothing_is_seen() -> None:
    text = "# One two\n[a](b.png), [c](../README.md), [d](https://d.org), [e](#one-two), [f](#three)"
    assert broken_links(ROOT / "docs" / "a.md", text) == ["#three", "b.png"]


def texts(source: str) -> Iterator[tuple[int, str]]:
    """The docstrings and comments of a module, and other strings that stand alone, each with its line."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def wrong_names_in_code(source: str) -> dict[int, set[str]]:
    """Names in docstrings and comments that stand for nothing, by line."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    identifiers = frozenset(token.string for token in tokens if token.type == tokenize.NAME)
    found = {line: wrong_names(text, identifiers) for line, text in texts(source)}
    return {line: names for line, names in found.items() if names}


CODE = [path for name in sorted(TREE) if name.endswith(".py") and (path := ROOT / name) != Path(__file__).resolve()]


@pytest.mark.parametrize("folder", ["codecs", "search", "evocompress", "benchmarks", "tests", "examples"])
def test_what_docstrings_and_comments_name_exists(folder: str) -> None:
    links = (ROOT / "evocompress" / "codecs", ROOT / "evocompress" / "search")
    paths = [path for path in CODE if path.parts[len(ROOT.parts)] == folder and not set(links) & set(path.parents)]
    wrong = {relative(path): wrong_names_in_code(path.read_text(encoding="utf-8")) for path in paths}
    assert not {path: names for path, names in wrong.items() if names}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("See evocompress/layers/linear_conv.py.", "evocompress/layers/linear_conv.py"),
        ("see docs/nowhere.md", "docs/nowhere.md"),
        ("in `tests/oracle_*.py`", "tests/oracle_*.py"),
        ("a path that is wrapped: docs/\n    nowhere.md", "docs/nowhere.md"),
        ("as driverless.py says", "driverless.py"),
        ("`evocompress.layers.LinearConv2d`", "evocompress.layers.LinearConv2d"),
        ("`evocompress.ideas.linearconv.LinearConv3d`", "evocompress.ideas.linearconv.LinearConv3d"),
        ("`search.selection_policies.Polity`", "search.selection_policies.Polity"),
        ("`--set search.segmints=200`, `search.segmints`", "search.segmints"),
        ("`codecs.convolutions`", "codecs.convolutions"),
        ("python -m benchmarks.ablation", "benchmarks.ablation"),
        ("`evaluation.first_tensor`", "evaluation.first_tensor"),
    ],
)
def test_a_name_that_stands_for_nothing_is_seen(text: str, name: str) -> None:
    assert name in wrong_names(text, frozenset())


@pytest.mark.parametrize(
    "text",
    [
        "`evocompress.pack`, `evocompress.tasks`, evocompress/codecs/deadzone.py, tests/golden/, codecs/*.py",
        "`search.selection_policies.Policy`, `search.segments`, `resources.gpus`, `torch.nn.Conv2d`",
        "`selection_policies.Policy`",
        "python -m benchmarks.codecs.speed --no-files; `layer.weight` of a layer",
    ],
)
def test_a_name_that_stands_for_something_is_not(text: str) -> None:
    assert not wrong_names(text, frozenset({"layer"}))

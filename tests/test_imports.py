"""Imports: which folder may import which, what an import costs, and what is public."""

from __future__ import annotations

import ast
import functools
import importlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from ideas_present import IDEAS, with_all_ideas

from evocompress.tasks import DEFAULT_TASK

ROOT = Path(__file__).resolve().parents[1]
CODECS, SEARCH, PACKAGE = ROOT / "codecs", ROOT / "search", ROOT / "evocompress"
GOLDEN = ROOT / "tests" / "golden" / "mixed.evc"
STANDARD = set(sys.stdlib_module_names) - {"codecs"}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CODECS.is_dir(), reason="not run from a source tree")]


def files(folder: Path) -> list[Path]:
    """Python files really in a folder: links to other folders are not followed."""
    paths = [path for path in sorted(folder.rglob("*.py")) if not any(p.is_symlink() for p in (path, *path.parents))]
    assert len(paths) > 5
    return paths


@functools.cache
def imported(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, at its top or anywhere else; `from a import b` counts as a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full here"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


#: The packages in their order: each may import itself, those above it, and nothing beside or below it.
ORDER = (
    ("errors",),
    ("extensions",),
    ("support", "codecs", "search"),
    ("protocols",),
    ("checkpoint", "data"),
    ("tasks", "networks", "runs"),
    ("calibration", "training"),
    ("packer",),
    ("evolve",),
    ("ideas",),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
#: The public names of `evocompress` itself come from packages up to here: only what is below may import them.
PUBLIC_NAMES = LEVEL["ideas"]
#: What is at the top: the public names, and the command.
TOP = {"evocompress": "evocompress.__init__", "evocompress.__main__": "evocompress.__main__"}
LIBRARIES = {
    "codecs": {"numpy", "scipy", "pywt", "constriction", "numba", "ml_dtypes"},
    "search": {"numpy", "scipy", "fsspec", "moocore", "ray"},
}


def package_of(name: str) -> str:
    """The package, or the module at the top, that a dotted name below evocompress is in."""
    return name.split(".")[1] if "." in name else ""


def against_the_order(module: str, names: set[str]) -> set[str]:
    """Which of the names that a module imports are not above it."""
    package = package_of(module)
    return {
        name
        for name in names
        if name.split(".")[0] == "evocompress"
        and (other := package_of(name)) not in (package, "__version__")
        and LEVEL.get(other, PUBLIC_NAMES) >= LEVEL[package]
    }


def test_every_package_has_its_place() -> None:
    there = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    there |= {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert there == set(LEVEL)
    assert len(list(PACKAGE.glob("*.py"))) <= 6


@pytest.mark.parametrize("folder", [CODECS, SEARCH, PACKAGE], ids=lambda path: path.name)
def test_packages_have_one_direction(folder: Path) -> None:
    for path in files(folder):
        module = module_of(path)
        if module not in TOP:
            assert not against_the_order(module, imported(path)), module


def test_an_import_against_the_order_is_seen() -> None:
    assert against_the_order("evocompress.checkpoint.recipe", {"evocompress.training.genes", "evocompress.errors"})
    assert against_the_order("evocompress.tasks.measure", {"evocompress.runs.front"})
    assert not against_the_order("evocompress.tasks.measure", {"evocompress.tasks.classification", "torch"})


@pytest.mark.parametrize("name", ["evocompress.load", "evocompress"])
def test_public_names_are_for_the_command_line_only(name: str) -> None:
    assert against_the_order("evocompress.codecs.container", {name})
    assert against_the_order("evocompress.ideas.kernels.command", {name})
    assert not against_the_order("evocompress.cli.pack", {name})


@pytest.mark.parametrize("folder", [CODECS, SEARCH], ids=lambda path: path.name)
def test_codecs_and_search_need_few_libraries(folder: Path) -> None:
    for path in files(folder):
        names = {name.split(".")[0] for name in imported(path)} - STANDARD - {"evocompress"}
        assert names <= LIBRARIES[folder.name], path


def ideas() -> dict[str, set[str]]:
    """The public names that each idea brings, by its folder."""
    brought: dict[str, set[str]] = {}
    for path in files(PACKAGE / "ideas"):
        folder = path.relative_to(PACKAGE / "ideas").parts[0]
        if folder != "__init__.py":
            brought.setdefault(folder, set()).update(public_names(path))
    return brought


def public_names(path: Path) -> set[str]:
    """Classes that a module defines and does not keep to itself; functions are named by importing them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")}


def ideas_named(source: str, brought: Mapping[str, set[str]]) -> set[str]:
    """Ideas that a module names: by an import, or by a name in its code that only they define."""
    named: set[str] = set()
    everywhere = {name: folder for folder, names in brought.items() for name in names}
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            names = [node.value.replace(":", ".")]
        elif isinstance(node, ast.Name):
            named |= {everywhere[node.id]} if node.id in everywhere else set()
        elif isinstance(node, ast.Attribute):
            named |= {everywhere[node.attr]} if node.attr in everywhere else set()
        named |= {name.split(".")[2] for name in names if name.startswith("evocompress.ideas.")}
    return named


@with_all_ideas
def test_the_core_names_no_idea() -> None:
    brought = ideas()
    assert set(brought) == set(IDEAS)
    core = [*files(CODECS), *files(SEARCH), *(path for path in files(PACKAGE) if "ideas" not in path.parts)]
    shared = {name for path in core for name in public_names(path)}  # words that the core has a thing of its own for
    only_theirs = {folder: names - shared for folder, names in brought.items()}
    for path in core:
        if path.stem != "extensions":
            assert not ideas_named(path.read_text(encoding="utf-8"), only_theirs), path


@with_all_ideas
@pytest.mark.parametrize(
    "source",
    [
        "from evocompress.ideas.linearconv import fold",
        "import evocompress.ideas.linearconv.form",
        "find('evocompress.ideas.linearconv.form:LinearConvForm')",
        "isinstance(layer, LinearConv2d)",
        "layers.LinearConv2d(3, 3, 3)",
    ],
)
def test_a_named_idea_is_seen(source: str) -> None:
    assert ideas_named(source, ideas()) == {"linearconv"}


#: Names of ideas that mean nothing else in the core: every convolution has kernels, every cluster connections.
WORDS = set(IDEAS) - {"kernels", "connections"}
#: Stages of codecs that an idea uses. They stay in codecs/, as do their names, because their numbers stand in files
#: (codecs/FORMAT.md), which must be read for ever, whether the idea is there or not.
STAGES_OF_IDEAS = {"registry", "linearconv", "symmetry", "symmetry_groups", "denoise"}


def words_of_ideas(source: str) -> set[str]:
    """Ideas that a module spells, in its names (linear_conv, LinearConv, linearconv) or in texts, docstrings too."""
    spelled: list[str] = []
    for node in ast.walk(ast.parse(source)):
        for field, value in ast.iter_fields(node):
            if isinstance(value, str) and field != "type_comment":  # names, arguments, keywords, attributes, texts
                spelled.append(value.replace("_", "").lower())
    return {word for word in WORDS if any(word in text for text in spelled)}


def test_the_core_spells_no_idea() -> None:
    core = [*files(SEARCH), *(path for path in files(PACKAGE) if "ideas" not in path.parts)]
    core += [path for path in files(CODECS) if path.stem not in STAGES_OF_IDEAS]
    for path in core:
        if path.stem != "extensions":
            assert not words_of_ideas(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(
    "source",
    [
        "CODECS = ('dct', 'dct-linearconv')",
        "def with_linear_conv(layer): ...",
        "class LinearConvReader: ...",
        "pack(state, linearconv=0.5)",
        "def seen(record):\n    'Only what LinearConv makes is not.'",
        "network.linear_conv",
    ],
)
def test_a_spelled_idea_is_seen(source: str) -> None:
    assert words_of_ideas(source) == {"linearconv"}


def test_what_is_for_old_runs_is_one_module_of_the_search() -> None:
    """The search minimises an error that a task defines; the quality of old runs was the accuracy."""
    spelled = [path.stem for path in files(SEARCH) if "accurac" in path.read_text(encoding="utf-8").lower()]
    assert spelled == ["old_runs"]


def test_the_default_task_is_spelled_once() -> None:
    core = [path for path in files(PACKAGE) if "ideas" not in path.parts and path.stem != "extensions"]
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in core}
    spelled = [
        path.relative_to(PACKAGE).as_posix()
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value == DEFAULT_TASK
    ]
    assert spelled == ["tasks/__init__.py"]


@with_all_ideas
def test_ideas_do_not_name_each_other() -> None:
    for path in files(PACKAGE / "ideas"):
        folder = path.relative_to(PACKAGE / "ideas").parts[0]
        others = {name.split(".")[2] for name in imported(path) if name.startswith("evocompress.ideas.")} - {folder}
        assert not others, path


def test_ray_is_in_one_file_of_the_search() -> None:
    with_ray = [path.name for path in files(SEARCH) if any(name.split(".")[0] == "ray" for name in imported(path))]
    assert with_ray == ["ray_cluster.py"]


@pytest.mark.parametrize("folder", [CODECS, SEARCH, PACKAGE, ROOT / "tests", ROOT / "benchmarks"], ids=lambda p: p.name)
def test_the_links_are_never_imported_by_their_bare_names(folder: Path) -> None:
    for path in files(folder):
        assert not {name for name in imported(path) if name.split(".")[0] in ("codecs", "search")}, path


def test_only_the_command_line_parses_options() -> None:
    library = [path for path in files(PACKAGE) if path.parts[-2] != "cli" and path.name != "command.py"]
    with_typer = [path.name for path in library if any(name.split(".")[0] == "typer" for name in imported(path))]
    assert with_typer == ["command_line.py"]


def test_the_pack_job_prints_nothing() -> None:
    for path in files(PACKAGE / "packer"):
        assert not {name.split(".")[0] for name in imported(path)} & {"rich", "typer"}, path
        assert not {name for name in imported(path) if name.startswith("evocompress.cli")}, path


def module_of(path: Path) -> str:
    relative = path.relative_to(ROOT).with_suffix("")
    parts = relative.parts if relative.parts[0] == "evocompress" else ("evocompress", *relative.parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PUBLIC = [
    path
    for folder in (CODECS, SEARCH, PACKAGE)
    for path in files(folder)
    if not path.stem.startswith("_") or path.stem == "__init__"
]


@pytest.mark.parametrize("path", PUBLIC, ids=lambda path: module_of(path))
def test_a_public_module_says_what_is_public(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.stem == "__init__" and not any(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body):
        return  # a package that only holds modules
    lists = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and [t.id for t in node.targets if isinstance(t, ast.Name)] == ["__all__"]
    ]
    assert len(lists) == 1, "no __all__"
    names = ast.literal_eval(lists[0])
    # As ruff sorts them: constants, classes, then the rest.
    rank = [(0 if n.isupper() else 1 if n[:1].isupper() else 2, n) for n in names]
    assert rank == sorted(rank) or names == sorted(names)
    assert len(set(names)) == len(names)
    module = importlib.import_module(module_of(path))
    assert not [name for name in names if not hasattr(module, name)]


def child(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT / "tests")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_import_brings_neither_torch_nor_ray() -> None:
    modules = "evocompress, evocompress.codecs, evocompress.checkpoint.recipe, evocompress.checkpoint.packing"
    heavy = "{'torch', 'ray', 'evocompress.search'} & set(sys.modules)"
    assert child(f"import sys, {modules}; print({heavy})").strip() == "set()"


def test_the_command_imports_what_is_slow_to_import_only_when_it_needs_it() -> None:
    heavy = "{'torch', 'ray', 'matplotlib', 'numba', 'scipy.linalg', 'scipy.special', 'scipy.fft'} & set(sys.modules)"
    assert child(f"import sys, evocompress.cli, evocompress.search; print({heavy})").strip() == "set()"


def test_decoding_needs_neither_torch_nor_ray_nor_the_search() -> None:
    out = child(
        "import sys\n"
        "for name in ('torch', 'ray', 'evocompress.search', 'pydantic', 'fsspec', 'safetensors'):\n"
        "    sys.modules[name] = None\n"
        "import evocompress\n"
        f"tensors = evocompress.unpack(open({str(GOLDEN)!r}, 'rb').read(), framework='numpy')\n"
        "print(len(tensors), evocompress.pack({'w': tensors['dct:conv']})[:3])\n"
    )
    assert out.split()[1] == "b'EVC'" and int(out.split()[0]) > 5


@pytest.mark.parametrize("coder", ["mixing", "rans"])
def test_two_coders_and_most_codecs_need_neither_constriction_nor_pywavelets(coder: str) -> None:
    out = child(
        "import sys\n"
        "sys.modules['constriction'] = sys.modules['pywt'] = None\n"
        "import evocompress, numpy as np\n"
        "from evocompress.checkpoint.recipe import Recipe, Rule\n"
        f"recipe = Recipe(1e-3, (Rule(codecs=('deadzone', 'trellis')),), {coder!r})\n"
        "data = evocompress.pack({'w': np.eye(32)}, recipe)\n"
        "print(evocompress.unpack(data, framework='numpy')['w'].shape)\n"
    )
    assert out.strip() == "(32, 32)"

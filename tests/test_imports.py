"""Which folder may import which, what an import costs, and what is public."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODECS, SEARCH, PACKAGE = ROOT / "codecs", ROOT / "search", ROOT / "evocompress"
GOLDEN = ROOT / "tests" / "golden" / "mixed.evc"
STANDARD = set(sys.stdlib_module_names) - {"codecs"}

pytestmark = pytest.mark.skipif(not CODECS.is_dir(), reason="not run from a source tree")


def files(folder: Path) -> list[Path]:
    """Python files really in a folder: links to other folders are not followed."""
    found = [path for path in sorted(folder.rglob("*.py")) if not any(p.is_symlink() for p in (path, *path.parents))]
    assert len(found) > 5
    return found


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


def outside(path: Path, allowed: set[str]) -> set[str]:
    """What a file imports that is neither standard library nor under one of the allowed modules."""
    return {
        name
        for name in imported(path)
        if name.split(".")[0] not in STANDARD and not any(name == a or name.startswith(a + ".") for a in allowed)
    }


@pytest.mark.parametrize("path", files(CODECS), ids=lambda path: path.name)
def test_codecs_import_nothing_but_arrays_and_the_coder(path: Path) -> None:
    allowed = {
        "numpy",
        "scipy",
        "pywt",
        "constriction",
        "numba",
        "ml_dtypes",
        "evocompress.codecs",
        "evocompress.errors",
    }
    assert not outside(path, allowed)


@pytest.mark.parametrize("path", files(SEARCH), ids=lambda path: path.name)
def test_search_imports_no_network_and_no_codec(path: Path) -> None:
    allowed = {"numpy", "scipy", "fsspec", "moocore", "ray", "evocompress.search", "evocompress.errors"}
    assert not outside(path, allowed)


def test_ray_is_in_one_file_of_the_search() -> None:
    assert len([path for path in files(SEARCH) if any(n.split(".")[0] == "ray" for n in imported(path))]) == 1


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


@pytest.mark.parametrize(
    "module", ["evocompress", "evocompress.codecs", "evocompress.checkpoint.recipe", "evocompress.checkpoint.packing"]
)
def test_an_import_brings_neither_torch_nor_ray(module: str) -> None:
    heavy = "{'torch', 'ray', 'evocompress.search'} & set(sys.modules)"
    assert child(f"import sys, {module}; print({heavy})").strip() == "set()"


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

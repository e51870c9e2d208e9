"""Objects of users by name, such as `package.module:name`: what is found, and what is said where nothing is."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import pytest

from evocompress.errors import ConfigError, DataError
from evocompress.support.user_objects import check_options, is_reference, one_of, resolve


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    return tmp_path


def test_attributes_may_be_nested() -> None:
    assert resolve("pathlib:Path.cwd")() == Path.cwd()


def test_the_current_folder_comes_last(folder: Path) -> None:
    (folder / "json.py").write_text("raise RuntimeError('shadowed')")
    (folder / "package_of_mine").mkdir()
    (folder / "package_of_mine" / "inner.py").write_text("def f():\n    return 7\n")
    assert resolve("package_of_mine.inner:f")() == 7
    assert resolve("json:loads")("[1]") == [1]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("math", "write it as 'package.module:attribute'"),
        ("math:", "write it as"),
        (":hypot", "write it as"),
        ("math:hypto", "has no 'hypto'. Did you mean 'hypot'"),
        ("math:pi", "it is a float; it must be callable"),
        ("no_such_module_here:f", "no module 'no_such_module_here'"),
        ("json.no_such_part:f", "no module 'json.no_such_part'"),
        ("mine.py:f", "no module 'mine'; write it without .py"),
        ("./mine:f", "write it as 'package.module:attribute', the module as in an import"),
    ],
)
def test_what_cannot_be_resolved(reference: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        resolve(reference, what="data set", error=DataError)


def test_only_what_the_module_makes_is_suggested(folder: Path) -> None:
    (folder / "module_of_mine_d.py").write_text(
        "import functools\nfrom pathlib import Path\nfrom math import hypot\nimport json\n"
        "def other(): ...\nclass Net:\n    def make(self): ...\nhalf = functools.partial(other)\nlimit = 3\n"
    )
    with pytest.raises(ConfigError, match=r"has no 'othr'. Did you mean 'other'\? Known: Net, half, other\.$"):
        resolve("module_of_mine_d:othr")
    with pytest.raises(ConfigError, match=r"has no 'mak'. Did you mean 'make'\? Known: make\.$"):
        resolve("module_of_mine_d:Net.mak")


def test_a_module_that_fails_is_told_from_one_that_is_missing(folder: Path) -> None:
    (folder / "module_of_mine_a.py").write_text("import no_such_dependency")
    (folder / "module_of_mine_b.py").write_text("1 / 0")
    (folder / "module_of_mine_c.py").write_text("def f(:")
    with pytest.raises(ConfigError, match="needs 'no_such_dependency', not installed"):
        resolve("module_of_mine_a:f")
    with pytest.raises(ConfigError, match="failed: ZeroDivisionError"):
        resolve("module_of_mine_b:f")
    with pytest.raises(ConfigError, match="failed: SyntaxError"):
        resolve("module_of_mine_c:f")
    (folder / "module_of_mine_e.py").write_text("import sys\nsys.exit(0)")
    with pytest.raises(ConfigError, match="failed: SystemExit: 0"):
        resolve("module_of_mine_e:f")


def test_options() -> None:
    def f(a: int, *, width: int = 1, depth: int = 2) -> None: ...
    def g(**rest: int) -> None: ...

    check_options(f, {"width": 3}, what="f")
    check_options(g, {"anything": 3}, what="g")
    with pytest.raises(ConfigError, match="f: unknown option 'widt'. Did you mean 'width'\\? Known: depth, width"):
        check_options(f, {"widt": 3}, what="f")
    with pytest.raises(ConfigError, match="unknown option 'depth'"):
        check_options(functools.partial(f, depth=3), {"depth": 3}, what="f")


def test_names() -> None:
    assert is_reference("a.b:c") and not is_reference("digits")
    assert one_of([], "x") == "Known: none."
